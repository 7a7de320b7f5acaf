//! `multiend admin erase OWNER`: everything about an account goes: its directory, its archive, and its name where it stands
//! in the data of others. Messages in the archives of those that it wrote with are theirs, and stay.
//!
//! May be interrupted and begun again. While the account still exists on its server, it comes back here with whatever it does
//! next: delete it there first.

use std::fmt;

use serde::Serialize;

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
}

impl fmt::Display for Erasure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, owned, named } = self;
        writeln!(f, "{owner} is erased: {owned} rows of its own, {named} that named it")
    }
}

/// Erases an account, in short steps.
pub async fn erase<S: EraseStore + ?Sized>(store: &S, owner: &Owner) -> Result<Erasure, StoreError> {
    let mut erasure = Erasure { owner: owner.to_string(), owned: 0, named: 0 };
    loop {
        let step = store.erase_owned(owner, STEP).await?;
        erasure.owned = erasure.owned.saturating_add(step.rows);
        if step.done {
            break;
        }
    }
    let mut position = Some(0);
    while let Some(at) = position {
        let (step, next) = store.erase_named(owner, at).await?;
        erasure.named = erasure.named.saturating_add(step.rows);
        position = next;
    }
    Ok(erasure)
}
