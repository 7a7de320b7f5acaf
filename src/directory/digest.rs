//! Digests of what is published, over bytes that do not depend on how it was written (docs/protocol.md, "Self-check").
//!
//! A device computes the same over what it thinks is published. Both are SHA-256. Numbers are 32 bits, big-endian; a string
//! of bytes is its length as a number and the bytes.

use sha2::{Digest as _, Sha256};

use crate::model::{Bundle, DeviceId, DeviceList, Prekey, Protocol};

/// A digest.
pub type Digest = [u8; 32];

/// Of a bundle: its protocol and device, identity key, signed prekey with id and signature, and its prekeys by id.
pub fn of_bundle(bundle: &Bundle, device: DeviceId, protocol: Protocol) -> Digest {
    let mut canonical = Canonical::new("multiend bundle", protocol);
    canonical.number(device.get());
    canonical.bytes(&bundle.identity_key);
    canonical.number(bundle.signed_prekey.id);
    canonical.bytes(&bundle.signed_prekey.key);
    canonical.bytes(&bundle.signed_prekey.signature);
    let mut prekeys: Vec<&Prekey> = bundle.prekeys.iter().collect();
    prekeys.sort_by_key(|prekey| prekey.id);
    canonical.count(prekeys.len());
    for prekey in prekeys {
        canonical.number(prekey.id.get());
        canonical.bytes(&prekey.key);
    }
    canonical.digest()
}

/// Of a device list: its protocol and its devices in order, each with id, label and label signature.
pub fn of_list(list: &DeviceList, protocol: Protocol) -> Digest {
    let mut canonical = Canonical::new("multiend list", protocol);
    canonical.count(list.devices().len());
    for device in list.devices() {
        canonical.number(device.id.get());
        canonical.optional(device.label.as_deref());
        canonical.optional(device.label_signature.as_deref());
    }
    canonical.digest()
}

struct Canonical(Sha256);

impl Canonical {
    /// What it is of, the protocol's name, and a zero byte after each: no digest of one thing is one of another.
    fn new(of: &str, protocol: Protocol) -> Self {
        let mut hash = Sha256::new();
        for text in [of, protocol.name()] {
            hash.update(text.as_bytes());
            hash.update([0]);
        }
        Self(hash)
    }

    fn number(&mut self, number: u32) {
        self.0.update(number.to_be_bytes());
    }

    fn count(&mut self, count: usize) {
        self.number(u32::try_from(count).unwrap_or(u32::MAX));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.update(bytes);
    }

    /// A zero byte for nothing; a one and the bytes for something, be it empty.
    fn optional(&mut self, text: Option<&str>) {
        match text {
            None => self.0.update([0]),
            Some(text) => {
                self.0.update([1]);
                self.bytes(text.as_bytes());
            }
        }
    }

    fn digest(self) -> Digest {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Device, PrekeyId, SignedPrekey};

    fn bundle(ids: &[u32]) -> Bundle {
        let prekey = |id: &u32| Prekey { id: PrekeyId::new(*id).unwrap(), key: vec![u8::try_from(*id).unwrap(); 32] };
        Bundle {
            identity_key: vec![0xaa; 32],
            signed_prekey: SignedPrekey { id: 7, key: vec![0xbb; 32], signature: vec![0xcc; 64] },
            prekeys: ids.iter().map(prekey).collect(),
        }
    }

    /// Computed by hand from docs/protocol.md, with Python's hashlib.
    #[test]
    fn the_digests_are_those_of_the_specification() {
        let device = DeviceId::new(4223).unwrap();
        assert_eq!(hex::encode(of_bundle(&bundle(&[2, 1]), device, Protocol::Omemo2)), BUNDLE);
        let labelled = Device { id: device, label: Some("phone".to_owned()), label_signature: None };
        let list = DeviceList::new(vec![labelled, Device::unlabelled(DeviceId::new(1).unwrap())]).unwrap();
        assert_eq!(hex::encode(of_list(&list, Protocol::Omemo2)), LIST);
    }

    const BUNDLE: &str = "6ebdb3e915094e9a85c64cbe0196d01dfe11a8cad7107636129e99a1fb747655";
    const LIST: &str = "4a546ce8e02972afc4598fa9a8630b0b897a901f24d0a80118258ba43a419e91";

    #[test]
    fn what_differs_has_another_digest() {
        let device = DeviceId::new(1).unwrap();
        let digest = of_bundle(&bundle(&[1, 2]), device, Protocol::Omemo2);
        assert_eq!(digest, of_bundle(&bundle(&[2, 1]), device, Protocol::Omemo2), "the order is nobody's concern");
        assert_ne!(digest, of_bundle(&bundle(&[1]), device, Protocol::Omemo2));
        assert_ne!(digest, of_bundle(&bundle(&[1, 2]), DeviceId::new(2).unwrap(), Protocol::Omemo2));
        assert_ne!(digest, of_bundle(&bundle(&[1, 2]), device, Protocol::Legacy));
        let list = |ids: &[u32]| {
            DeviceList::new(ids.iter().map(|id| Device::unlabelled(DeviceId::new(*id).unwrap())).collect()).unwrap()
        };
        assert_ne!(of_list(&list(&[1, 2]), Protocol::Omemo2), of_list(&list(&[2, 1]), Protocol::Omemo2));
        assert_ne!(of_list(&list(&[]), Protocol::Omemo2), of_list(&list(&[]), Protocol::Legacy));
    }
}
