//! Durable state: two traits, each implemented on PostgreSQL and on SQLite, held to one contract test suite
//! (`tests/contract.rs`).
//!
//! All SQL of the server lives below this module. Every operation that touches more than one row is one transaction;
//! what an operation returns is durable when it returns. Nothing here knows XML.

mod archive;
mod directory;
mod error;
pub mod postgres;
pub mod sqlite;

use std::sync::Arc;

pub use archive::{Appended, ArchiveStore, ArchiveTotals, Edge, Filter, Page, PageQuery, Purged};
pub use directory::{
    BundlePublished, Claim, ClaimKind, ClaimOutcome, DirectoryStore, DirectoryTotals, ListPublished, NodeKind, Stock,
};
pub use error::StoreError;

/// A database with everything in it.
pub trait Store: DirectoryStore + ArchiveStore {}
impl<T: DirectoryStore + ArchiveStore> Store for T {}

/// The handle that services share.
pub type SharedStore = Arc<dyn Store>;
