//! Messages as an archive sees them.

use std::fmt;

use bytes::Bytes;
use jid::{BareJid, Jid};

use super::{KeyExchange, Owner, Timestamp};

/// What a copy is; retention and store policy go by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Carries an encrypted payload.
    Content,
    /// OMEMO without payload: key transport, heartbeat, session answer.
    KeyTransport,
    /// Content in clear.
    Plain,
    /// Receipts, markers and the like.
    Signal,
}

impl Class {
    /// All, in a fixed order.
    pub const ALL: [Self; 4] = [Self::Content, Self::KeyTransport, Self::Plain, Self::Signal];

    /// The name used in configuration and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::KeyTransport => "key-transport",
            Self::Plain => "plain",
            Self::Signal => "signal",
        }
    }

    /// The number that stands for the class in the database.
    pub fn code(self) -> i16 {
        match self {
            Self::Content => 1,
            Self::KeyTransport => 2,
            Self::Plain => 3,
            Self::Signal => 4,
        }
    }

    /// The class behind a number from the database.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.code() == code)
    }
}

/// Which way a message went, as its owner sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The owner sent it.
    Sent,
    /// The owner received it.
    Received,
}

/// An archive id outside 1…64 visible ASCII characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an archive id is 1 to 64 visible ASCII characters")]
pub struct ArchiveIdError;

/// The XEP-0359 stanza-id of a copy, unique within its archive and never reused: 1…64 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArchiveId(String);

impl ArchiveId {
    /// The longest id taken, in bytes; servers use 8 to 40.
    pub const MAX_LENGTH: usize = 64;

    /// Parses an id that a server or a client gave.
    pub fn parse(text: &str) -> Result<Self, ArchiveIdError> {
        let visible = text.bytes().all(|b| b.is_ascii_graphic());
        if text.is_empty() || text.len() > Self::MAX_LENGTH || !visible {
            return Err(ArchiveIdError);
        }
        Ok(Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ArchiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One message as one owner's archive sees it, before it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Whose archive.
    pub owner: Owner,
    /// Its stanza-id.
    pub archive_id: ArchiveId,
    /// Which way it went.
    pub direction: Direction,
    /// The other side, with its resource where the stanza had one.
    pub peer: Jid,
    /// The owner's own resource, where the stanza had one.
    pub own_resource: Option<String>,
    /// When it is hidden and later purged; never, if `None`.
    pub expires_at: Option<Timestamp>,
}

/// What a message is called by its author: a keyed hash of author, recipient and the stanza's id
/// ([`crate::archive::ArchiveIds::origin`]). By it a retraction finds what it retracts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin(i64);

impl Origin {
    /// Takes the first 64 bits of a hash.
    pub fn new(hash: i64) -> Self {
        Self(hash)
    }

    /// The hash, as the database keeps it.
    pub fn to_sql(self) -> i64 {
        self.0
    }
}

/// That a message takes back an earlier one by the same author to the same recipient (XEP-0424).
#[derive(Clone, PartialEq, Eq)]
pub struct Retraction {
    /// What it takes back.
    pub origin: Origin,
    /// What stands in its place: the body bytes of a tombstone.
    pub tombstone: Bytes,
}

/// A message to be archived: one body and the copies that share it (two when both sides are ours).
#[derive(Clone, PartialEq, Eq)]
pub struct ArchivedMessage {
    /// What it is.
    pub class: Class,
    /// When it was sent or received.
    pub at: Timestamp,
    /// The stanza's bytes without its `from` and `to`: see [`crate::stanza::message`].
    pub body: Bytes,
    /// What its author calls it; `None` for what cannot be retracted.
    pub origin: Option<Origin>,
    /// What it takes back.
    pub retracts: Option<Retraction>,
    /// One or two copies; none if only its key exchanges are to be learned.
    pub copies: Vec<Copy>,
    /// The prekeys that its headers use up, recorded in the same transaction.
    pub key_exchanges: Vec<KeyExchange>,
}

impl fmt::Debug for ArchivedMessage {
    /// Leaves the body out: message content is never logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchivedMessage")
            .field("class", &self.class)
            .field("copies", &self.copies.len())
            .finish_non_exhaustive()
    }
}

/// One message as read back from one owner's archive.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredCopy {
    /// Its stanza-id.
    pub archive_id: ArchiveId,
    /// Its place in the archive: later copies have greater numbers; gaps mean nothing.
    pub sequence: i64,
    /// When it was sent or received; never decreases with `sequence`.
    pub at: Timestamp,
    /// Which way it went.
    pub direction: Direction,
    /// The other side's account or server.
    pub peer: BareJid,
    /// The other side's resource.
    pub peer_resource: Option<String>,
    /// The owner's own resource.
    pub own_resource: Option<String>,
    /// What it is.
    pub class: Class,
    /// The bytes as in [`ArchivedMessage::body`]; `None` for a placeholder: the message has expired or was taken out.
    pub body: Option<Bytes>,
}

impl fmt::Debug for StoredCopy {
    /// Leaves the body out: message content is never logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredCopy")
            .field("archive_id", &self.archive_id)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}
