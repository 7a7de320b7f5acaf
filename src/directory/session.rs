//! Which device a session is: learned where it is certain, for the archive's views (DESIGN: archive invariant 4) and as a
//! sign of life (directory invariant 8).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Directory, DirectoryError};
use crate::model::{DeviceId, Owner, Protocol, Requester, SessionJid, Timestamp};
use crate::store::LearnedSession;

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

/// A message that a session has sent, which says which device it is.
#[derive(Debug, Clone, Copy)]
pub struct SentWith<'a> {
    /// Whose session.
    pub owner: &'a Owner,
    /// The session.
    pub requester: &'a Requester,
    /// The protocol of the message.
    pub protocol: Protocol,
    /// The device that it says.
    pub sid: DeviceId,
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
        self.all_sent_with(&[SentWith { owner, requester, protocol, sid }]).await
    }

    /// The same of several sessions. What is new is written at once for all.
    pub async fn all_sent_with(&self, sent: &[SentWith<'_>]) -> Result<(), DirectoryError> {
        let now = self.clock.now();
        let mut fresh = BTreeSet::new();
        for SentWith { owner, requester, protocol, sid } in sent {
            let Some(session) = requester.session().filter(|_| requester.is(owner)) else { continue };
            self.alive(owner, *protocol, *sid);
            let known = (session, *protocol, *sid);
            if !self.known_sessions.contains(&known, now) {
                let (session, protocol, device) = known;
                fresh.insert(LearnedSession { owner: (*owner).clone(), protocol, session, device });
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let fresh: Vec<_> = fresh.into_iter().collect();
        self.store.learn_sessions(&fresh, now).await?;
        for LearnedSession { protocol, session, device, .. } in fresh {
            self.known_sessions.insert((session, protocol, device), now);
        }
        Ok(())
    }
}
