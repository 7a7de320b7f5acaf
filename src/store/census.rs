//! What is read of the whole database for its figures: page by page in the order of a key, so that no statement reads more
//! than its page, whatever the tables hold. Who walks rests between two pages.

use async_trait::async_trait;

use super::StoreError;
use crate::model::{Protocol, Timestamp};

/// Backlogs are counted up to here: beyond, it does not matter how far beyond.
pub const BACKLOG_COUNTED: u32 = 100_000;

/// A place in the order in which devices are walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct CensusPlace {
    pub(super) account: i64,
    pub(super) protocol: i16,
    pub(super) device: i32,
}

impl CensusPlace {
    /// Before all others.
    pub(super) const START: Self = Self { account: i64::MIN, protocol: 0, device: 0 };
}

/// Some of the devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CensusPage<T> {
    /// What was found. There may be nothing, and more further on.
    pub found: Vec<T>,
    /// Where to go on; `None`: there are no more.
    pub next: Option<CensusPlace>,
}

/// One row of a walk: where, and a number; NULL: a row that does not count.
#[derive(sqlx::FromRow)]
pub(super) struct CensusRow {
    #[sqlx(flatten)]
    place: CensusPlace,
    number: Option<i64>,
}

impl CensusRow {
    /// The page of the rows of a statement that was to read at most `limit`.
    pub(super) fn page<T>(
        rows: Vec<Self>,
        limit: u32,
        found: impl Fn(Protocol, u64) -> T,
    ) -> Result<CensusPage<T>, StoreError> {
        let full = u32::try_from(rows.len()).is_ok_and(|read| read >= limit);
        let next = rows.last().map(|row| row.place).filter(|_| full);
        let counted = rows.into_iter().filter_map(|row| Some((row.place.protocol, row.number?)));
        let found = counted.map(|(protocol, number)| {
            let protocol = Protocol::from_code(protocol).ok_or(StoreError::Corrupt("protocol"))?;
            Ok(found(protocol, u64::try_from(number).unwrap_or(0)))
        });
        Ok(CensusPage { found: found.collect::<Result<_, StoreError>>()?, next })
    }
}

/// Work that waits to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// How much of it, up to [`BACKLOG_COUNTED`].
    pub count: u64,
    /// Since when the oldest of what was counted.
    pub oldest: Option<Timestamp>,
}

impl Backlog {
    pub(super) fn of_row((count, oldest): (i64, Option<i64>)) -> Self {
        Self { count: u64::try_from(count).unwrap_or(0), oldest: oldest.map(Timestamp::from_micros) }
    }
}

/// What waits in the database, and how large that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Notices to devices and subscribers.
    pub notices: Backlog,
    /// Messages that could not be stored, for an operator to look at.
    pub dead_letters: Backlog,
    /// Expired copies that are not purged yet.
    pub expired: Backlog,
    /// Bytes that the database takes on the disk, indexes included.
    pub database_bytes: u64,
}

/// Figures over the whole database.
#[async_trait]
pub trait CensusStore: Send + Sync {
    /// How many unissued prekeys each device with a bundle has, after a place; at most `limit` rows are read.
    async fn stock_page(
        &self,
        after: Option<CensusPlace>,
        limit: u32,
    ) -> Result<CensusPage<(Protocol, u64)>, StoreError>;

    /// How many copies of its owner's archive came after what each device has read, of those that have said how far that is.
    async fn unread_page(&self, after: Option<CensusPlace>, limit: u32) -> Result<CensusPage<u64>, StoreError>;

    /// What waits at this moment.
    async fn waiting(&self, now: Timestamp) -> Result<Waiting, StoreError>;
}
