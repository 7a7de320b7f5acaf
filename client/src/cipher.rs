//! The device's keys and sessions in all the protocols that it takes part in.
//!
//! It does no I/O and saves nothing; see [`crate::memory`] for the order in which things are saved.

use std::collections::BTreeMap;

use minidom::Element;
use xmpp_parsers::jid::BareJid;

use crate::error::ClientError;
use crate::keys::{self, Keys};
use crate::protocol::{Protocol, Protocols, RemoteDevice};

/// A device with its sessions: the same id and identity in each of its protocols, and everything else its own.
pub(crate) struct Cipher {
    parts: BTreeMap<Protocol, Box<dyn Keys>>,
    id: u32,
    fingerprint: String,
}

impl Cipher {
    /// A new device of `account` with a random id.
    pub(crate) fn generate(account: &BareJid, protocols: Protocols) -> Result<Self, ClientError> {
        let first = keys::generate(protocols.preferred(), account)?;
        let (id, fingerprint) = (first.id(), first.fingerprint());
        let mut cipher = Self { parts: BTreeMap::from([(protocols.preferred(), first)]), id, fingerprint };
        cipher.take_part_in(protocols)?;
        Ok(cipher)
    }

    /// The device that [`Cipher::to_state`] described; `None` if it has no part.
    pub(crate) fn from_state(state: &BTreeMap<Protocol, String>) -> Result<Option<Self>, String> {
        let parts = state
            .iter()
            .map(|(protocol, state)| {
                Ok((*protocol, keys::restore(*protocol, state).map_err(|error| error.to_string())?))
            })
            .collect::<Result<BTreeMap<_, _>, String>>()?;
        let Some(first) = parts.values().next() else { return Ok(None) };
        let (id, fingerprint) = (first.id(), first.fingerprint());
        if parts.values().any(|part| part.id() != id || part.fingerprint() != fingerprint) {
            return Err("its protocols belong to different devices".to_owned());
        }
        Ok(Some(Self { parts, id, fingerprint }))
    }

    /// Adds the parts that are missing. None is ever taken away: others may write to it.
    pub(crate) fn take_part_in(&mut self, protocols: Protocols) -> Result<(), ClientError> {
        for protocol in protocols.iter() {
            if !self.parts.contains_key(&protocol)
                && let Some(other) = self.parts.values().next()
            {
                self.parts.insert(protocol, other.sibling(protocol)?);
            }
        }
        Ok(())
    }

    /// Everything to be saved.
    pub(crate) fn to_state(&self) -> Result<BTreeMap<Protocol, String>, ClientError> {
        self.parts.iter().map(|(protocol, keys)| Ok((*protocol, keys.to_state()?))).collect()
    }

    /// The protocols that it takes part in.
    pub(crate) fn protocols(&self) -> Vec<Protocol> {
        self.parts.keys().copied().collect()
    }

    /// This device's id.
    pub(crate) const fn id(&self) -> u32 {
        self.id
    }

    /// The fingerprint that users compare.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The keys and sessions of one protocol.
    pub(crate) fn part(&self, protocol: Protocol) -> Result<&dyn Keys, ClientError> {
        self.parts.get(&protocol).map(|keys| &**keys).ok_or(ClientError::NotTakingPart(protocol))
    }

    /// The same, to be changed.
    pub(crate) fn part_mut(&mut self, protocol: Protocol) -> Result<&mut dyn Keys, ClientError> {
        match self.parts.get_mut(&protocol) {
            Some(keys) => Ok(&mut **keys),
            None => Err(ClientError::NotTakingPart(protocol)),
        }
    }

    /// The protocols whose bundles should be published again.
    pub(crate) fn bundles_changed(&self) -> Vec<Protocol> {
        self.parts.iter().filter(|(_, keys)| keys.bundle_changed()).map(|(protocol, _)| *protocol).collect()
    }

    /// The archive is about to be read: what it brings may use prekeys that others have used, too.
    pub(crate) fn catch_up_started(&mut self) {
        self.parts.values_mut().for_each(|keys| keys.catch_up_started());
    }

    /// The archive has been read to its end.
    pub(crate) fn catch_up_finished(&mut self) {
        self.parts.values_mut().for_each(|keys| keys.catch_up_finished());
    }

    /// Whether there is a session with a device.
    pub(crate) fn has_session(&self, remote: &RemoteDevice) -> bool {
        self.parts.get(&remote.protocol).is_some_and(|keys| keys.has_session(&remote.account, remote.device))
    }

    /// Encrypts a text for devices with which there are sessions: one element for each protocol that they read.
    pub(crate) fn encrypt(&mut self, body: &str, devices: &[RemoteDevice]) -> Result<Vec<Element>, ClientError> {
        let mut elements = Vec::new();
        for protocol in Protocol::ALL {
            let readers: Vec<_> = devices
                .iter()
                .filter(|remote| remote.protocol == protocol)
                .map(|remote| (&remote.account, remote.device))
                .collect();
            if !readers.is_empty() {
                elements.push(self.part_mut(protocol)?.encrypt(body, &readers)?);
            }
        }
        Ok(elements)
    }

    /// The devices to which an empty message is due.
    pub(crate) fn replies_due(&self) -> Vec<RemoteDevice> {
        let mut due = Vec::new();
        for (protocol, keys) in &self.parts {
            let remote = |(account, device)| RemoteDevice { account, protocol: *protocol, device };
            due.extend(keys.replies_due().into_iter().map(remote));
        }
        due
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_the_same_in_both_protocols_and_adds_one_later() {
        let alice = BareJid::new("alice@example.org").unwrap();
        let only = Cipher::generate(&alice, Protocols::only(Protocol::Legacy)).unwrap();
        let mut restored = Cipher::from_state(&only.to_state().unwrap()).unwrap().unwrap();
        restored.take_part_in(Protocols::both(Protocol::Omemo2)).unwrap();
        assert_eq!(restored.protocols(), Protocol::ALL);
        let again = Cipher::from_state(&restored.to_state().unwrap()).unwrap().unwrap();
        assert_eq!((again.id(), again.fingerprint()), (only.id(), only.fingerprint()));
        for protocol in Protocol::ALL {
            assert_eq!(again.part(protocol).unwrap().fingerprint(), only.fingerprint());
        }
    }

    #[test]
    fn parts_of_different_devices_are_not_put_together() {
        let alice = BareJid::new("alice@example.org").unwrap();
        let state = |protocol| Cipher::generate(&alice, Protocols::only(protocol)).unwrap().to_state().unwrap();
        let mut mixed = state(Protocol::Legacy);
        mixed.extend(state(Protocol::Omemo2));
        assert!(Cipher::from_state(&mixed).is_err());
    }
}
