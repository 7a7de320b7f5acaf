//! Short ways to say owners, bundles, claims and messages.

use std::time::Duration;

use bytes::Bytes;
use jid::Jid;
use multiend::model::{
    ArchiveId, ArchivedMessage, Bundle, Claimant, Class, Copy, Device, DeviceId, DeviceList, Direction, Owner, Prekey,
    PrekeyId, Protocol, PublishedBundle, Requester, SessionJid, SignedPrekey, Timestamp,
};
use multiend::store::{Claim, ClaimKind, ClaimLimit, ClaimOutcome, ClaimRules, SharedStore};

pub const DAY: Duration = Duration::from_secs(24 * 3600);
pub const OMEMO2: Protocol = Protocol::Omemo2;

/// Without limits, so that each test sets those that it is about.
pub const RULES: ClaimRules = ClaimRules {
    repeat_window: DAY,
    per_device: u32::MAX,
    per_requester: u32::MAX,
    per_domain: u32::MAX,
    reserve: 0,
    reserve_per_hour: 0,
    low_stock: 0,
};

/// So many seconds after some moment in 2026.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros((1_780_000_000 + seconds) * 1_000_000)
}

pub fn alice() -> Owner {
    owner("alice")
}

pub fn owner(name: &str) -> Owner {
    Owner::parse(&format!("{name}@example.org")).unwrap()
}

pub fn session(resource: &str) -> SessionJid {
    SessionJid::parse(&format!("alice@example.org/{resource}")).unwrap()
}

pub fn requester(name: &str) -> Requester {
    Requester::parse(&format!("{name}@example.net/phone")).unwrap()
}

pub fn device(id: u32) -> DeviceId {
    DeviceId::new(id).unwrap()
}

pub fn list(ids: &[u32]) -> DeviceList {
    DeviceList::new(ids.iter().map(|id| Device::unlabelled(device(*id))).collect()).unwrap()
}

/// The key that a number stands for.
pub fn key(number: u32) -> Vec<u8> {
    let mut key = vec![7; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    key
}

/// A bundle with an identity and, for each (id, key number), a prekey. Its payload names the keys and is not valid UTF-8.
pub fn bundle(identity: u8, prekeys: &[(u32, u32)]) -> PublishedBundle {
    let prekey = |(id, number): &(u32, u32)| Prekey { id: PrekeyId::new(*id).unwrap(), key: key(*number) };
    let mut payload = format!("<bundle n='{identity}'>{prekeys:?}</bundle>").into_bytes();
    payload.extend([0, 0xff, 0xfe]);
    PublishedBundle {
        bundle: Bundle {
            identity_key: vec![identity; 32],
            signed_prekey: SignedPrekey { id: 0, key: vec![identity ^ 0x55; 32], signature: vec![identity; 64] },
            prekeys: prekeys.iter().map(prekey).collect(),
        },
        item_id: "current".to_owned(),
        payload: Bytes::from(payload),
    }
}

/// A bundle whose prekeys have the same number as id and as key.
pub fn plain_bundle(identity: u8, numbers: impl IntoIterator<Item = u32>) -> PublishedBundle {
    bundle(identity, &numbers.into_iter().map(|number| (number, number)).collect::<Vec<_>>())
}

/// Alice's omemo2 device 1.
pub fn claim_by(name: &str) -> Claim {
    Claim {
        owner: alice(),
        protocol: OMEMO2,
        device: device(1),
        claimant: Claimant::Address(requester(name)),
        foreign: true,
        strict: false,
    }
}

/// What a claim gave: how, and which key number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    Fresh(u32),
    Repeat(u32),
    LastResort(u32),
    NoBundle,
    NoPrekey,
    Limited(ClaimLimit),
}

pub fn got(outcome: &ClaimOutcome) -> Got {
    match outcome {
        ClaimOutcome::Handed { prekey, kind, .. } => {
            let number = u32::from_be_bytes(prekey.key[..4].try_into().unwrap());
            match kind {
                ClaimKind::Fresh => Got::Fresh(number),
                ClaimKind::Repeat => Got::Repeat(number),
                ClaimKind::LastResort => Got::LastResort(number),
            }
        }
        ClaimOutcome::NoBundle => Got::NoBundle,
        ClaimOutcome::NoPrekey => Got::NoPrekey,
        ClaimOutcome::Limited(limit) => Got::Limited(*limit),
    }
}

/// Claims from alice's device 1.
pub async fn claim(store: &SharedStore, name: &str, now: Timestamp) -> Got {
    got(&store.claim(&claim_by(name), &RULES, now).await.unwrap())
}

/// Publishes alice's device 1.
pub async fn publish(store: &SharedStore, published: &PublishedBundle) -> multiend::store::BundlePublished {
    store.publish_bundle(&alice(), OMEMO2, device(1), &session("phone"), published, at(0)).await.unwrap()
}

pub fn id(text: impl ToString) -> ArchiveId {
    ArchiveId::parse(&text.to_string()).unwrap()
}

pub fn jid(text: &str) -> Jid {
    Jid::new(text).unwrap()
}

/// A copy that alice received from a peer and that never expires.
pub fn copy(archive_id: impl ToString, peer: &str) -> Copy {
    Copy {
        owner: alice(),
        archive_id: id(archive_id),
        direction: Direction::Received,
        peer: jid(peer),
        own_resource: None,
        expires_at: None,
    }
}

/// A message with one body for its copies.
pub fn message(body: &str, sent: Timestamp, copies: Vec<Copy>) -> ArchivedMessage {
    ArchivedMessage {
        class: Class::Content,
        at: sent,
        body: Bytes::from(body.to_owned()),
        origin: None,
        retracts: None,
        copies,
        key_exchanges: Vec::new(),
    }
}
