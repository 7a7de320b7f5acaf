//! What servers have granted: the delegation of MAM, and messages in their users' names. Each says so anew on every
//! connection, and may have been configured otherwise meanwhile: nothing outlives the connection on which it was said.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jid::DomainPart;
use tokio::sync::watch;

use crate::link::LinkState;
use crate::stanza::privilege::Version;

/// The grants that stand now. Clones share them.
#[derive(Debug, Clone)]
pub struct Grants(Arc<Mutex<Standing>>);

#[derive(Debug)]
struct Standing {
    /// Changes whenever a connection begins or ends.
    link: watch::Receiver<LinkState>,
    by_server: BTreeMap<DomainPart, Grant>,
}

/// What one server has granted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Grant {
    archive: bool,
    messages: Option<Version>,
    /// The operator has been told that something is missing.
    complained: bool,
}

impl Grants {
    /// None yet, and none after the link has changed its state.
    pub fn new(link: watch::Receiver<LinkState>) -> Self {
        Self(Arc::new(Mutex::new(Standing { link, by_server: BTreeMap::new() })))
    }

    /// A server delegates MAM to us.
    pub(super) fn archive(&self, server: &DomainPart) {
        self.standing().by_server.entry(server.clone()).or_default().archive = true;
    }

    /// A server lets us send messages in its users' names, or does not.
    pub(super) fn messages(&self, server: &DomainPart, version: Option<Version>) {
        self.standing().by_server.entry(server.clone()).or_default().messages = version;
    }

    /// The version in which messages in the names of a server's users are sent; `None` if that is not granted.
    pub(super) fn version(&self, server: &DomainPart) -> Option<Version> {
        self.standing().by_server.get(server).and_then(|grant| grant.messages)
    }

    /// Whether the operator is to be told that something of a server is missing: once on each connection.
    pub(super) fn complain(&self, server: &DomainPart) -> bool {
        let mut standing = self.standing();
        let grant = standing.by_server.entry(server.clone()).or_default();
        !std::mem::replace(&mut grant.complained, true)
    }

    /// How many servers delegate MAM to us.
    pub fn archives_granted(&self) -> u32 {
        self.count(|grant| grant.archive)
    }

    /// How many servers let us send messages in their users' names.
    pub fn messages_granted(&self) -> u32 {
        self.count(|grant| grant.messages.is_some())
    }

    fn count(&self, has: impl Fn(&Grant) -> bool) -> u32 {
        u32::try_from(self.standing().by_server.values().filter(|grant| has(grant)).count()).unwrap_or(u32::MAX)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        let mut standing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An error: the link has ended for good.
        if standing.link.has_changed().unwrap_or(true) {
            standing.link.mark_unchanged();
            standing.by_server.clear();
        }
        standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outlives_the_connection_on_which_it_was_granted() {
        let (link, state) = watch::channel(LinkState::Connecting);
        let grants = Grants::new(state);
        let [one, other] = ["example.org", "example.net"].map(|name| DomainPart::new(name).unwrap().into_owned());
        link.send_replace(LinkState::Up);
        grants.archive(&one);
        grants.messages(&one, Some(Version::Two));
        grants.messages(&other, Some(Version::One));
        assert_eq!((grants.version(&one), grants.version(&other)), (Some(Version::Two), Some(Version::One)));
        assert_eq!((grants.archives_granted(), grants.messages_granted()), (1, 2));
        assert!(grants.complain(&one) && !grants.complain(&one), "once");
        grants.messages(&other, None);
        assert_eq!(grants.version(&other), None);

        // The same state again is another connection all the same.
        link.send_replace(LinkState::Up);
        assert_eq!((grants.version(&one), grants.archives_granted()), (None, 0));
        assert!(grants.complain(&one), "once for each connection");
        grants.messages(&one, Some(Version::One));
        assert_eq!(grants.version(&one), Some(Version::One));
        drop(link);
        assert_eq!(grants.messages_granted(), 0);
    }
}
