//! One device at a time, without reading and writing the whole list (`urn:multiend:0`): atomic, so that devices that come
//! and go at the same moment do not lose each other (DESIGN, directory invariant 6).

use bytes::Bytes;
use jid::Jid;

use super::{Directory, DirectoryError, ListChange};
use crate::model::{Device, DeviceId, DeviceList, Owner, PrekeyId, Protocol, Requester};
use crate::store::{ListPublished, NodeKind, PrekeyState};

/// What is published in a device's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The bundle as it was published, and how many of its prekeys nobody has.
    pub bundle: Option<(Bytes, u32)>,
    /// The list in force.
    pub list: Option<DeviceList>,
}

impl Directory {
    /// Puts a device into the list, or gives a listed one a new label.
    pub async fn add_device(
        &self,
        owner: &Owner,
        requester: &Requester,
        protocol: Protocol,
        device: &Device,
    ) -> Result<ListChange, DirectoryError> {
        let session = Self::writer(owner, requester)?;
        let limit = self.settings.with(|settings| settings.max_devices);
        let outcome = self.store.add_device(owner, protocol, &session, device, limit, self.clock.now()).await?;
        let ListPublished::Accepted { list, changed } = outcome else {
            return Err(DirectoryError::TooManyDevices(limit));
        };
        let announce_to = self.announce_to(owner, protocol, changed).await?;
        Ok(ListChange { list, announce_to })
    }

    /// Takes a device off the list, with its bundle.
    pub async fn remove_device(
        &self,
        owner: &Owner,
        requester: &Requester,
        protocol: Protocol,
        device: DeviceId,
    ) -> Result<ListChange, DirectoryError> {
        let session = Self::writer(owner, requester)?;
        let removed = self.store.remove_device(owner, protocol, &session, device, self.clock.now()).await?;
        if !removed.was_listed && !removed.had_bundle {
            return Err(DirectoryError::NotFound("no such device"));
        }
        let announce_to = self.announce_to(owner, protocol, removed.was_listed).await?;
        Ok(ListChange { list: removed.list.unwrap_or_default(), announce_to })
    }

    /// What became of a device's prekeys: of those in its bundle, and of the issued ones of earlier bundles among `others`.
    /// For its owner only: to anybody else it would tell how much the device is written to.
    pub async fn prekey_states(
        &self,
        owner: &Owner,
        requester: &Requester,
        protocol: Protocol,
        device: DeviceId,
        others: &[PrekeyId],
    ) -> Result<Vec<(PrekeyId, PrekeyState)>, DirectoryError> {
        Self::writer(owner, requester)?;
        let states = self.store.prekey_states(owner, protocol, device, others).await?;
        states.ok_or(DirectoryError::NotFound("the device has no bundle"))
    }

    /// What a device compares with what it thinks. To be told of a list by its digest is not to have seen it (invariant 6).
    pub async fn check(
        &self,
        owner: &Owner,
        requester: &Requester,
        protocol: Protocol,
        device: DeviceId,
    ) -> Result<Published, DirectoryError> {
        Self::writer(owner, requester)?;
        let bundle = self.store.published_bundles(owner, protocol, Some(&[device]), 1).await?.into_iter().next();
        let bundle = match bundle {
            Some((_, _, payload)) => {
                let stock = self.store.stock(owner, protocol, device).await?;
                Some((payload, stock.unissued))
            }
            None => None,
        };
        Ok(Published { bundle, list: self.store.device_list(owner, protocol, None).await? })
    }

    async fn announce_to(&self, owner: &Owner, protocol: Protocol, changed: bool) -> Result<Vec<Jid>, DirectoryError> {
        if changed { Ok(self.store.subscribers(owner, protocol, NodeKind::DeviceList).await?) } else { Ok(Vec::new()) }
    }
}
