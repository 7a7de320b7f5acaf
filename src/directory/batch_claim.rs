//! Claims of many devices in one request (`urn:multiend:0`): each is a claim like any other (invariants 1 to 4), of one's own
//! siblings, too, so that no two devices ever start a session with the same prekey.

use super::{Directory, DirectoryError};
use crate::model::{DeviceId, Owner, Prekey, Protocol, Requester, SignedPrekey};
use crate::store::ClaimOutcome;

/// Devices of one owner that somebody wants a prekey of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whose.
    pub owner: Owner,
    /// Which; none for all that are listed.
    pub devices: Vec<DeviceId>,
}

/// What one device gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// Keys to start a session with.
    Handed {
        /// The identity key.
        identity_key: Vec<u8>,
        /// The signed prekey.
        signed_prekey: SignedPrekey,
        /// The one-time prekey.
        prekey: Prekey,
    },
    /// It has no bundle.
    NoBundle,
    /// It has no prekey that may be given; in a strict claim, none that nobody has.
    NoPrekey,
}

/// What one owner's devices gave, in the order wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerClaimed {
    /// Device by device.
    Devices(Vec<(DeviceId, Claimed)>),
    /// All listed devices were wanted, and there is no list.
    NoList,
    /// All listed devices were wanted, and they would be more than one claim may have.
    TooMany,
}

impl From<ClaimOutcome> for Claimed {
    fn from(outcome: ClaimOutcome) -> Self {
        match outcome {
            ClaimOutcome::Handed { identity_key, signed_prekey, prekey, .. } => {
                Self::Handed { identity_key, signed_prekey, prekey }
            }
            ClaimOutcome::NoBundle => Self::NoBundle,
            ClaimOutcome::NoPrekey => Self::NoPrekey,
        }
    }
}

impl Directory {
    /// Claims a prekey of each device for one requester; at most `max` devices. An error says that the database is away: what
    /// was claimed until then, the same requester gets again.
    pub async fn claim_batch(
        &self,
        requester: &Requester,
        protocol: Protocol,
        wanted: &[Wanted],
        strict: bool,
        max: usize,
    ) -> Result<Vec<OwnerClaimed>, DirectoryError> {
        let mut room = max;
        let mut answers = Vec::with_capacity(wanted.len());
        for Wanted { owner, devices } in wanted {
            let listed;
            let devices = if devices.is_empty() {
                let Some(list) = self.store.device_list(owner, protocol, None).await? else {
                    answers.push(OwnerClaimed::NoList);
                    continue;
                };
                listed = list.ids().collect::<Vec<_>>();
                &listed
            } else {
                devices
            };
            let Some(rest) = room.checked_sub(devices.len()) else {
                answers.push(OwnerClaimed::TooMany);
                continue;
            };
            room = rest;
            let mut claimed = Vec::with_capacity(devices.len());
            for device in devices {
                let outcome = self.claim_outcome(owner, requester, protocol, *device, strict).await?;
                claimed.push((*device, outcome.into()));
            }
            answers.push(OwnerClaimed::Devices(claimed));
        }
        Ok(answers)
    }
}
