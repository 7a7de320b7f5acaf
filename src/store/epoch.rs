//! The deployment behind a database: whether it is what was last run on, and what a restore from a backup makes void
//! (DESIGN: directory invariant 9).
//!
//! A restored database believes that prekeys are unissued which were issued after the backup. Each restore therefore begins
//! an **epoch**, and what follows for one device is:
//!
//! - Its unissued prekeys become void at once: they count as issued, and only the last resort gives them. Nobody gets a
//!   prekey again because of an earlier request.
//! - Its owner gets no bundle back until the device has published once more, so that a client which compares notices.
//! - The first bundle that it publishes then names the keys that it had: all are void too, since some may have been issued
//!   after the backup. Keys that are new in a later bundle are fresh. The same holds for a device that the database does
//!   not know, for [`UNKNOWN_DEVICES`] after the restore.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::model::Timestamp;

/// How long after a restore the first bundle of a device that the database does not know may be one from before.
pub(super) const UNKNOWN_DEVICES: Duration = Duration::from_secs(30 * 24 * 3600);

/// Which deployment a database belongs to, and how far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deployment {
    /// Random, made with the database.
    pub id: [u8; 16],
    /// A number that only grows, unless the database is replaced by an older one.
    pub progress: u64,
    /// How many restores the operator has declared.
    pub epoch: u64,
    /// When the operator last said that this database may be used, if ever.
    pub confirmed_at: Option<Timestamp>,
    /// Whether claims are refused until the operator says so again ([`StoreError::Unconfirmed`]).
    pub doubted: bool,
}

/// What a step of making stock void did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Voided {
    /// Devices whose stock is now void.
    pub devices: u64,
    /// Prekeys that were unissued and are void now.
    pub prekeys: u64,
}

/// Epochs and progress.
#[async_trait]
pub trait EpochStore: Send + Sync {
    /// How the deployment stands.
    async fn deployment(&self) -> Result<Deployment, StoreError>;

    /// Counts the progress on by one.
    async fn advance(&self) -> Result<Deployment, StoreError>;

    /// Refuses claims on every instance until [`Self::confirm`] or [`Self::begin_epoch`].
    async fn doubt(&self) -> Result<(), StoreError>;

    /// The operator says that nothing was restored.
    async fn confirm(&self, now: Timestamp) -> Result<Deployment, StoreError>;

    /// The operator says that the database was restored from a backup: a new epoch. From when this returns no prekey from
    /// before is handed out as fresh; [`Self::void_older`] does the rest.
    async fn begin_epoch(&self, now: Timestamp) -> Result<Deployment, StoreError>;

    /// Makes void what is left of older epochs, of at most `limit` devices; their owners are told. Nothing left to do once
    /// it says that it did nothing. Claims and publishes do the same for the one device that they are about.
    async fn void_older(&self, limit: u32, now: Timestamp) -> Result<Voided, StoreError>;

    /// How many devices [`Self::void_older`] has still to look at.
    async fn devices_to_void(&self) -> Result<u64, StoreError>;
}

/// The row of the deployment.
#[derive(sqlx::FromRow)]
pub(super) struct DeploymentRow {
    id: Vec<u8>,
    progress: i64,
    epoch: i64,
    confirmed_at: Option<i64>,
    doubted: bool,
}

impl DeploymentRow {
    pub(super) fn into_deployment(self) -> Result<Deployment, StoreError> {
        let number = |number| u64::try_from(number).map_err(|_| StoreError::Corrupt("number of a deployment"));
        Ok(Deployment {
            id: self.id.try_into().map_err(|_| StoreError::Corrupt("id of a deployment"))?,
            progress: number(self.progress)?,
            epoch: number(self.epoch)?,
            confirmed_at: self.confirmed_at.map(Timestamp::from_micros),
            doubted: self.doubted,
        })
    }
}
