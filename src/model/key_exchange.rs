//! What a message's headers tell about prekeys.

use super::address::{Owner, Requester};
use super::claimant::Claimant;
use super::device::{DeviceId, PrekeyId, Protocol};

/// A header that starts a session: it names, in clear, the one-time prekey that it uses up (DESIGN, directory invariant 3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyExchange {
    /// Whose device the header is for.
    pub owner: Owner,
    /// In which protocol.
    pub protocol: Protocol,
    /// Which device.
    pub device: DeviceId,
    /// The id of the prekey. What it says is believed only of prekeys that the sender's account was given.
    pub prekey: PrekeyId,
    /// Who sent it, as its server stamped it.
    pub sender: Requester,
    /// The device that it says it was sent from.
    pub sender_device: Option<DeviceId>,
}

impl KeyExchange {
    /// Who the prekey was probably given to: tells apart two prekeys that had the same id.
    pub fn claimants(&self) -> Vec<Claimant> {
        let device = self.sender_device.and_then(|device| {
            let account = Owner::new(self.sender.jid().to_bare()).ok()?;
            Some(Claimant::Device(account, device))
        });
        device.into_iter().chain([Claimant::Address(self.sender.clone())]).collect()
    }
}
