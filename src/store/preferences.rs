//! What owners want archived (XEP-0441). An append reads it in its own transaction, so that no instance ever goes by
//! preferences that another has changed.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{StoreError, columns};
use crate::model::{ArchiveDefault, ArchivePreferences, Owner, Timestamp};

/// Durable preferences.
#[async_trait]
pub trait PreferencesStore: Send + Sync {
    /// An owner's preferences: the default ones, as long as it has set none.
    async fn preferences(&self, owner: &Owner) -> Result<ArchivePreferences, StoreError>;

    /// Sets an owner's preferences, for what is appended from then on. The account becomes known.
    async fn set_preferences(
        &self,
        owner: &Owner,
        preferences: &ArchivePreferences,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// The same, unless the owner has set some; whether it was done.
    async fn adopt_preferences(
        &self,
        owner: &Owner,
        preferences: &ArchivePreferences,
        now: Timestamp,
    ) -> Result<bool, StoreError>;
}

/// From columns: the default, and JIDs with whether messages with them are kept.
pub(super) fn from_columns(default: i16, listed: Vec<(String, bool)>) -> Result<ArchivePreferences, StoreError> {
    let default = default_from_column(default)?;
    let (mut always, mut never) = (BTreeSet::new(), BTreeSet::new());
    for (jid, keep) in listed {
        if keep { &mut always } else { &mut never }.insert(columns::jid(&jid)?);
    }
    ArchivePreferences::new(default, always, never).map_err(|_| StoreError::Corrupt("archive preferences"))
}

/// From a column: the default.
pub(super) fn default_from_column(code: i16) -> Result<ArchiveDefault, StoreError> {
    ArchiveDefault::from_code(code).ok_or(StoreError::Corrupt("archive default"))
}
