//! Taking copies out of an archive before they expire: because there are enough newer ones, or because everybody has read
//! them. What goes leaves a placeholder, as everything does that goes from the middle (archive invariant 3).

use async_trait::async_trait;

use super::StoreError;
use crate::model::{Class, Owner, StoredCopy, Timestamp};

/// A copy that is not a placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveCopy {
    /// Its place in the archive.
    pub sequence: i64,
    /// What it is.
    pub class: Class,
}

/// Part of an archive, looked at without its messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Skimmed {
    /// The copies, newest first.
    pub live: Vec<LiveCopy>,
    /// Where the part before this one ends, placeholders included; `None` where the archive begins.
    pub next: Option<i64>,
}

/// Taking copies out.
#[async_trait]
pub trait RetireStore: Send + Sync {
    /// Looks at the newest `limit` places (at least 1) of an archive before a sequence number.
    async fn skim(&self, owner: &Owner, before: i64, limit: u32, now: Timestamp) -> Result<Skimmed, StoreError>;

    /// The copies in these places, in their order, as far as they are there; with at most about `max_bytes` of messages, but
    /// at least one.
    async fn copies_at(
        &self,
        owner: &Owner,
        sequences: &[i64],
        max_bytes: usize,
        now: Timestamp,
    ) -> Result<Vec<StoredCopy>, StoreError>;

    /// Makes placeholders of the copies in these places, in one transaction, and has the oldest end of the archive looked at
    /// by the next purge. Gives how many there were. A message goes with its last copy.
    async fn retire(&self, owner: &Owner, sequences: &[i64], now: Timestamp) -> Result<u64, StoreError>;
}
