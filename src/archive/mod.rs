//! The rules of the archive (DESIGN, "Archive: what must always hold"): what is kept, under which id, for how long, and
//! what each device gets to see of it.
//!
//! A copy goes in through one path, [`ingest`]; it comes out through one, [`query`]. Messages are read through
//! [`crate::stanza`]'s tree and kept as the bytes that they came in; nothing here writes XML, and nothing here but
//! [`ingest`] may append to a store.

pub mod archive_id;
pub mod classify;
pub mod ingest;
pub mod metrics;
mod page;
mod preferences;
pub mod query;
pub mod read;
mod reader;
pub mod retention;
pub mod retire;
pub mod retraction;
pub mod view;

pub use archive_id::ArchiveIds;
pub use classify::{SkipReason, Verdict, classify, classify_with};
pub use ingest::{Committed, Ingest, IngestHandle, IngestSettings, Rejected};
pub use metrics::ArchiveMetrics;
pub use query::{Answer, Archive, Item, PageLimits, Policy, QueryError};
pub use retention::{Keep, Retention};
