//! What can go wrong in a database, sorted by what a caller can do about it.

/// A failed store operation. Nothing of it was stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is away, full, or too busy: the same call may work later.
    #[error("the database cannot do this now: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// The schema is not the one this program knows.
    #[error("the database schema is at version {found}, this program needs {needed}: {advice}")]
    Schema {
        /// The newest migration applied to the database; 0 if none.
        found: i64,
        /// The newest migration that this program has.
        needed: i64,
        /// What the operator should do.
        advice: &'static str,
    },
    /// A migration failed.
    #[error("migration failed: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A row holds what no version of this program writes.
    #[error("the database holds a value that makes no sense: {0}")]
    Corrupt(&'static str),
    /// Any other database error: a fault in this program or in its statements.
    #[error("database error: {0}")]
    Database(#[source] sqlx::Error),
}
