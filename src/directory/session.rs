//! Which device a session is: learned where it is certain, for the archive's views (DESIGN: archive invariant 4).

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::{Directory, DirectoryError};
use crate::model::{DeviceId, Owner, Protocol, Requester, SessionJid};

/// Sessions that need not be written again. Forgotten all at once when full: the price is one write each.
const REMEMBERED: usize = 50_000;

/// What this instance has already written.
#[derive(Default)]
pub(super) struct KnownSessions(Mutex<HashSet<(SessionJid, Protocol, DeviceId)>>);

impl KnownSessions {
    fn contains(&self, known: &(SessionJid, Protocol, DeviceId)) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(known)
    }

    fn insert(&self, known: (SessionJid, Protocol, DeviceId)) {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if set.len() >= REMEMBERED {
            set.clear();
        }
        set.insert(known);
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
        let known = (session, protocol, sid);
        if !self.known_sessions.contains(&known) {
            self.store.learn_session(owner, protocol, &known.0, sid, self.clock.now()).await?;
            self.known_sessions.insert(known);
        }
        Ok(())
    }
}
