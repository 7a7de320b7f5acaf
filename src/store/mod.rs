//! Durable state: one trait for each group of operations, each implemented on PostgreSQL and on SQLite, held to one contract
//! test suite (`tests/contract.rs`).
//!
//! All SQL of the server lives below this module. Every operation that touches more than one row is one transaction;
//! what an operation returns is durable when it returns. Nothing here knows XML.

mod allowance;
mod append_plan;
mod archive;
mod archive_id_secret;
mod census;
mod claims;
mod columns;
mod compact;
mod cursor;
mod dead_letter;
mod device;
mod directory;
mod epoch;
mod erase;
mod error;
mod history;
mod history_rows;
mod life_rows;
mod lifecycle;
mod list_merge;
mod metrics;
mod notice;
mod paging;
pub mod postgres;
mod preferences;
mod retire;
mod schema;
pub mod sqlite;
mod transaction;

use std::sync::Arc;

pub use archive::{Appended, ArchiveStore, ArchiveTotals, Edge, Filter, Page, PageQuery, Purged};
pub use census::{BACKLOG_COUNTED, Backlog, CensusPage, CensusPlace, CensusStore, Waiting};
pub use claims::{Claim, ClaimKind, ClaimLimit, ClaimOutcome, ClaimRules, ClaimStore};
pub use cursor::{Cursor, CursorStore};
pub use dead_letter::{DeadLetter, DeadLetterStore};
pub use device::{DeviceRemoved, DeviceStore, PrekeyState};
pub use directory::{BundlePublished, DirectoryStore, DirectoryTotals, LearnedSession, ListPublished, NodeKind, Stock};
pub use epoch::{Deployment, EpochStore, Voided};
pub use erase::{EraseStore, Erased};
pub use error::StoreError;
pub use history::{CHANGES_A_DAY, HistoryRead, HistoryStore, RecordedIdentity};
pub use lifecycle::{
    DevicePlace, DeviceRecord, DeviceState, DeviceStates, Due, DuePage, DuePlace, LifecycleStore, OwnerRecord,
    QuarantineCause, Revived, SignOfLife, Step,
};
pub use metrics::{Connections, StoreMetrics};
pub use notice::{Notice, NoticeKind, NoticeStore};
pub use preferences::PreferencesStore;
pub use retire::{LiveCopy, RetireStore, Skimmed};

/// A database with everything in it.
pub trait Store:
    DirectoryStore
    + ClaimStore
    + ArchiveStore
    + CensusStore
    + DeviceStore
    + EpochStore
    + HistoryStore
    + NoticeStore
    + PreferencesStore
    + CursorStore
    + DeadLetterStore
    + EraseStore
    + LifecycleStore
    + RetireStore
{
    /// What the store measures of itself, to be registered once.
    fn metrics(&self) -> &StoreMetrics;

    /// The number of the newest migration, of the database and of this program: they are the same.
    fn schema_version(&self) -> i64;

    /// The connections to the database at this moment.
    fn connections(&self) -> Connections;
}

/// The handle that services share.
pub type SharedStore = Arc<dyn Store>;

/// Sessions of one owner and protocol that are remembered, for what they saw of the device list and for which device they
/// are. Resources are chosen by clients, often at random: the ones longest unchanged are forgotten.
const SESSIONS_REMEMBERED: i64 = 100;

/// Bundles that an owner may have in one protocol beyond those of listed and quarantined devices: a client publishes its
/// bundle before it is listed, and few retract it when they are not listed any more.
const UNLISTED_BUNDLES: usize = 16;

/// Devices of one owner and protocol whose identity and issued prekeys are remembered, their bundle retracted or not.
const DEVICES_REMEMBERED: i64 = 1_000;

/// Opens the database behind a URL (`postgres://…` or `sqlite:PATH`) without migrating it. Refuses one whose schema is
/// older or newer than this program knows.
pub async fn open(url: &str, pool_size: u32) -> Result<SharedStore, StoreError> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        Ok(Arc::new(postgres::PostgresStore::open(url, pool_size).await?))
    } else {
        Ok(Arc::new(sqlite::SqliteStore::open(url).await?))
    }
}

/// Brings the database behind a URL to the schema that this program knows. Safe to run twice, and by two at once.
pub async fn migrate(url: &str) -> Result<(), StoreError> {
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        postgres::migrate(url).await
    } else {
        sqlite::migrate(url).await
    }
}
