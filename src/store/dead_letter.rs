//! Dead letters: messages that a database refuses for their own sake, set aside with the reason, so that one that cannot be
//! stored neither holds up the others nor is lost.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jid::Jid;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::model::{ArchiveId, ArchivedMessage, Class, Copy, Direction, Origin, Owner, Retraction, Timestamp};

/// Most dead letters that are kept; the oldest go first. That many are a fault of the program, not of the messages.
pub(super) const MOST: i64 = 10_000;

/// Longest reason that is kept, in characters.
const LONGEST_REASON: usize = 500;

/// A message that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its name: the archive id of its first copy.
    pub id: ArchiveId,
    /// When it was set aside.
    pub at: Timestamp,
    /// Why, in the words of the database.
    pub reason: String,
    /// The message. Not with the key exchanges in it, which are learned without it.
    pub message: ArchivedMessage,
}

/// Durable dead letters.
#[async_trait]
pub trait DeadLetterStore: Send + Sync {
    /// Sets a message aside; one with the same name is replaced. A message without copies is none to keep.
    async fn set_aside(&self, message: &ArchivedMessage, reason: &str, now: Timestamp) -> Result<(), StoreError>;

    /// The letters, oldest first: at most `limit` of those after the one given (its time and name).
    async fn dead_letters(
        &self,
        after: Option<(Timestamp, ArchiveId)>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError>;

    /// One letter.
    async fn dead_letter(&self, id: &ArchiveId) -> Result<Option<DeadLetter>, StoreError>;

    /// Deletes a letter; `false` if there is none of this name.
    async fn drop_dead_letter(&self, id: &ArchiveId) -> Result<bool, StoreError>;
}

/// The letter as a table keeps it.
#[derive(sqlx::FromRow)]
pub(super) struct LetterRow {
    id: String,
    at: i64,
    reason: String,
    message: Vec<u8>,
}

impl LetterRow {
    pub(super) fn into_letter(self) -> Result<DeadLetter, StoreError> {
        let corrupt = || StoreError::Corrupt("dead letter");
        let written: Written = serde_json::from_slice(&self.message).map_err(|_| corrupt())?;
        Ok(DeadLetter {
            id: ArchiveId::parse(&self.id).map_err(|_| corrupt())?,
            at: Timestamp::from_micros(self.at),
            reason: self.reason,
            message: written.into_message().ok_or_else(corrupt)?,
        })
    }
}

/// What is to be written down.
pub(super) struct NewLetter {
    pub(super) id: String,
    pub(super) at: i64,
    pub(super) reason: String,
    pub(super) message: Vec<u8>,
    pub(super) owners: Vec<String>,
}

impl NewLetter {
    /// The letter of a message; `None` for one without copies.
    pub(super) fn of(message: &ArchivedMessage, reason: &str, now: Timestamp) -> Result<Option<Self>, StoreError> {
        let Some(first) = message.copies.first() else { return Ok(None) };
        let written = serde_json::to_vec(&Written::from(message)).map_err(|_| StoreError::Corrupt("dead letter"))?;
        let mut owners: Vec<String> = message.copies.iter().map(|copy| copy.owner.to_string()).collect();
        owners.sort_unstable();
        owners.dedup();
        Ok(Some(Self {
            id: first.archive_id.to_string(),
            at: now.micros(),
            // What made the database refuse the message may stand in its words.
            reason: reason.chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect(),
            message: written,
            owners,
        }))
    }
}

/// A message as JSON: any text that a column might refuse is escaped there.
#[derive(Serialize, Deserialize)]
struct Written {
    class: i16,
    at: i64,
    body: String,
    origin: Option<i64>,
    retracts: Option<(i64, String)>,
    copies: Vec<WrittenCopy>,
}

#[derive(Serialize, Deserialize)]
struct WrittenCopy {
    owner: String,
    archive_id: String,
    sent: bool,
    peer: String,
    own_resource: Option<String>,
    expires_at: Option<i64>,
}

impl From<&ArchivedMessage> for Written {
    fn from(message: &ArchivedMessage) -> Self {
        let copy = |copy: &Copy| WrittenCopy {
            owner: copy.owner.to_string(),
            archive_id: copy.archive_id.to_string(),
            sent: copy.direction == Direction::Sent,
            peer: copy.peer.to_string(),
            own_resource: copy.own_resource.clone(),
            expires_at: copy.expires_at.map(Timestamp::micros),
        };
        let retraction = |retraction: &Retraction| (retraction.origin.to_sql(), STANDARD.encode(&retraction.tombstone));
        Self {
            class: message.class.code(),
            at: message.at.micros(),
            body: STANDARD.encode(&message.body),
            origin: message.origin.map(Origin::to_sql),
            retracts: message.retracts.as_ref().map(retraction),
            copies: message.copies.iter().map(copy).collect(),
        }
    }
}

impl Written {
    fn into_message(self) -> Option<ArchivedMessage> {
        let retracts = match self.retracts {
            None => None,
            Some((origin, tombstone)) => Some(Retraction {
                origin: Origin::new(origin),
                tombstone: Bytes::from(STANDARD.decode(tombstone).ok()?),
            }),
        };
        let copies: Option<Vec<Copy>> = self.copies.into_iter().map(WrittenCopy::into_copy).collect();
        Some(ArchivedMessage {
            class: Class::from_code(self.class)?,
            at: Timestamp::from_micros(self.at),
            body: Bytes::from(STANDARD.decode(self.body).ok()?),
            origin: self.origin.map(Origin::new),
            retracts,
            copies: copies?,
            key_exchanges: Vec::new(),
        })
    }
}

impl WrittenCopy {
    fn into_copy(self) -> Option<Copy> {
        Some(Copy {
            owner: Owner::parse(&self.owner).ok()?,
            archive_id: ArchiveId::parse(&self.archive_id).ok()?,
            direction: if self.sent { Direction::Sent } else { Direction::Received },
            peer: Jid::new(&self.peer).ok()?,
            own_resource: self.own_resource,
            expires_at: self.expires_at.map(Timestamp::from_micros),
        })
    }
}
