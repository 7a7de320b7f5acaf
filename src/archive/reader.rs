//! Who reads an archive: an owner's session, and the devices that it is. Looked up at most once a query, and only if the
//! answer depends on it.

use tokio::sync::OnceCell;

use super::query::Archive;
use super::view::Viewer;
use crate::model::{Owner, Protocol, ProtocolDevice, Requester, Unreadable};
use crate::stanza::mam::Query;
use crate::store::StoreError;

/// Whoever asks with one query.
pub(super) struct Reader<'a> {
    archive: &'a Archive,
    pub(super) owner: &'a Owner,
    requester: &'a Requester,
    /// As which devices it wants to see the messages.
    claimed: &'a [ProtocolDevice],
    unreadable: Unreadable,
    known: OnceCell<Vec<ProtocolDevice>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(archive: &'a Archive, owner: &'a Owner, requester: &'a Requester, query: &'a Query) -> Self {
        let unreadable = query.unreadable.unwrap_or_else(|| archive.unreadable.get());
        Self { archive, owner, requester, claimed: &query.devices, unreadable, known: OnceCell::new() }
    }

    /// A reader that only says how far it has read.
    pub(super) fn session(archive: &'a Archive, owner: &'a Owner, requester: &'a Requester) -> Self {
        Self { archive, owner, requester, claimed: &[], unreadable: archive.unreadable.get(), known: OnceCell::new() }
    }

    /// Every device that the session has been seen to be.
    pub(super) async fn known(&self) -> Result<&[ProtocolDevice], StoreError> {
        let known = self.known.get_or_try_init(|| async {
            let mut known = Vec::new();
            let Some(session) = self.requester.session() else { return Ok(known) };
            for protocol in Protocol::ALL {
                let devices = self.archive.store.session_devices(self.owner, protocol, &session).await?;
                known.extend(devices.into_iter().map(|device| ProtocolDevice { protocol, device }));
            }
            Ok::<_, StoreError>(known)
        });
        Ok(known.await?)
    }

    /// The one device per protocol that the session certainly is; none where it has been seen to be several and does not say
    /// which.
    pub(super) async fn certain(&self) -> Result<Vec<ProtocolDevice>, StoreError> {
        let known = self.known().await?;
        let mut certain = Vec::new();
        for protocol in Protocol::ALL {
            let of = |devices: &[ProtocolDevice]| -> Vec<ProtocolDevice> {
                devices.iter().copied().filter(|device| device.protocol == protocol).collect()
            };
            let claimed = of(self.claimed);
            let possible = if claimed.is_empty() { of(known) } else { claimed };
            if let [only] = possible.as_slice()
                && known.contains(only)
            {
                certain.push(*only);
            }
        }
        Ok(certain)
    }

    /// How it sees messages. A device that it claims to be and is not known to be trims its own view only: what goes are
    /// headers that it says it has no use for. Nothing is ever left out on a claim.
    pub(super) async fn viewer(&self) -> Result<Viewer, StoreError> {
        let mut viewer = Viewer::new(self.owner.clone()).with_unreadable(self.unreadable);
        let known = self.known().await?;
        for protocol in Protocol::ALL {
            let claimed = || self.claimed.iter().filter(move |device| device.protocol == protocol);
            let is_claimed = claimed().next().is_some();
            let devices: Vec<_> = if is_claimed {
                claimed().map(|device| device.device).collect()
            } else {
                known.iter().filter(|device| device.protocol == protocol).map(|device| device.device).collect()
            };
            viewer = viewer.with_devices(protocol, devices);
        }
        if self.unreadable == Unreadable::Omit {
            for device in self.certain().await? {
                let list = self.archive.store.device_list(self.owner, device.protocol, None).await?;
                if list.is_some_and(|list| list.contains(device.device)) {
                    viewer = viewer.registered(device.protocol);
                }
            }
        }
        Ok(viewer)
    }
}
