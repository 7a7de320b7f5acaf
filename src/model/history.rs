//! The history of an owner's devices: what an entry says, and the hash that chains it to the one before.
//!
//! The bytes that are hashed are specified in docs/protocol.md ("History"), with known answers. They are version 1 for ever:
//! another encoding is another version, under another [`DOMAIN`].

use sha2::{Digest as _, Sha256};

use super::{DeviceId, DeviceList, Owner, Protocol, Timestamp};

/// What every hashed entry begins with: no other hash of this project, or of another, is taken over such bytes.
const DOMAIN: &[u8] = b"urn:multiend:0#history\0\x01";
/// What the digest of a list's labels begins with.
const LABELS_DOMAIN: &[u8] = b"urn:multiend:0#labels\0\x01";

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// How far a history has come: the index of its newest entry, from 1, and that entry's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HistoryHead {
    /// The index; 0 for a history without entries.
    pub index: u64,
    /// The hash; 32 zero bytes for a history without entries.
    pub hash: Hash,
}

impl HistoryHead {
    /// A history without entries.
    pub const START: Self = Self { index: 0, hash: [0; 32] };

    /// The head once a change has been appended.
    pub fn after(&self, owner: &Owner, at: Timestamp, protocol: Protocol, change: &HistoryChange) -> Self {
        let index = self.index.saturating_add(1);
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        update_with_length(&mut hash, owner.as_str().as_bytes());
        hash.update(index.to_be_bytes());
        hash.update(at.micros().to_be_bytes());
        hash.update(self.hash);
        hash.update([u8::try_from(protocol.code()).unwrap_or_default(), change.kind()]);
        hash.update(change.content());
        Self { index, hash: hash.finalize().into() }
    }
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryChange {
    /// The device list now in force.
    List {
        /// Its ids, in order.
        devices: Vec<DeviceId>,
        /// The digest of its labels, if any device has one.
        labels: Option<Hash>,
    },
    /// There is no device list any more.
    NoList,
    /// The identity key of a device: its first one, or a new one.
    Identity {
        /// Of which device.
        device: DeviceId,
        /// The key, in wire form.
        key: Vec<u8>,
    },
}

impl HistoryChange {
    /// What there is to say of a list in force, or of there being none.
    pub fn list(list: Option<&DeviceList>) -> Self {
        match list {
            Some(list) => Self::List { devices: list.ids().collect(), labels: labels_digest(list) },
            None => Self::NoList,
        }
    }

    /// The number that stands for the kind, in what is hashed and in the database.
    pub fn kind(&self) -> u8 {
        match self {
            Self::List { .. } => 1,
            Self::NoList => 2,
            Self::Identity { .. } => 3,
        }
    }

    /// The bytes after the kind. Numbers are big-endian.
    pub fn content(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::List { devices, labels } => {
                out.extend(u32::try_from(devices.len()).unwrap_or(u32::MAX).to_be_bytes());
                out.extend(devices.iter().flat_map(|device| device.get().to_be_bytes()));
                out.push(u8::from(labels.is_some()));
                out.extend(labels.iter().flatten());
            }
            Self::NoList => {}
            Self::Identity { device, key } => {
                out.extend(device.get().to_be_bytes());
                out.extend(u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
                out.extend(key);
            }
        }
        out
    }

    /// The change behind its bytes; `None` for bytes that [`Self::content`] does not write.
    pub fn from_content(kind: u8, content: &[u8]) -> Option<Self> {
        let change = match kind {
            1 => {
                let (count, rest) = take_number(content)?;
                let (ids, rest) = rest.split_at_checked(usize::try_from(count).ok()?.checked_mul(4)?)?;
                let device = |id| DeviceId::new(take_number(id)?.0).ok();
                let devices = ids.chunks_exact(4).map(device).collect::<Option<Vec<_>>>()?;
                let labels = match rest.split_first()? {
                    (0, []) => None,
                    (1, digest) => Some(digest.try_into().ok()?),
                    _ => return None,
                };
                Self::List { devices, labels }
            }
            2 if content.is_empty() => Self::NoList,
            3 => {
                let (device, rest) = take_number(content)?;
                let (length, key) = take_number(rest)?;
                (usize::try_from(length) == Ok(key.len())).then_some(())?;
                Self::Identity { device: DeviceId::new(device).ok()?, key: key.to_vec() }
            }
            _ => return None,
        };
        Some(change)
    }
}

/// One entry of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Its place, from 1, without gaps.
    pub index: u64,
    /// When it was appended; never earlier than the entry before.
    pub at: Timestamp,
    /// In which protocol.
    pub protocol: Protocol,
    /// What changed.
    pub change: HistoryChange,
}

/// The digest of the labels of a list and their signatures; `None` if it has neither.
fn labels_digest(list: &DeviceList) -> Option<Hash> {
    let labelled = |device: &super::Device| device.label.is_some() || device.label_signature.is_some();
    if !list.devices().iter().any(labelled) {
        return None;
    }
    let mut hash = Sha256::new();
    hash.update(LABELS_DOMAIN);
    for device in list.devices() {
        hash.update(device.id.get().to_be_bytes());
        for text in [&device.label, &device.label_signature] {
            hash.update([u8::from(text.is_some())]);
            update_with_length(&mut hash, text.as_deref().unwrap_or_default().as_bytes());
        }
    }
    Some(hash.finalize().into())
}

fn update_with_length(hash: &mut Sha256, bytes: &[u8]) {
    hash.update(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    hash.update(bytes);
}

fn take_number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change() -> impl Strategy<Value = HistoryChange> {
        let id = || (1..=i32::MAX as u32).prop_map(|id| DeviceId::new(id).unwrap());
        let labels = proptest::option::of(any::<Hash>());
        prop_oneof![
            (proptest::collection::vec(id(), 0..40), labels)
                .prop_map(|(devices, labels)| HistoryChange::List { devices, labels }),
            Just(HistoryChange::NoList),
            (id(), proptest::collection::vec(any::<u8>(), 0..40))
                .prop_map(|(device, key)| HistoryChange::Identity { device, key }),
        ]
    }

    proptest! {
        #[test]
        fn a_change_is_what_its_bytes_say(change in change()) {
            prop_assert_eq!(HistoryChange::from_content(change.kind(), &change.content()), Some(change));
        }

        /// No bytes but its own say the same: nothing of an entry can be rewritten under one hash.
        #[test]
        fn bytes_that_mean_something_are_the_only_ones_that_mean_it(
            kind in 0..5_u8,
            content in proptest::collection::vec(0..40_u8, 0..60),
        ) {
            if let Some(change) = HistoryChange::from_content(kind, &content) {
                prop_assert_eq!((change.kind(), change.content()), (kind, content));
            }
        }
    }
}
