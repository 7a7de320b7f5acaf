//! What devices and subscribers are to be told outside of an answer, kept until it has been sent.
//!
//! A notice is written in the transaction of the change that it tells of. The same one again, while it waits, is one. It is
//! delivered at least once: who takes it has it for a while, and says when it has been sent.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::model::{DeviceId, Owner, Protocol, Timestamp};

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NoticeKind {
    /// The list in force has changed by other means than a publish: its subscribers are told.
    ListChanged,
    /// A device has few unissued prekeys left, or none.
    LowStock,
    /// A device has been quarantined.
    Quarantined,
    /// A device has been removed.
    Removed,
    /// All one-time prekeys of a device are void since the database was restored from a backup.
    Restored,
}

impl NoticeKind {
    /// All, in a fixed order.
    pub const ALL: [Self; 5] = [Self::ListChanged, Self::LowStock, Self::Quarantined, Self::Removed, Self::Restored];

    /// The name used in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::ListChanged => "list-changed",
            Self::LowStock => "low-stock",
            Self::Quarantined => "quarantined",
            Self::Removed => "removed",
            Self::Restored => "restored",
        }
    }
}

/// One thing to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whose directory.
    pub owner: Owner,
    /// In which protocol.
    pub protocol: Protocol,
    /// Which device; `None` if it is about the list.
    pub device: Option<DeviceId>,
    /// What is told.
    pub kind: NoticeKind,
    /// Since when it is so.
    pub at: Timestamp,
}

/// Durable notices.
#[async_trait]
pub trait NoticeStore: Send + Sync {
    /// Adds a notice; one that waits already is renewed. `false` if the account is not known.
    async fn add_notice(&self, notice: &Notice) -> Result<bool, StoreError>;

    /// The oldest notices that nobody else is about to send, at most `limit`. They are the caller's for the time of `lease`.
    async fn take_notices(&self, limit: u32, lease: Duration, now: Timestamp) -> Result<Vec<Notice>, StoreError>;

    /// Notices that have been sent are done with, except those that were renewed since they were taken.
    async fn settle_notices(&self, sent: &[Notice]) -> Result<(), StoreError>;
}
