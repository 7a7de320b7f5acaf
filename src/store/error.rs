//! What can go wrong in a database, sorted by what a caller can do about it.

use std::borrow::Cow;

/// A failed store operation. Nothing of it was stored, unless the connection broke while the database was committing: then
/// it may have been. Every operation may be called again in the same way after an error.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is away, full, or too busy: the same call may work later.
    #[error("the database cannot do this now: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// The schema is not the one this program knows.
    #[error("{}: {advice}", schema(*found, *needed))]
    Schema {
        /// The newest migration applied to the database; 0 if none.
        found: i64,
        /// The newest migration that this program has.
        needed: i64,
        /// What the operator should do.
        advice: &'static str,
    },
    /// One migration of the database is not as it should be.
    #[error("migration {version} {fault}")]
    Migrated {
        /// Its number.
        version: i64,
        /// What is wrong, and what the operator should do.
        fault: &'static str,
    },
    /// A migration failed.
    #[error("migration failed: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The file of the database cannot be made or read.
    #[error("cannot use the database file {path}: {error}")]
    File {
        /// Which file.
        path: String,
        /// Why not.
        #[source]
        error: std::io::Error,
    },
    /// A row holds what no version of this program writes.
    #[error("the database holds a value that makes no sense: {0}")]
    Corrupt(&'static str),
    /// A number left the range that a column has.
    #[error("a number is too large to be stored: {0}")]
    Range(&'static str),
    /// The account has changed its device lists and identity keys as often as it may within a day.
    #[error("this account has changed its devices too often; try again tomorrow")]
    TooManyChanges,
    /// The database may have been replaced by an older one: no prekey is handed out until the operator has said what is so.
    #[error(
        "no prekeys are handed out: the database may have been restored from a backup, and the operator has not confirmed it yet"
    )]
    Unconfirmed,
    /// The account has as many bundles of devices that are not listed as it may, and all are new; or it has had as many
    /// devices as can be remembered.
    #[error("this account has bundles of too many devices that are not in its list; retract some first")]
    TooManyBundles,
    /// The system gave no randomness.
    #[error("the system gives no random bytes")]
    Random,
    /// The metrics of the store could not be made.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Any other database error: a fault in this program or in its statements.
    #[error("database error: {0}")]
    Database(#[source] sqlx::Error),
}

fn schema(found: i64, needed: i64) -> String {
    match found {
        0 => "there is no database yet".to_owned(),
        _ => format!("the database schema is at version {found}, this program needs {needed}"),
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::Io(_)
            | E::Tls(_)
            | E::Protocol(_)
            | E::PoolTimedOut
            | E::PoolClosed
            | E::WorkerCrashed
            // The transaction before on this connection has ended otherwise than sqlx knows; the connection is replaced.
            | E::InvalidSavePointStatement => {
                Self::Unavailable(error)
            }
            E::Database(database) if database.code().is_some_and(is_passing) => Self::Unavailable(error),
            _ => Self::Database(error),
        }
    }
}

impl StoreError {
    /// The part of the program that would have asked the database has ended.
    pub(crate) fn ended() -> Self {
        Self::Unavailable(sqlx::Error::WorkerCrashed)
    }

    /// The same once more, for somebody else who waited for the same thing.
    pub(crate) fn shared(&self) -> Self {
        let error = sqlx::Error::Protocol(self.to_string());
        if matches!(self, Self::Unavailable(_)) { Self::Unavailable(error) } else { Self::Database(error) }
    }

    /// Whether the transaction lost against another one and should be run again at once.
    pub(super) fn is_conflict(&self) -> bool {
        match self {
            Self::Unavailable(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| matches!(code.as_ref(), "40001" | "40P01"))
            }
            // Two at once have written the same row for the first time: the later one finds it when it is run again.
            Self::Database(sqlx::Error::Database(error)) => error.code().is_some_and(|code| code == "23505"),
            _ => false,
        }
    }
}

/// Whether an error code names a state that passes: for PostgreSQL (five characters) by the classes of its manual's
/// appendix A, for SQLite (a number) by the primary result code in the low byte.
fn is_passing(code: Cow<'_, str>) -> bool {
    const POSTGRES: [&str; 6] = ["08", "40", "53", "55", "57", "58"];
    const SQLITE_BUSY: u32 = 5;
    const SQLITE_LOCKED: u32 = 6;
    const SQLITE_IOERR: u32 = 10;
    const SQLITE_FULL: u32 = 13;
    const SQLITE_CANTOPEN: u32 = 14;
    if code.len() == 5 {
        // Also 28000 and 28P01: who may log in is the operator's to mend while the program waits.
        return code.get(..2).is_some_and(|class| POSTGRES.contains(&class) || class == "28");
    }
    code.parse::<u32>().is_ok_and(|code| {
        matches!(code & 0xff, SQLITE_BUSY | SQLITE_LOCKED | SQLITE_IOERR | SQLITE_FULL | SQLITE_CANTOPEN)
    })
}

#[cfg(test)]
mod tests {
    use super::is_passing;

    #[test]
    fn what_passes_is_told_from_what_is_a_fault() {
        for code in ["40001", "40P01", "53300", "57P01", "57014", "08006", "5", "517", "13", "28P01"] {
            assert!(is_passing(code.into()), "{code}");
        }
        for code in ["23505", "42P01", "42601", "1", "19", "2067"] {
            assert!(!is_passing(code.into()), "{code}");
        }
    }
}
