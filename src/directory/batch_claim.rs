//! Claims of the devices of several accounts in one request (`urn:multiend:0`): each is a claim like any other (invariants 1
//! to 4), of one's own siblings, too, so that no two devices ever start a session with the same prekey.

use super::{BundleItem, ClaimError, Directory, DirectoryError, Wanted};
use crate::model::{DeviceId, Owner, Protocol, Requester};

/// Devices of one owner that somebody wants a prekey of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedDevices {
    /// Whose.
    pub owner: Owner,
    /// Which; none for all that are listed.
    pub devices: Vec<DeviceId>,
}

/// What one owner's devices gave, in the order wanted.
#[derive(Debug)]
pub enum OwnerClaimed {
    /// Device by device.
    Devices(Vec<(DeviceId, Result<BundleItem, ClaimError>)>),
    /// All listed devices were wanted, and there is no list.
    NoList,
    /// All listed devices were wanted, and they would be more than one claim may have.
    TooMany,
}

impl Directory {
    /// Claims a prekey of each device for one requester; at most `max` devices. An error says that the lists could not be
    /// read, and nothing was claimed.
    pub async fn claim_accounts(
        &self,
        requester: &Requester,
        protocol: Protocol,
        accounts: &[WantedDevices],
        strict: bool,
        max: usize,
    ) -> Result<Vec<OwnerClaimed>, DirectoryError> {
        let mut wanted = Vec::new();
        let mut answers = Vec::with_capacity(accounts.len());
        for WantedDevices { owner, devices } in accounts {
            let listed;
            let devices = if devices.is_empty() {
                let Some(list) = self.store.device_list(owner, protocol, None).await? else {
                    answers.push(Err(OwnerClaimed::NoList));
                    continue;
                };
                listed = list.ids().collect::<Vec<_>>();
                &listed
            } else {
                devices
            };
            if devices.len() > max.saturating_sub(wanted.len()) {
                answers.push(Err(OwnerClaimed::TooMany));
                continue;
            }
            let one = |device: &DeviceId| Wanted { owner: owner.clone(), protocol, device: *device, strict };
            wanted.extend(devices.iter().map(one));
            answers.push(Ok(devices.len()));
        }
        let mut claimed = wanted.iter().map(|wanted| wanted.device).zip(self.claim_batch(requester, &wanted).await);
        let of_owner = |answer: Result<usize, OwnerClaimed>| match answer {
            Ok(count) => OwnerClaimed::Devices(claimed.by_ref().take(count).collect()),
            Err(answer) => answer,
        };
        Ok(answers.into_iter().map(of_owner).collect())
    }
}
