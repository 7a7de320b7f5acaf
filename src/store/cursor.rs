//! How far devices have read their owner's archive, as they said themselves (DESIGN, "cursor"). A cursor only ever moves
//! forward.

use async_trait::async_trait;

use super::StoreError;
use crate::model::{ArchiveId, Owner, ProtocolDevice, Timestamp};

/// Cursors of one account that are kept; those that moved longest ago go. Which device a session is, clients choose.
pub(super) const CURSORS_REMEMBERED: i64 = 200;

/// Where a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Which device.
    pub device: ProtocolDevice,
    /// Whether it stands in the list in force.
    pub listed: bool,
    /// Up to which place it has read, and since when it is there; `None` for a listed device that never said.
    pub read: Option<(i64, Timestamp)>,
    /// How many places of the archive come after that. Some of them may hold nothing (any more).
    pub behind: u64,
}

/// Durable cursors.
#[async_trait]
pub trait CursorStore: Send + Sync {
    /// These devices of an owner have everything up to the copy with this id. How many places come after it; `None`, and
    /// nothing moves, if the archive has no such copy.
    async fn move_cursors(
        &self,
        owner: &Owner,
        devices: &[ProtocolDevice],
        read: &ArchiveId,
        now: Timestamp,
    ) -> Result<Option<u64>, StoreError>;

    /// Every listed device of an owner, and every other one with a cursor; by protocol and id.
    async fn cursors(&self, owner: &Owner) -> Result<Vec<Cursor>, StoreError>;
}

/// A row behind a [`Cursor`].
#[derive(sqlx::FromRow)]
pub(super) struct CursorRow {
    protocol: i16,
    device: i32,
    listed: bool,
    sequence: Option<i64>,
    moved_at: Option<i64>,
    next_sequence: i64,
}

impl CursorRow {
    /// The listed devices and the cursors of the account with the JID `$1`.
    pub(super) const SELECT: &str = "SELECT d.protocol, d.device, d.listed, c.sequence, c.moved_at, a.next_sequence
         FROM account a
         JOIN (SELECT account, protocol, device, true AS listed FROM listed_device
               UNION ALL
               SELECT account, protocol, device, false FROM read_cursor r WHERE NOT EXISTS (
                   SELECT 1 FROM listed_device l
                   WHERE l.account = r.account AND l.protocol = r.protocol AND l.device = r.device)) d
             ON d.account = a.id
         LEFT JOIN read_cursor c ON c.account = a.id AND c.protocol = d.protocol AND c.device = d.device
         WHERE a.jid = $1 ORDER BY d.protocol, d.device";

    pub(super) fn into_cursor(self) -> Result<Cursor, StoreError> {
        let protocol = crate::model::Protocol::from_code(self.protocol).ok_or(StoreError::Corrupt("protocol"))?;
        let device = super::columns::device(self.device)?;
        let read = self.sequence.zip(self.moved_at).map(|(sequence, at)| (sequence, Timestamp::from_micros(at)));
        Ok(Cursor {
            device: ProtocolDevice { protocol, device },
            listed: self.listed,
            read,
            behind: behind(self.next_sequence, self.sequence.unwrap_or(0)),
        })
    }
}

/// How many places come after one.
pub(super) fn behind(next_sequence: i64, sequence: i64) -> u64 {
    u64::try_from(next_sequence.saturating_sub(1).saturating_sub(sequence)).unwrap_or(0)
}
