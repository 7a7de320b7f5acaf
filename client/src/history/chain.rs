//! Checking the history of an owner's devices (docs/protocol.md, "History"). Pure: no I/O, no XML, nothing of this client;
//! any client may use it as it is.
//!
//! The server hands out device lists and identity keys, and could hand out wrong ones. It keeps a hash-chained history of
//! them. Whoever has seen its head holds it to every entry up to there; and whatever the server hands out has to stand in
//! it, so that what it shows to one it has shown to all who compare heads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What every hashed entry begins with.
const DOMAIN: &[u8] = b"urn:multiend:0#history\0\x01";
/// What the digest of a list's labels begins with.
const LABELS_DOMAIN: &[u8] = b"urn:multiend:0#labels\0\x01";

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// A protocol, as entries number them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum HistoryProtocol {
    /// `eu.siacs.conversations.axolotl`
    Legacy = 1,
    /// `urn:xmpp:omemo:2`
    Omemo2 = 2,
}

/// How far a history has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Head {
    /// The index of the newest entry, from 1; 0 without one.
    pub index: u64,
    /// Its hash; zeros without one.
    pub hash: Hash,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The device list in force from then on.
    List {
        /// Its ids, in order.
        devices: Vec<u32>,
        /// The digest of its labels ([`labels_digest`]), if it has any.
        labels: Option<Hash>,
    },
    /// From then on there was no list.
    NoList,
    /// The identity key of a device from then on.
    Identity {
        /// Which device.
        device: u32,
        /// The key, in wire form.
        key: Vec<u8>,
    },
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place, from 1, without gaps.
    pub index: u64,
    /// When it was appended, in microseconds since 1970.
    pub at: i64,
    /// In which protocol.
    pub protocol: HistoryProtocol,
    /// What changed.
    pub change: Change,
}

/// Why entries do not continue a history, or what was handed out does not stand in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Deceit {
    /// An entry is missing, or stands twice.
    #[error("entry {found} came where entry {expected} belongs")]
    Gap {
        /// Which one was due.
        expected: u64,
        /// Which one came.
        found: u64,
    },
    /// An entry is older than the one before.
    #[error("entry {0} is older than the entry before it")]
    Time(u64),
    /// The entries do not lead to the head that the server names.
    #[error("the entries up to {0} do not lead to the head that was named")]
    Head(u64),
    /// The server no longer knows the head that it named earlier.
    #[error("the history that was shown up to entry {0} is no longer there")]
    NotOnChain(u64),
    /// A list was handed out that the history does not have.
    #[error("the device list that was handed out does not stand in the history")]
    SilentList,
    /// An identity key was handed out that the history does not have.
    #[error("the identity key of device {0} that was handed out does not stand in the history")]
    SilentIdentity(u32),
}

impl Head {
    /// The head after one more entry. `owner` is the account's bare JID, normalised (RFC 7622).
    pub fn after(&self, owner: &str, entry: &Entry) -> Self {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        update_with_length(&mut hash, owner.as_bytes());
        hash.update(entry.index.to_be_bytes());
        hash.update(entry.at.to_be_bytes());
        hash.update(self.hash);
        hash.update([entry.protocol as u8]);
        match &entry.change {
            Change::List { devices, labels } => {
                hash.update([1]);
                hash.update(length(devices.len()));
                devices.iter().for_each(|device| hash.update(device.to_be_bytes()));
                hash.update([u8::from(labels.is_some())]);
                labels.iter().for_each(|labels| hash.update(labels));
            }
            Change::NoList => hash.update([2]),
            Change::Identity { device, key } => {
                hash.update([3]);
                hash.update(device.to_be_bytes());
                update_with_length(&mut hash, key);
            }
        }
        Self { index: entry.index, hash: hash.finalize().into() }
    }
}

/// The digest of a list's labels: of each device in order its id, label, and label signature as they stand in the list.
/// `None` if there is neither on any device.
pub fn labels_digest<'a>(devices: impl IntoIterator<Item = (u32, Option<&'a str>, Option<&'a str>)>) -> Option<Hash> {
    let mut hash = Sha256::new();
    hash.update(LABELS_DOMAIN);
    let mut any = false;
    for (device, label, signature) in devices {
        hash.update(device.to_be_bytes());
        for text in [label, signature] {
            any |= text.is_some();
            hash.update([u8::from(text.is_some())]);
            update_with_length(&mut hash, text.unwrap_or_default().as_bytes());
        }
    }
    any.then(|| hash.finalize().into())
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

fn update_with_length(hash: &mut Sha256, bytes: &[u8]) {
    hash.update(length(bytes.len()));
    hash.update(bytes);
}

/// What is known of one owner's history: the head, and what stands there of lists and keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger {
    head: Head,
    at: i64,
    lists: BTreeMap<HistoryProtocol, Vec<u32>>,
    identities: Vec<(HistoryProtocol, u32, Vec<u8>)>,
}

impl Ledger {
    /// How far the history is known.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Takes in entries that a server says follow, with the head that it names. If one is wrong, nothing is taken in.
    ///
    /// Without error the history is known up to the last of them; if that is not yet the named head, more are to be asked
    /// for.
    pub fn extend(&mut self, owner: &str, entries: &[Entry], named: &Head) -> Result<(), Deceit> {
        let mut next = self.clone();
        for entry in entries {
            let expected = next.head.index.saturating_add(1);
            if entry.index != expected {
                return Err(Deceit::Gap { expected, found: entry.index });
            }
            if entry.at < next.at && next.head.index > 0 {
                return Err(Deceit::Time(entry.index));
            }
            next.head = next.head.after(owner, entry);
            next.at = entry.at;
            next.note(entry);
        }
        if next.head.index > named.index || (next.head.index == named.index && next.head != *named) {
            return Err(Deceit::Head(next.head.index));
        }
        // A page that brings nothing although there is more is no answer.
        if entries.is_empty() && next.head != *named {
            return Err(Deceit::Head(named.index));
        }
        *self = next;
        Ok(())
    }

    fn note(&mut self, entry: &Entry) {
        match &entry.change {
            Change::List { devices, .. } => {
                self.lists.insert(entry.protocol, devices.clone());
            }
            Change::NoList => {
                self.lists.remove(&entry.protocol);
            }
            Change::Identity { device, key } => {
                self.identities.retain(|(protocol, other, _)| (protocol, other) != (&entry.protocol, device));
                self.identities.push((entry.protocol, *device, key.clone()));
            }
        }
    }

    /// Holds a device list that was handed out (`None`: the answer that there is none) to the history, which must be known
    /// to its end.
    pub fn check_list(&self, protocol: HistoryProtocol, devices: Option<&[u32]>) -> Result<(), Deceit> {
        if self.lists.get(&protocol).map(Vec::as_slice) == devices { Ok(()) } else { Err(Deceit::SilentList) }
    }

    /// Holds an identity key that was handed out to the history, which must be known to its end.
    pub fn check_identity(&self, protocol: HistoryProtocol, device: u32, key: &[u8]) -> Result<(), Deceit> {
        let known = self.identities.iter().find(|(of, other, _)| (*of, *other) == (protocol, device));
        match known {
            Some((_, _, known)) if known == key => Ok(()),
            _ => Err(Deceit::SilentIdentity(device)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests;
