//! Bundles (XEP-0384 §5.3.2): checked when published, given back to their owner as published, and handed out to everybody
//! else with exactly one prekey.

use std::collections::BTreeSet;

use bytes::Bytes;
use multiend_crypto::signature::{verify_legacy_signature, verify_omemo2_signature};

use super::claim::{ClaimError, Wanted};
use super::{BundleRefusal, Directory, DirectoryError};
use crate::model::{DeviceId, Owner, Prekey, Protocol, PublishedBundle, Requester, SignedPrekey};

/// Bundles that are read at once to be retracted.
const RETRACTED_AT_ONCE: u32 = 100;

/// A bundle as one requester gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleItem {
    /// To its device: as it was published, byte for byte.
    AsPublished {
        /// Of which device.
        device: DeviceId,
        /// Under which item id.
        item_id: String,
        /// The `<bundle/>` element.
        payload: Bytes,
    },
    /// To anybody else, the owner's other devices included: with one prekey, which is this requester's.
    WithPrekey {
        /// Of which device.
        device: DeviceId,
        /// Under which item id.
        item_id: String,
        /// The identity key.
        identity_key: Vec<u8>,
        /// The signed prekey.
        signed_prekey: SignedPrekey,
        /// The one-time prekey.
        prekey: Prekey,
    },
}

impl BundleItem {
    /// Of which device.
    pub fn device(&self) -> DeviceId {
        match self {
            Self::AsPublished { device, .. } | Self::WithPrekey { device, .. } => *device,
        }
    }
}

impl Directory {
    /// Publishes a bundle whose shape is right, if its signature is.
    pub async fn publish_bundle(
        &self,
        owner: &Owner,
        requester: &Requester,
        protocol: Protocol,
        device: DeviceId,
        published: &PublishedBundle,
    ) -> Result<(), DirectoryError> {
        let session = Self::writer(owner, requester)?;
        let (identity_key, signed) = (&published.bundle.identity_key, &published.bundle.signed_prekey);
        let verified = match protocol {
            Protocol::Omemo2 => verify_omemo2_signature(identity_key, &signed.key, &signed.signature),
            Protocol::Legacy => verify_legacy_signature(identity_key, &signed.key, &signed.signature),
        };
        if let Err(error) = verified {
            self.metrics.bundle_refused(protocol, BundleRefusal::Signature);
            return Err(error.into());
        }
        let stored = self.store.publish_bundle(owner, protocol, device, &session, published, self.clock.now()).await;
        let outcome = stored.inspect_err(|error| {
            if let Some(reason) = BundleRefusal::of_store(error) {
                self.metrics.bundle_refused(protocol, reason);
            }
        })?;
        if outcome.identity_changed {
            tracing::warn!(%owner, protocol = protocol.name(), %device, "a device has a new identity key; its prekeys are void");
        }
        self.metrics.bundle_published(protocol, &outcome);
        self.alive(owner, protocol, device);
        Ok(())
    }

    /// Counts a bundle that was refused for its shape, before it came here.
    pub fn refused_bundle(&self, protocol: Protocol, reason: BundleRefusal) {
        self.metrics.bundle_refused(protocol, reason);
    }

    /// Bundles of the devices named, or of all. Devices that have none, or no prekey to give, are left out; none at all is
    /// [`DirectoryError::NotFound`].
    pub async fn bundles(
        &self,
        owner: &Owner,
        requester: &Requester,
        protocol: Protocol,
        devices: Option<&[DeviceId]>,
        max: usize,
    ) -> Result<Vec<BundleItem>, DirectoryError> {
        let items = if requester.is(owner) {
            self.own(owner, requester, protocol, devices, max).await?
        } else {
            self.with_prekeys(owner, requester, protocol, devices, max).await?
        };
        if items.is_empty() {
            return Err(DirectoryError::NotFound("no such bundle"));
        }
        Ok(items)
    }

    /// Bundles for a session of their owner (DESIGN, directory invariant 5). One that is certainly a device gets its own as
    /// published, and a prekey of its own of each sibling: picking one, it might pick what somebody else was given, and of
    /// two who use one key, one loses its messages. One of which no device is known may be the device asked for, which
    /// compares at its login what it published: it gets everything as published.
    async fn own(
        &self,
        owner: &Owner,
        requester: &Requester,
        protocol: Protocol,
        devices: Option<&[DeviceId]>,
        max: usize,
    ) -> Result<Vec<BundleItem>, DirectoryError> {
        let published = self.as_published(owner, protocol, devices, max).await?;
        let Some(session) = requester.session() else { return Ok(published) };
        let certain = self.store.certain_devices(&[(session, protocol)]).await?;
        let Some(device) = certain.into_iter().flatten().next() else { return Ok(published) };
        let siblings: Vec<Wanted> = published
            .iter()
            .map(BundleItem::device)
            .filter(|sibling| *sibling != device)
            .map(|sibling| Wanted { owner: owner.clone(), protocol, device: sibling, strict: false })
            .collect();
        let mut claimed = self.claim_all(requester, &siblings).await?;
        claimed.extend(published.into_iter().filter(|item| item.device() == device));
        claimed.sort_by_key(BundleItem::device);
        Ok(claimed)
    }

    async fn as_published(
        &self,
        owner: &Owner,
        protocol: Protocol,
        devices: Option<&[DeviceId]>,
        max: usize,
    ) -> Result<Vec<BundleItem>, DirectoryError> {
        let limit = u32::try_from(max).unwrap_or(u32::MAX);
        let bundles = self.store.published_bundles(owner, protocol, devices, limit).await?;
        Ok(bundles
            .into_iter()
            .map(|(device, item_id, payload)| BundleItem::AsPublished { device, item_id, payload })
            .collect())
    }

    async fn with_prekeys(
        &self,
        owner: &Owner,
        requester: &Requester,
        protocol: Protocol,
        devices: Option<&[DeviceId]>,
        max: usize,
    ) -> Result<Vec<BundleItem>, DirectoryError> {
        let listed;
        let devices = match devices {
            Some(devices) => devices,
            None => {
                let list = self.store.device_list(owner, protocol, None).await?.unwrap_or_default();
                listed = list.ids().collect::<Vec<_>>();
                &listed
            }
        };
        let mut asked = BTreeSet::new();
        let wanted: Vec<Wanted> = devices
            .iter()
            .filter(|device| asked.insert(**device))
            .take(max)
            .map(|device| Wanted { owner: owner.clone(), protocol, device: *device, strict: false })
            .collect();
        self.claim_all(requester, &wanted).await
    }

    /// Claims what is wanted. Devices without a bundle, or without a prekey to give, are left out; so are those over a limit,
    /// unless nothing else is left.
    async fn claim_all(&self, requester: &Requester, wanted: &[Wanted]) -> Result<Vec<BundleItem>, DirectoryError> {
        let mut items = Vec::new();
        let mut limited = None;
        for claimed in self.claim_batch(requester, wanted).await {
            match claimed {
                Ok(item) => items.push(item),
                Err(ClaimError::NoBundle | ClaimError::NoPrekey) => {}
                Err(ClaimError::Limited(limit)) => limited = Some(limit),
                Err(ClaimError::Store(error)) => return Err(error.into()),
            }
        }
        match limited {
            Some(limit) if items.is_empty() => Err(DirectoryError::Limited(limit)),
            _ => Ok(items),
        }
    }

    /// Removes all bundles of an owner. None at all is no error.
    pub async fn retract_all_bundles(
        &self,
        owner: &Owner,
        requester: &Requester,
        protocol: Protocol,
    ) -> Result<(), DirectoryError> {
        Self::writer(owner, requester)?;
        loop {
            let published = self.store.published_bundles(owner, protocol, None, RETRACTED_AT_ONCE).await?;
            if published.is_empty() {
                return Ok(());
            }
            for (device, ..) in published {
                self.store.retract_bundle(owner, protocol, device, self.clock.now()).await?;
            }
        }
    }

    /// Removes the bundles of the devices named. Those that had none count as not found only if none had one.
    pub async fn retract_bundles(
        &self,
        owner: &Owner,
        requester: &Requester,
        protocol: Protocol,
        devices: &[DeviceId],
    ) -> Result<(), DirectoryError> {
        Self::writer(owner, requester)?;
        let mut any = false;
        for device in devices {
            any |= self.store.retract_bundle(owner, protocol, *device, self.clock.now()).await?;
        }
        if any { Ok(()) } else { Err(DirectoryError::NotFound("no such bundle")) }
    }
}
