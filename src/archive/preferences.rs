//! An owner's own choice of what is archived (XEP-0441). It is applied where copies are stored, within their transaction
//! ([`crate::store::PreferencesStore`]).

use super::query::{Archive, QueryError, admit};
use crate::model::{ArchivePreferences, Owner, Requester};

impl Archive {
    /// What the owner wants archived.
    pub async fn preferences(&self, owner: &Owner, requester: &Requester) -> Result<ArchivePreferences, QueryError> {
        admit(owner, requester)?;
        Ok(self.store.preferences(owner).await?)
    }

    /// Archives by these preferences from now on. What is there already stays.
    pub async fn set_preferences(
        &self,
        owner: &Owner,
        requester: &Requester,
        preferences: &ArchivePreferences,
    ) -> Result<(), QueryError> {
        admit(owner, requester)?;
        Ok(self.store.set_preferences(owner, preferences, self.clock.now()).await?)
    }
}
