//! What leaves an archive before it expires (DESIGN, archive invariant 5): what is beyond the number of copies that the
//! operator keeps of a class, and, where the operator wants it, what every listed device of the owner has read.
//!
//! That a device has read something is what it said itself, or what follows from how it pages ([`super::read`]); one that
//! never said anything holds everything back. Of an OMEMO message without payload only the devices that it has a header for
//! must have read it: to all others it says nothing.

use std::collections::BTreeMap;

use super::view::headers_for;
use crate::model::{Class, Owner, ProtocolDevice, StoredCopy, Timestamp};
use crate::stanza::tree::Element;
use crate::store::{Cursor, SharedStore, StoreError};

/// Places looked at in one statement.
const SKIMMED: u32 = 2_000;
/// Copies taken out in one transaction.
const RETIRED: usize = 200;
/// Bytes of messages looked into at once.
const LOOKED_INTO: usize = 1024 * 1024;

/// What the operator keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Most copies in one archive, by class; a class that is not here has no bound.
    pub most: BTreeMap<Class, u64>,
    /// Classes of which a copy goes once it has been read.
    pub once_read: Vec<Class>,
}

impl Limits {
    /// Whether there is nothing that they would take out of any archive.
    pub fn is_empty(&self) -> bool {
        self.most.is_empty() && self.once_read.is_empty()
    }
}

/// What was taken out of one archive, or of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retired {
    /// Beyond the number kept.
    pub surplus: u64,
    /// Read by all whom they concerned.
    pub read: u64,
}

/// Takes everything out of one archive that the limits do not keep.
pub async fn retire(
    store: &SharedStore,
    owner: &Owner,
    limits: &Limits,
    now: Timestamp,
) -> Result<Retired, StoreError> {
    let readers = if limits.once_read.is_empty() { Vec::new() } else { listed(store, owner).await? };
    let (mut before, mut counted) = (i64::MAX, BTreeMap::<Class, u64>::new());
    let mut retired = Retired::default();
    loop {
        let part = store.skim(owner, before, SKIMMED, now).await?;
        let (mut surplus, mut read, mut to_look_into) = (Vec::new(), Vec::new(), Vec::new());
        for copy in part.live {
            let count = counted.entry(copy.class).or_default();
            if limits.most.get(&copy.class).is_some_and(|most| *count >= *most) {
                surplus.push(copy.sequence);
                continue;
            }
            if !limits.once_read.contains(&copy.class) || readers.is_empty() {
                *count = count.saturating_add(1);
            } else if Concerned::All.have_read(&readers, copy.sequence) {
                read.push(copy.sequence);
            } else {
                *count = count.saturating_add(1);
                if copy.class == Class::KeyTransport && readers.iter().any(|reader| reader.is_past(copy.sequence)) {
                    to_look_into.push(copy.sequence);
                }
            }
        }
        read.extend(read_by_their_targets(store, owner, &readers, &to_look_into, now).await?);
        retired.surplus = retired.surplus.saturating_add(take_out(store, owner, &surplus, now).await?);
        retired.read = retired.read.saturating_add(take_out(store, owner, &read, now).await?);
        match part.next {
            Some(next) => before = next,
            None => return Ok(retired),
        }
    }
}

async fn take_out(store: &SharedStore, owner: &Owner, sequences: &[i64], now: Timestamp) -> Result<u64, StoreError> {
    let mut gone = 0_u64;
    for some in sequences.chunks(RETIRED) {
        gone = gone.saturating_add(store.retire(owner, some, now).await?);
    }
    Ok(gone)
}

/// A listed device, and how far it has read.
#[derive(Debug, Clone, Copy)]
struct Reader {
    device: ProtocolDevice,
    read: Option<i64>,
}

impl Reader {
    fn of(cursor: &Cursor) -> Self {
        Self { device: cursor.device, read: cursor.read.map(|(sequence, _)| sequence) }
    }

    fn is_past(&self, sequence: i64) -> bool {
        self.read.is_some_and(|read| read >= sequence)
    }
}

async fn listed(store: &SharedStore, owner: &Owner) -> Result<Vec<Reader>, StoreError> {
    Ok(store.cursors(owner).await?.iter().filter(|cursor| cursor.listed).map(Reader::of).collect())
}

/// Whom a message concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Concerned {
    /// Every device.
    All,
    /// These.
    Some(Vec<ProtocolDevice>),
}

impl Concerned {
    /// Whether all whom it concerns, as far as they are listed, have read it. Where none of them is listed, all must have.
    fn have_read(&self, readers: &[Reader], sequence: i64) -> bool {
        let concerned = |reader: &&Reader| match self {
            Self::All => true,
            Self::Some(devices) => devices.contains(&reader.device),
        };
        let mut some = readers.iter().filter(concerned).peekable();
        if some.peek().is_none() {
            return readers.iter().all(|reader| reader.is_past(sequence));
        }
        some.all(|reader| reader.is_past(sequence))
    }
}

/// Those of key-transport messages that all devices which they are for have read.
async fn read_by_their_targets(
    store: &SharedStore,
    owner: &Owner,
    readers: &[Reader],
    sequences: &[i64],
    now: Timestamp,
) -> Result<Vec<i64>, StoreError> {
    let (mut read, mut left) = (Vec::new(), sequences);
    while !left.is_empty() {
        let copies = store.copies_at(owner, left, LOOKED_INTO, now).await?;
        let Some(last) = copies.last().map(|copy| copy.sequence) else { break };
        for copy in &copies {
            if targets(owner, copy).have_read(readers, copy.sequence) {
                read.push(copy.sequence);
            }
        }
        let done = left.iter().position(|sequence| *sequence == last).unwrap_or(left.len());
        left = left.get(done.saturating_add(1)..).unwrap_or_default();
    }
    Ok(read)
}

fn targets(owner: &Owner, copy: &StoredCopy) -> Concerned {
    let message = copy.body.as_deref().and_then(|body| Element::parse(body).ok());
    let devices = message.and_then(|message| headers_for(&message, owner));
    devices.map_or(Concerned::All, Concerned::Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DeviceId, Protocol};

    fn device(protocol: Protocol, id: u32) -> ProtocolDevice {
        ProtocolDevice { protocol, device: DeviceId::new(id).unwrap() }
    }

    fn reader(id: u32, read: Option<i64>) -> Reader {
        Reader { device: device(Protocol::Omemo2, id), read }
    }

    #[test]
    fn who_never_said_anything_holds_back_what_concerns_it() {
        let readers = [reader(1, Some(7)), reader(2, Some(5)), reader(3, None)];
        assert!(!Concerned::All.have_read(&readers, 1));
        assert!(Concerned::All.have_read(&readers[..2], 5) && !Concerned::All.have_read(&readers[..2], 6));
        let first_two = Concerned::Some(vec![device(Protocol::Omemo2, 1), device(Protocol::Omemo2, 2)]);
        assert!(first_two.have_read(&readers, 5) && !first_two.have_read(&readers, 6));
        // A device that is not listed is not waited for; a device of the other protocol with the same number is another one.
        let gone = Concerned::Some(vec![device(Protocol::Omemo2, 1), device(Protocol::Omemo2, 9)]);
        assert!(gone.have_read(&readers, 7));
        let nobody = Concerned::Some(vec![device(Protocol::Legacy, 1)]);
        assert!(!nobody.have_read(&readers, 1) && nobody.have_read(&readers[..2], 5));
    }

    #[test]
    fn a_message_without_payload_concerns_the_owner_s_devices_that_it_has_headers_for() {
        let owner = Owner::parse("alice@example.org").unwrap();
        let of = |body: &str| headers_for(&Element::parse(body.as_bytes()).unwrap(), &owner);
        let omemo2 = "<message><encrypted xmlns='urn:xmpp:omemo:2'><header sid='9'><keys jid='alice@example.org'>\
            <key rid='1'>QQ==</key></keys><keys jid='bob@example.org'><key rid='2'>QQ==</key></keys></header></encrypted></message>";
        assert_eq!(of(omemo2), Some(vec![device(Protocol::Omemo2, 1)]));
        let legacy = "<message><encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='9'><key rid='3'>QQ==</key>\
            <key rid='4'>QQ==</key></header></encrypted></message>";
        assert_eq!(of(legacy), Some(vec![device(Protocol::Legacy, 3), device(Protocol::Legacy, 4)]));
        // Something in the place of a header may be for anybody.
        assert_eq!(of(&omemo2.replace("<keys jid='bob", "<keys jid='alice@example.org'>x</keys><keys jid='bob")), None);
        assert_eq!(of("<message><body>b</body></message>"), None);
    }
}
