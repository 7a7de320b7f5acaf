//! What the archive asks of a database (DESIGN: "Archive: what must always hold").

use async_trait::async_trait;
use jid::Jid;

use super::StoreError;
use crate::model::{ArchiveId, ArchivedMessage, Owner, StoredCopy, Timestamp};

/// What became of one copy of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Stored, at this place in its archive.
    Stored(i64),
    /// The archive has a copy with this id already; nothing was stored again.
    Duplicate,
    /// The owner's preferences say that it is not archived ([`super::PreferencesStore`]).
    Unwanted,
}

/// Which copies a query is about. All conditions hold together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// The other side: a bare JID matches all its resources, a full JID only itself.
    pub with: Option<Jid>,
    /// At or after.
    pub start: Option<Timestamp>,
    /// At or before.
    pub end: Option<Timestamp>,
    /// After the copy with this id.
    pub after_id: Option<ArchiveId>,
    /// Before the copy with this id.
    pub before_id: Option<ArchiveId>,
    /// Only these, if not empty.
    pub ids: Vec<ArchiveId>,
}

/// Where a page begins (XEP-0059).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edge {
    /// The oldest ones that match.
    First,
    /// The oldest ones after this id.
    After(ArchiveId),
    /// The newest ones that match.
    Last,
    /// The newest ones before this id.
    Before(ArchiveId),
}

/// A page of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageQuery {
    /// Whose archive.
    pub owner: Owner,
    /// Which copies.
    pub filter: Filter,
    /// Where the page begins.
    pub edge: Edge,
    /// Most copies in the page; at least 1.
    pub max: u32,
    /// Most bytes of bodies in the page; the first copy is given even if it alone is larger.
    pub max_bytes: usize,
}

/// A page, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// The copies, and whether there are no more of them in the direction of the paging.
    Copies {
        /// Oldest first, whichever the direction.
        copies: Vec<StoredCopy>,
        /// No more that match in this direction.
        complete: bool,
        /// The newest moment at which something expired that has been trimmed from the oldest end and that this query may
        /// have matched. `None` where the query begins at a copy that is still there, or after all that was trimmed.
        expired_before: Option<Timestamp>,
    },
    /// An id that the query names (edge, after-id, before-id or ids) is not in the archive: item-not-found.
    UnknownId(ArchiveId),
}

/// What one purge step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// Copies whose body is gone.
    pub expired: u64,
    /// Placeholders trimmed from the oldest end of archives.
    pub trimmed: u64,
    /// Bodies deleted.
    pub bodies: u64,
}

/// Figures over the whole archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArchiveTotals {
    /// Copies in all archives, placeholders left out.
    pub copies: u64,
    /// Placeholders.
    pub placeholders: u64,
    /// Bodies.
    pub bodies: u64,
    /// Bytes of bodies.
    pub body_bytes: u64,
}

/// Durable state of the archive.
#[async_trait]
pub trait ArchiveStore: Send + Sync {
    /// Stores a batch in one transaction. Within each archive the sequence follows the order of the batch, and is assigned
    /// in commit order (invariant 2): who reads up to a sequence never finds a smaller one appear later. The time of a copy
    /// is raised to that of the one before it in the same archive, so that time never decreases with the sequence. A copy
    /// whose (owner, archive id) is there already, or stands twice in the batch, is a duplicate. One that its owner's
    /// preferences exclude is not stored. What a new message retracts becomes its tombstone, in every archive that has it.
    /// One result per copy, in order. Owners are registered.
    async fn append(&self, batch: &[ArchivedMessage]) -> Result<Vec<Vec<Appended>>, StoreError>;

    /// Reads a page. What has expired by `now` is a placeholder, until a purge trims it from the oldest end; then its id is
    /// unknown.
    async fn page(&self, query: &PageQuery, now: Timestamp) -> Result<Page, StoreError>;

    /// How many copies match, placeholders included, for `<max>0</max>`. A filter that names an unknown id matches nothing.
    async fn count(&self, owner: &Owner, filter: &Filter, now: Timestamp) -> Result<u64, StoreError>;

    /// The oldest and the newest copy, which may be placeholders (XEP-0313 §metadata); `None` for an empty archive.
    async fn ends(&self, owner: &Owner, now: Timestamp) -> Result<Option<(StoredCopy, StoredCopy)>, StoreError>;

    /// Purges at most `limit` each of expired copies, placeholders at an oldest end, and bodies, in one short transaction. All
    /// zero: nothing was left to do, except what another instance is at.
    async fn purge(&self, now: Timestamp, limit: u32) -> Result<Purged, StoreError>;

    /// Expired copies still to be purged, and the oldest moment at which one of them expired.
    async fn purge_backlog(&self, now: Timestamp) -> Result<(u64, Option<Timestamp>), StoreError>;

    /// The secret that this deployment makes archive ids with: 32 random bytes, made on first use and the same ever after,
    /// on every instance.
    async fn archive_id_secret(&self) -> Result<[u8; 32], StoreError>;

    /// Whether the database answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Figures over everything; may scan, so it is for operators and tests.
    async fn archive_totals(&self) -> Result<ArchiveTotals, StoreError>;
}
