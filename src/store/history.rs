//! What is asked of a history: the chained log of an owner's device lists and identity keys (docs/protocol.md, "History").
//! It is written by the operations of [`super::DirectoryStore`] that change what it tells of, in their transactions.

use async_trait::async_trait;

use super::StoreError;
use crate::model::{DeviceId, HistoryEntry, HistoryHead, Owner, Protocol, Timestamp};

/// Most changes that an account may make to its lists and identity keys within a day: the history keeps each of them for
/// ever. [`StoreError::TooManyChanges`] beyond.
pub const CHANGES_A_DAY: u64 = 1_000;

/// The answer to whoever knows a history up to some head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryRead {
    /// What followed.
    Entries {
        /// How far the history has come now.
        head: HistoryHead,
        /// The entries after the known head, in order; if there are more than were asked for, the first of them.
        entries: Vec<HistoryEntry>,
    },
    /// The known head is not on this history.
    NotOnChain,
}

/// An identity key that a device has or had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedIdentity {
    /// In which protocol.
    pub protocol: Protocol,
    /// Which device.
    pub device: DeviceId,
    /// The key, in wire form.
    pub key: Vec<u8>,
    /// When it was first published, or first recorded.
    pub since: Timestamp,
}

/// Reading histories.
#[async_trait]
pub trait HistoryStore: Send + Sync {
    /// At most `limit` entries after `known`. The history of an account that has devices from before there were histories
    /// begins now, with what is there. One that is not known has no entries.
    async fn history(
        &self,
        owner: &Owner,
        known: &HistoryHead,
        limit: u32,
        now: Timestamp,
    ) -> Result<HistoryRead, StoreError>;

    /// The identity keys that a device has had, the newest and present one first; at most `limit`.
    async fn identity_keys(
        &self,
        owner: &Owner,
        protocol: Protocol,
        device: DeviceId,
        limit: u32,
    ) -> Result<Vec<RecordedIdentity>, StoreError>;
}
