//! One device at a time: its place in the list, what became of its prekeys, and where it is to be reached.

use async_trait::async_trait;

use super::{ListPublished, StoreError};
use crate::model::{Device, DeviceId, DeviceList, Owner, PrekeyId, Protocol, SessionJid, Timestamp};

/// What became of a prekey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PrekeyState {
    /// Nobody has it.
    Unissued,
    /// Somebody was given it.
    Issued,
    /// A key exchange that names it was seen: nobody will be given it again.
    Consumed,
}

/// What removing a device did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRemoved {
    /// The list in force without it; `None` if the owner has no list.
    pub list: Option<DeviceList>,
    /// Whether it was listed.
    pub was_listed: bool,
    /// Whether it had a bundle.
    pub had_bundle: bool,
}

/// Devices, one by one.
#[async_trait]
pub trait DeviceStore: Send + Sync {
    /// Puts one device at the end of the list, or gives a listed one this label, and leaves all others as they are: whoever
    /// does this at the same time, nobody is lost. The session has then seen this device and no other that it had not seen.
    /// Registers the account. At most `limit` devices.
    async fn add_device(
        &self,
        owner: &Owner,
        protocol: Protocol,
        session: &SessionJid,
        device: &Device,
        limit: usize,
        now: Timestamp,
    ) -> Result<ListPublished, StoreError>;

    /// Takes one device off the list, with its bundle, and leaves all others as they are. The session no longer counts as
    /// having seen it: if it comes back by itself, only who saw that can remove it by publishing a list.
    async fn remove_device(
        &self,
        owner: &Owner,
        protocol: Protocol,
        session: &SessionJid,
        device: DeviceId,
        now: Timestamp,
    ) -> Result<DeviceRemoved, StoreError>;

    /// What became of the prekeys in the bundle in force and, of earlier bundles, of those of `others` that were issued;
    /// unissued first in the order of the queue, then by id. `None` without a bundle. A prekey of an earlier bundle that is
    /// named and not in the answer was never issued.
    async fn prekey_states(
        &self,
        owner: &Owner,
        protocol: Protocol,
        device: DeviceId,
        others: &[PrekeyId],
    ) -> Result<Option<Vec<(PrekeyId, PrekeyState)>>, StoreError>;

    /// The devices that have a bundle, by id, with the item id of each; the first `limit`.
    async fn bundle_items(
        &self,
        owner: &Owner,
        protocol: Protocol,
        limit: u32,
    ) -> Result<Vec<(DeviceId, String)>, StoreError>;

    /// The sessions that have been seen to be a device, the latest first; the first `limit`.
    async fn device_sessions(
        &self,
        owner: &Owner,
        protocol: Protocol,
        device: DeviceId,
        limit: u32,
    ) -> Result<Vec<SessionJid>, StoreError>;
}
