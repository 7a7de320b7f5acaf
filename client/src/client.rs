//! The client: one device of one account.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;
use xmpp_parsers::jid::{BareJid, Jid};

use crate::catch_up::CaughtUp;
use crate::cipher::Cipher;
use crate::connection::Connection;
use crate::error::{ClientError, Refusal};
use crate::event::Event;
use crate::events::Events;
use crate::memory::{Memory, Outcome};
use crate::protocol::Protocol;
use crate::sending::{SendOptions, Sent};
use crate::settings::Settings;
use crate::state::{State, StateError, StateFile};
use crate::upkeep::Upkeep;

/// How long to wait for a client that was just dropped to finish writing its state.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// One device of one account, connected to its server until it is closed or dropped.
///
/// It connects again by itself, answers key exchanges, keeps its bundle and its place in the device list, and reads the
/// archive again after the connection broke. Dropping it is like a crash: nothing is lost, and everything that the state
/// file holds continues with the next [`Client::connect`].
///
/// Every device that a list names is trusted when it is first seen, and its identity is held to from then on: a client
/// for people has to ask them (XEP-0384, "Security Considerations").
pub struct Client {
    inner: Arc<Inner>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the tasks of a client share.
pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) connection: Connection,
    pub(crate) memory: Mutex<Memory>,
    pub(crate) events: Events,
    pub(crate) upkeep: Upkeep,
    /// Who waits for the acknowledgement of which stanza.
    pub(crate) unacknowledged: SyncMutex<HashMap<String, oneshot::Sender<Acknowledgement>>>,
    /// Held from the look at the sessions to the encryption, so that no two calls start the same session.
    pub(crate) starting_sessions: Mutex<()>,
    /// Held while the archive is read.
    pub(crate) catching_up: Mutex<()>,
    /// Deliveries for which no caller waits.
    pub(crate) deliveries: SyncMutex<Vec<AbortHandle>>,
}

/// The archive id of a message of ours, or why it was not taken.
pub(crate) type Acknowledgement = Result<Option<String>, Refusal>;

impl Client {
    /// Connects. At the first start it makes the device, publishes its bundles and puts it into the device lists.
    ///
    /// Returns once the device is registered and receives messages. What came while it was away comes with
    /// [`Client::catch_up`].
    pub async fn connect(settings: Settings) -> Result<Self, ClientError> {
        let file = open_state_file(&settings).await?;
        let (memory, redelivered) = load(&settings, file)?;
        let (connection, arrivals) = Connection::open(&settings);
        let inner = Arc::new(Inner {
            settings,
            connection,
            memory: Mutex::new(memory),
            events: Events::default(),
            upkeep: Upkeep::default(),
            unacknowledged: SyncMutex::default(),
            starting_sessions: Mutex::default(),
            catching_up: Mutex::default(),
            deliveries: SyncMutex::default(),
        });
        inner.events.push(redelivered.events);
        let receiving = tokio::spawn(Arc::clone(&inner).receive(arrivals));
        let mut client = Self { inner, tasks: vec![receiving] };
        client.inner.connection.online().await?;
        client.inner.prepare_stream().await?;
        client.tasks.push(tokio::spawn(Arc::clone(&client.inner).keep_up()));
        client.inner.resend_outbox().await;
        client.inner.upkeep.look();
        Ok(client)
    }

    /// Encrypts `body` for every device of `peer` and every other device of the own account, and sends it.
    ///
    /// Returns once the archive has acknowledged it, or once it is sent where the door gives no acknowledgements. It is
    /// sent again, as it is, as long as no acknowledgement comes. After [`ClientError::Timeout`] it may still arrive: it
    /// is sent again with the next stream or the next start.
    pub async fn send(&self, peer: &BareJid, body: &str, options: SendOptions) -> Result<Sent, ClientError> {
        self.inner.send(peer, body, options).await
    }

    /// Reads the archive from where this device last stopped to its end. What it finds comes as events.
    pub async fn catch_up(&self) -> Result<CaughtUp, ClientError> {
        self.inner.catch_up().await
    }

    /// The next event. By asking for it the caller says that it has dealt with the one before.
    pub async fn next_event(&self) -> Event {
        self.inner.events.next().await
    }

    /// The next event if one is there already; as for [`Client::next_event`].
    pub fn try_next_event(&self) -> Option<Event> {
        self.inner.events.try_next()
    }

    /// The account.
    pub fn account(&self) -> &BareJid {
        &self.inner.settings.account
    }

    /// This device's id.
    pub async fn device_id(&self) -> u32 {
        self.inner.memory.lock().await.cipher.id()
    }

    /// The fingerprint of this device's identity key, for users to compare.
    pub async fn fingerprint(&self) -> String {
        self.inner.memory.lock().await.cipher.fingerprint().to_owned()
    }

    /// An account's device list in a protocol as last seen; `None` before it was looked at.
    pub async fn devices_of(&self, account: &BareJid, protocol: Protocol) -> Option<Vec<u32>> {
        self.inner.memory.lock().await.state.devices(protocol, account).cloned()
    }

    /// The user has looked into a broken history ([`Event::HistoryBroken`]): what the server shows next is taken as its
    /// beginning.
    pub async fn accept_history(&self, account: &BareJid) -> Result<(), ClientError> {
        let mut memory = self.inner.memory.lock().await;
        memory.state.histories.remove(account);
        self.inner.save(&mut memory).await
    }

    /// Saves the state and closes the stream in good order.
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.stop_deliveries();
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
        let saved = self.inner.save(&mut *self.inner.memory.lock().await).await;
        self.inner.connection.close().await;
        saved
    }

    fn stop_deliveries(&self) {
        let deliveries = self.inner.deliveries.lock().unwrap_or_else(PoisonError::into_inner);
        deliveries.iter().for_each(AbortHandle::abort);
    }
}

impl Drop for Client {
    /// The tasks hold the connection; without them it ends.
    fn drop(&mut self) {
        self.stop_deliveries();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The state file, locked. A client that was dropped a moment ago may still be writing.
async fn open_state_file(settings: &Settings) -> Result<StateFile, StateError> {
    let start = Instant::now();
    loop {
        match StateFile::open(&settings.state_file) {
            Err(StateError::InUse { .. }) if start.elapsed() < LOCK_PATIENCE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            outcome => return outcome,
        }
    }
}

/// The device of the state file, or a new one.
fn load(settings: &Settings, file: StateFile) -> Result<(Memory, Outcome), ClientError> {
    let Some(state) = State::load(&file, &settings.account)? else {
        let cipher = Cipher::generate(&settings.account, settings.protocols)?;
        let state = State::new(settings.account.clone());
        return Ok((Memory::new(state, cipher, file), Outcome::default()));
    };
    let unusable = |reason| StateError::Content { path: settings.state_file.clone(), reason };
    let mut cipher = Cipher::from_state(&state.cipher)
        .and_then(|cipher| cipher.ok_or_else(|| "it has no keys".to_owned()))
        .map_err(unusable)?;
    cipher.take_part_in(settings.protocols)?;
    let mut outcome = Outcome::default();
    for (number, received) in &state.inbox {
        outcome.events.push((Some(*number), Event::Received(received.clone())));
    }
    Ok((Memory::new(state, cipher, file), outcome))
}

impl Inner {
    /// The own account.
    pub(crate) fn account(&self) -> &BareJid {
        &self.settings.account
    }

    /// Where the own directory and archive are.
    pub(crate) fn own_address(&self) -> Jid {
        self.settings.door.address_of(self.account())
    }

    /// Saves everything.
    pub(crate) async fn save(&self, memory: &mut Memory) -> Result<(), ClientError> {
        memory.save(self.events.had()).await
    }

    /// Saves what changed, then tells the caller.
    pub(crate) async fn conclude(&self, memory: &mut Memory, outcome: Outcome) -> Result<(), ClientError> {
        if outcome.changed {
            self.save(memory).await?;
        }
        self.events.push(outcome.events);
        Ok(())
    }
}
