//! What a running device knows: its saved state, its keys and sessions, and what need not be saved.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cipher::Cipher;
use crate::error::ClientError;
use crate::event::{Event, Received};
use crate::extension::Offers;
use crate::protocol::RemoteDevice;
use crate::state::{State, StateError, StateFile};

/// Everything that a device knows. Whoever changes it saves it before acting on the change.
pub(crate) struct Memory {
    pub(crate) state: State,
    pub(crate) cipher: Cipher,
    /// Listed devices that cannot be reached, until their list changes or the stream is renewed.
    pub(crate) unreachable: BTreeSet<RemoteDevice>,
    /// What the service offers beyond the standards, as the present stream was told.
    pub(crate) offers: Offers,
    last_number: u64,
    file: Arc<StateFile>,
    saves: u64,
}

/// What came of handling something: events for the caller, and whether the state has to be saved first.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) events: Vec<(Option<u64>, Event)>,
    pub(crate) changed: bool,
}

impl Outcome {
    /// Adds an event that needs no saving.
    pub(crate) fn tell(&mut self, event: Event) {
        self.events.push((None, event));
    }
}

impl Memory {
    pub(crate) fn new(state: State, cipher: Cipher, file: StateFile) -> Self {
        let last_number = state.inbox.back().map_or(0, |(number, _)| *number);
        let (unreachable, offers) = (BTreeSet::new(), Offers::default());
        Self { state, cipher, unreachable, offers, last_number, file: Arc::new(file), saves: 0 }
    }

    /// Keeps a message until the caller has had it.
    pub(crate) fn keep(&mut self, received: Received, outcome: &mut Outcome) {
        self.last_number = self.last_number.saturating_add(1);
        self.state.inbox.push_back((self.last_number, received.clone()));
        outcome.events.push((Some(self.last_number), Event::Received(received)));
        outcome.changed = true;
    }

    /// Writes the state to its file. `had` is up to which number the caller has had messages.
    pub(crate) async fn save(&mut self, had: u64) -> Result<(), ClientError> {
        while self.state.inbox.front().is_some_and(|(number, _)| *number <= had) {
            self.state.inbox.pop_front();
        }
        self.state.cipher = self.cipher.to_state()?;
        let bytes = self.state.to_bytes(self.file.path())?;
        // The write goes on if this task is aborted; until it is done, it holds the file's lock.
        let file = Arc::clone(&self.file);
        self.saves = self.saves.saturating_add(1);
        let number = self.saves;
        let path = file.path().to_owned();
        tokio::task::spawn_blocking(move || file.replace(number, &bytes))
            .await
            .map_err(|error| StateError::Content { path, reason: error.to_string() })??;
        Ok(())
    }
}
