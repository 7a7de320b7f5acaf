//! Catching up: reading the archive page by page, saving after each.

use crate::archive::{self, Page};
use crate::client::Inner;
use crate::connection::{Answer, Kind};
use crate::error::ClientError;
use crate::event::{Event, Via};
use crate::memory::Outcome;
use crate::receiving::Delivery;

/// What a catch-up found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CaughtUp {
    /// The messages read, those included that this device had already.
    pub messages: usize,
    /// The places whose messages have expired.
    pub expired: usize,
    /// The pages fetched.
    pub pages: usize,
    /// When the newest message expired that went without leaving a place, before where this device had read to
    /// (XEP-0082). If that is later than its last catch-up, it has missed something.
    pub expired_before: Option<String>,
}

impl Inner {
    /// See [`crate::Client::catch_up`].
    pub(crate) async fn catch_up(&self) -> Result<CaughtUp, ClientError> {
        let _turn = self.catching_up.lock().await;
        let mark = {
            let mut memory = self.memory.lock().await;
            memory.cipher.catch_up_started();
            memory.state.seen.mark()
        };
        let mut found = CaughtUp::default();
        loop {
            let answer = self.next_page().await?;
            let fin =
                answer.payload.as_ref().and_then(archive::read_fin).ok_or(ClientError::Malformed("the archive"))?;
            // An empty page cannot be followed by another one: there is no place after which it would begin.
            let complete = fin.complete || answer.collected.is_empty();
            found.expired_before = found.expired_before.max(fin.expired_before);
            let mut memory = self.memory.lock().await;
            let mut outcome = Outcome::default();
            found.pages = found.pages.saturating_add(1);
            for archived in answer.collected.iter().filter_map(archive::read_result) {
                memory.state.cursor = Some(archived.id.clone());
                outcome.changed = true;
                match archived.message {
                    Some(message) => {
                        found.messages = found.messages.saturating_add(1);
                        let delivery = Delivery { message, archive_id: Some(archived.id), via: Via::Archive };
                        self.take_in(&mut memory, delivery, &mut outcome);
                    }
                    None => {
                        found.expired = found.expired.saturating_add(1);
                        outcome.tell(Event::Expired { archive_id: archived.id, at: archived.at });
                    }
                }
            }
            if complete {
                memory.cipher.catch_up_finished();
                memory.state.seen.caught_up(mark);
                outcome.changed = true;
            }
            self.conclude(&mut memory, outcome).await?;
            if complete {
                self.upkeep.look();
                return Ok(found);
            }
        }
    }

    /// The page after the cursor; from the beginning if the archive does not know that place any more.
    async fn next_page(&self) -> Result<Answer, ClientError> {
        let cursor = self.memory.lock().await.state.cursor.clone();
        let page = cursor.as_deref().map_or(Page::First, Page::After);
        match self.query(page).await {
            Err(error) if error.is_not_found() && cursor.is_some() => {
                self.events.push([(None, Event::ArchiveRestarted)]);
                self.query(Page::First).await
            }
            outcome => outcome,
        }
    }

    async fn query(&self, page: Page<'_>) -> Result<Answer, ClientError> {
        let id = crate::random::id();
        let query = archive::query(&id, page);
        self.connection.request("the archive", &self.own_address(), Kind::Set, query, Some(&id)).await
    }
}
