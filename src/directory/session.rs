//! Which device a session is: learned where it is certain, for the archive's views (DESIGN: archive invariant 4) and as a
//! sign of life (directory invariant 8).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Directory, DirectoryError};
use crate::model::{DeviceId, Owner, Protocol, Requester, SessionJid, Timestamp};

/// Sessions that need not be written again for a while. Forgotten all at once when full: the price is one write each.
const REMEMBERED: usize = 50_000;
/// How long: the database forgets the sessions of an owner that were longest unseen, and others may have taken their place.
const REMEMBERED_FOR: Duration = Duration::from_secs(60 * 60);

type Known = (SessionJid, Protocol, DeviceId);

/// What this instance has written not long ago.
#[derive(Default)]
pub(super) struct KnownSessions(Mutex<HashMap<Known, Timestamp>>);

impl KnownSessions {
    fn contains(&self, known: &Known, now: Timestamp) -> bool {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(known).is_some_and(|written| now.since(*written) < REMEMBERED_FOR)
    }

    fn insert(&self, known: Known, now: Timestamp) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= REMEMBERED {
            map.clear();
        }
        map.insert(known, now);
    }
}

impl Directory {
    /// A session of the owner has sent a message with this `sid`: that is its device.
    pub async fn sent_with(
        &self,
        owner: &Owner,
        requester: &Requester,
        protocol: Protocol,
        sid: DeviceId,
    ) -> Result<(), DirectoryError> {
        let Some(session) = requester.session().filter(|_| requester.is(owner)) else { return Ok(()) };
        self.alive(owner, protocol, sid);
        let (known, now) = ((session, protocol, sid), self.clock.now());
        if !self.known_sessions.contains(&known, now) {
            self.store.learn_session(owner, protocol, &known.0, sid, now).await?;
            self.known_sessions.insert(known, now);
        }
        Ok(())
    }
}
