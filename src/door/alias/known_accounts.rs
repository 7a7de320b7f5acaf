//! Which accounts are known, remembered so that a message costs no lookup.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::model::Owner;
use crate::store::{SharedStore, StoreError};

/// Accounts remembered; forgotten all at once when there are more.
const REMEMBERED: usize = 100_000;

/// Accounts that exist. One that does not is looked up each time: it may come into being.
pub(super) struct KnownAccounts {
    store: SharedStore,
    known: Mutex<HashSet<Owner>>,
}

impl KnownAccounts {
    pub(super) fn new(store: SharedStore) -> Self {
        Self { store, known: Mutex::default() }
    }

    pub(super) async fn exists(&self, owner: &Owner) -> Result<bool, StoreError> {
        if self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(owner) {
            return Ok(true);
        }
        let exists = self.store.account_exists(owner).await?;
        if exists {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(owner.clone());
        }
        Ok(exists)
    }
}
