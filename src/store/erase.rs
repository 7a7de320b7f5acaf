//! Erasing an account: everything that is kept about it goes, in steps so short that nobody waits for them.
//!
//! What belongs to an account is told by the schema itself: every table of an account has a column `account`. So a table that
//! is added later is covered on the day that it is added. What remains are the places where an account is named in the data
//! of others ([`NAMED`]), and the dead letters that were for it. `tests/contract/erase.rs` fails on a column that could name
//! an account and is in neither.
//!
//! Messages in the archives of those that it wrote with stay: they are theirs. A body goes with its last copy.

use async_trait::async_trait;

use super::StoreError;
use crate::model::Owner;

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Erased {
    /// Rows deleted or made nameless.
    pub rows: u64,
    /// Whether nothing of this kind is left.
    pub done: bool,
}

/// Erasing. Every step may be repeated, and the whole begun again, after an interruption.
#[async_trait]
pub trait EraseStore: Send + Sync {
    /// Deletes at most about `limit` rows of the account's own; the account itself in the last step.
    async fn erase_owned(&self, owner: &Owner, limit: u32) -> Result<Erased, StoreError>;

    /// Takes the account out of the data of others: the part of the tables that begins at `position` (0 at first). Gives the
    /// next position; `None` at the end.
    async fn erase_named(&self, owner: &Owner, position: u64) -> Result<(Erased, Option<u64>), StoreError>;
}

/// What becomes of a row that names an erased account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes.
    Delete,
    /// The column becomes NULL: the rest of the row must stay.
    Empty,
}

impl Fate {
    /// The beginning of the statement. The names are ours.
    pub(super) fn statement(self, table: &str, column: &str) -> String {
        match self {
            Self::Delete => format!("DELETE FROM \"{table}\""),
            Self::Empty => format!("UPDATE \"{table}\" SET \"{column}\" = NULL"),
        }
    }
}

/// A column in which one account is named in the data of another: by its bare JID, by a full one, or as a device of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    pub(super) table: &'static str,
    pub(super) column: &'static str,
    pub(super) fate: Fate,
}

/// All such columns.
pub(super) const NAMED: [Named; 4] = [
    // Who is told of a device list.
    Named { table: "subscription", column: "subscriber", fate: Fate::Delete },
    // Who got a prekey: the prekey stays issued (directory invariant 3), to nobody in particular.
    Named { table: "prekey", column: "claimant", fate: Fate::Empty },
    Named { table: "last_resort", column: "claimant", fate: Fate::Delete },
    Named { table: "claim_budget", column: "name", fate: Fate::Delete },
];

/// The values to compare such a column with.
pub(super) struct Names {
    /// The account itself.
    pub(super) account: String,
    /// How many characters the two below have.
    pub(super) length: i64,
    /// What a session of it begins with.
    pub(super) session: String,
    /// What a device of it begins with (`model::Claimant`).
    pub(super) device: String,
}

impl Names {
    pub(super) fn of(owner: &Owner) -> Self {
        let account = owner.to_string();
        let length = i64::try_from(account.chars().count().saturating_add(1)).unwrap_or(i64::MAX);
        Self { session: format!("{account}/"), device: format!("{account} "), account, length }
    }
}
