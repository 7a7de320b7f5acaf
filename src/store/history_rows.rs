//! From the rows of a history to the words of the design, as in [`super::columns`].

use super::{RecordedIdentity, StoreError, columns};
use crate::model::{HistoryChange, HistoryEntry, HistoryHead, Owner, Protocol, Timestamp};

/// The end of an account's history, from a left join: without one where there is none yet.
#[derive(sqlx::FromRow)]
pub(super) struct ChainEnd {
    jid: String,
    position: Option<i64>,
    hash: Option<Vec<u8>>,
    at: Option<i64>,
}

impl ChainEnd {
    /// Whose history, its head, and when that was appended.
    pub(super) fn into_parts(self) -> Result<(Owner, Option<(HistoryHead, Timestamp)>), StoreError> {
        let owner = Owner::parse(&self.jid).map_err(|_| StoreError::Corrupt("account"))?;
        let (Some(position), Some(hash), Some(at)) = (self.position, self.hash, self.at) else {
            return Ok((owner, None));
        };
        Ok((owner, Some((head(position, hash)?, Timestamp::from_micros(at)))))
    }
}

/// The head of a history whose newest entry has this place and hash.
pub(super) fn head(position: i64, hash: Vec<u8>) -> Result<HistoryHead, StoreError> {
    let index = u64::try_from(position).map_err(|_| StoreError::Corrupt("place in a history"))?;
    let hash = hash.try_into().map_err(|_| StoreError::Corrupt("hash of a history"))?;
    Ok(HistoryHead { index, hash })
}

/// The place of an entry in its history.
pub(super) fn position(index: u64) -> Result<i64, StoreError> {
    i64::try_from(index).map_err(|_| StoreError::Range("place in a history"))
}

/// Whose identity key a change is about, as the database keeps it.
pub(super) fn changed_device(change: &HistoryChange) -> Option<i32> {
    match change {
        HistoryChange::Identity { device, .. } => Some(device.to_sql()),
        HistoryChange::List { .. } | HistoryChange::NoList => None,
    }
}

/// The identity key of a device, as its bundle has it.
#[derive(sqlx::FromRow)]
pub(super) struct KnownIdentity {
    device: i32,
    identity_key: Vec<u8>,
}

impl KnownIdentity {
    /// What a history says of it.
    pub(super) fn into_change(self) -> Result<HistoryChange, StoreError> {
        Ok(HistoryChange::Identity { device: columns::device(self.device)?, key: self.identity_key })
    }
}

/// A row of `history`.
#[derive(sqlx::FromRow)]
pub(super) struct HistoryRow {
    position: i64,
    at: i64,
    protocol: i16,
    kind: i16,
    content: Vec<u8>,
}

impl HistoryRow {
    /// The entry.
    pub(super) fn into_entry(self) -> Result<HistoryEntry, StoreError> {
        let kind = u8::try_from(self.kind).map_err(|_| StoreError::Corrupt("kind of a change"))?;
        Ok(HistoryEntry {
            index: u64::try_from(self.position).map_err(|_| StoreError::Corrupt("place in a history"))?,
            at: Timestamp::from_micros(self.at),
            protocol: Protocol::from_code(self.protocol).ok_or(StoreError::Corrupt("protocol"))?,
            change: HistoryChange::from_content(kind, &self.content).ok_or(StoreError::Corrupt("change"))?,
        })
    }

    /// The identity key that the entry recorded.
    pub(super) fn into_identity(self) -> Result<RecordedIdentity, StoreError> {
        let HistoryEntry { at, protocol, change, .. } = self.into_entry()?;
        match change {
            HistoryChange::Identity { device, key } => Ok(RecordedIdentity { protocol, device, key, since: at }),
            HistoryChange::List { .. } | HistoryChange::NoList => Err(StoreError::Corrupt("kind of a change")),
        }
    }
}
