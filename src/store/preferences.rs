//! What owners want archived (XEP-0441). An append reads it in its own transaction, so that no instance ever goes by
//! preferences that another has changed.

use async_trait::async_trait;

use super::StoreError;
use crate::model::{ArchivePreferences, Owner, Timestamp};

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
}
