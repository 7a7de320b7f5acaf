//! `multiend admin erase OWNER`: everything about an account goes: its directory, its archive, and its name where it stands
//! in the data of others. Messages in the archives of those that it wrote with are theirs, and stay.
//!
//! May be interrupted and begun again. While the account still exists on its server, it comes back here with whatever it does
//! next: delete it there first.

use std::fmt;

use serde::Serialize;

use super::long_work::{OnProgress, Progress};
use crate::model::Owner;
use crate::store::{EraseStore, StoreError};

/// Rows of one step.
const STEP: u32 = 500;

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub struct Erasure {
    /// Whose data.
    pub owner: String,
    /// Rows of its own that were deleted.
    pub owned: u64,
    /// Rows of others that named it.
    pub named: u64,
    /// Whether nothing is left; if it was stopped, the same command goes on.
    pub complete: bool,
}

impl fmt::Display for Erasure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, owned, named, complete } = self;
        let outcome = if *complete { "is erased" } else { "is not all erased yet, and the same command goes on" };
        writeln!(f, "{owner} {outcome}: {owned} rows of its own, {named} that named it")
    }
}

/// Erases an account, in short steps.
pub async fn erase<S: EraseStore + ?Sized>(
    store: &S,
    owner: &Owner,
    mut progress: impl OnProgress,
) -> Result<Erasure, StoreError> {
    let mut erasure = Erasure { owner: owner.to_string(), owned: 0, named: 0, complete: false };
    let mut is_stopped = |erasure: &Erasure| {
        let done = erasure.owned.saturating_add(erasure.named);
        progress(Progress { done, of: None, what: "rows" }).is_break()
    };
    loop {
        let step = store.erase_owned(owner, STEP).await?;
        erasure.owned = erasure.owned.saturating_add(step.rows);
        if step.done {
            break;
        }
        if is_stopped(&erasure) {
            return Ok(erasure);
        }
    }
    let mut position = Some(0);
    while let Some(at) = position {
        let (step, next) = store.erase_named(owner, at).await?;
        erasure.named = erasure.named.saturating_add(step.rows);
        position = next;
        if position.is_some() && is_stopped(&erasure) {
            return Ok(erasure);
        }
    }
    erasure.complete = true;
    Ok(erasure)
}
