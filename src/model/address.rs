//! JIDs in their roles. A JID is normalised on the way in (RFC 7622 through the `jid` crate), so equality is equality.

use std::fmt;

use jid::{BareJid, FullJid, Jid};

/// Why a text is not an address in the role asked for.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Not a JID at all.
    #[error("not a valid JID: {0}")]
    Jid(#[from] jid::Error),
    /// An owner is an account, `local@domain`; a domain alone is none.
    #[error("an account needs a local part before the @")]
    NoLocalPart,
}

/// The account, `local@domain`, that a directory or an archive belongs to.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(BareJid);

impl Owner {
    /// Takes a bare JID that has a local part.
    pub fn new(jid: BareJid) -> Result<Self, AddressError> {
        if jid.node().is_none() {
            return Err(AddressError::NoLocalPart);
        }
        Ok(Self(jid))
    }

    /// Parses `local@domain`.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        Self::new(BareJid::new(text)?)
    }

    /// The bare JID.
    pub fn jid(&self) -> &BareJid {
        &self.0
    }

    /// The bare JID as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({})", self.as_str())
    }
}

/// Who asks: a session of a user (full JID), an account, or a server. Authenticated by the server that routed the stanza.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requester(Jid);

impl Requester {
    /// Takes the `from` of a stanza that a server has stamped.
    pub fn new(jid: Jid) -> Self {
        Self(jid)
    }

    /// Parses any JID.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        Ok(Self(Jid::new(text)?))
    }

    /// The JID as it was stamped.
    pub fn jid(&self) -> &Jid {
        &self.0
    }

    /// The JID as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The session behind this requester, where it is one: a full JID.
    pub fn session(&self) -> Option<SessionJid> {
        self.0.try_as_full().ok().map(|full| SessionJid(full.clone()))
    }

    /// Whether this is a session of, or the account itself of, `owner`.
    pub fn is(&self, owner: &Owner) -> bool {
        self.0.to_bare() == *owner.jid()
    }
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Requester({})", self.as_str())
    }
}

/// One session of an account: a full JID. A device is recognised by the session that it published or sent from.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionJid(FullJid);

impl SessionJid {
    /// Takes a full JID.
    pub fn new(jid: FullJid) -> Self {
        Self(jid)
    }

    /// Parses `local@domain/resource`.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        Ok(Self(FullJid::new(text)?))
    }

    /// The full JID.
    pub fn jid(&self) -> &FullJid {
        &self.0
    }

    /// The resource part.
    pub fn resource(&self) -> &str {
        self.0.resource().as_str()
    }
}

impl fmt::Debug for SessionJid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionJid({})", self.0.as_str())
    }
}
