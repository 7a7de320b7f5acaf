//! The longest JIDs that are taken, of a kind that no compression makes shorter: an entry of an index in PostgreSQL has at
//! most 2,704 bytes. RFC 7622 would allow 3,071; what is more than a domain may have in the DNS is refused before.

use multiend::model::{Claimant, Owner, Requester, SessionJid};
use multiend::store::{Claim, ClaimRules, DevicePlace, Edge, Filter, NodeKind, Page, PageQuery, SignOfLife, Step};

use super::database::Database;
use super::words::{OMEMO2, at, claim_by, copy, device, got, jid, list, message, plain_bundle};

/// Letters and digits that look random, the same for the same seed.
fn noise(seed: u64, length: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[(state >> 20) as usize % 36])
    };
    (0..length).map(|_| next()).collect()
}

/// A bare JID as long as one can be: a local part of 1,023 bytes, and a domain of 253, which is as much as the DNS allows.
fn bare(seed: u64) -> String {
    let labels: Vec<String> =
        [63, 63, 63, 61].into_iter().zip(seed * 100..).map(|(length, n)| noise(n, length)).collect();
    format!("{}@{}", noise(seed * 100 + 50, 1023), labels.join("."))
}

fn full(seed: u64) -> String {
    let full = format!("{}/{}", bare(seed), noise(seed * 100 + 51, 1023));
    assert_eq!(full.len(), 2301);
    full
}

pub async fn jids_of_full_length_are_kept_and_found(database: Database) {
    let longer = format!("{0}@{0}/{0}", noise(1, 1023));
    assert!(Requester::parse(&longer).is_err() && Requester::parse(&full(1).replacen('@', "x@", 1)).is_err());
    let store = database.open().await;
    let owner = Owner::parse(&bare(1)).unwrap();
    let session = SessionJid::parse(&full(1)).unwrap();
    store.publish_device_list(&owner, OMEMO2, &session, &list(&[1]), 9, at(0)).await.unwrap();
    store.device_list(&owner, OMEMO2, Some(&session)).await.unwrap();
    store.publish_bundle(&owner, OMEMO2, device(1), &session, &plain_bundle(1, 1..=3), at(0)).await.unwrap();
    assert_eq!(store.session_devices(&owner, OMEMO2, &session).await.unwrap(), [device(1)]);
    for subscriber in [jid(&full(2)), jid(&bare(2)), jid(&full(3))] {
        assert!(store.subscribe(&owner, OMEMO2, NodeKind::DeviceList, &subscriber, 9).await.unwrap());
        assert!(store.subscribe(&owner, OMEMO2, NodeKind::DeviceList, &subscriber, 9).await.unwrap());
    }
    assert_eq!(store.subscribers(&owner, OMEMO2, NodeKind::DeviceList).await.unwrap().len(), 3);
    assert!(store.unsubscribe(&owner, OMEMO2, NodeKind::DeviceList, &jid(&full(2))).await.unwrap());

    let place = DevicePlace { owner: owner.clone(), protocol: OMEMO2, device: device(1) };
    store.note_signs_of_life(&[SignOfLife { place: place.clone(), at: at(1) }]).await.unwrap();
    assert!(store.quarantine_device(&place, Step::Now, at(2)).await.unwrap());
    assert_eq!(store.owner_records(None, 9).await.unwrap()[0].owner, owner);

    // Two peers that differ in the last byte of the resource only.
    let peers = ["x", "y"].map(|end| format!("{}{end}", &full(4)[..2300]));
    for peer in &peers {
        let mut copy = copy(&peer[2300..], peer);
        copy.owner = owner.clone();
        copy.own_resource = Some(noise(9, 1023));
        store.append(&[message("hello", at(3), vec![copy])]).await.unwrap();
    }
    for peer in &peers {
        let filter = Filter { with: Some(jid(peer)), ..Filter::default() };
        let query = PageQuery { owner: owner.clone(), filter, edge: Edge::First, max: 9, max_bytes: 9_999 };
        let Page::Copies { copies, .. } = store.page(&query, at(4)).await.unwrap() else { panic!("no page") };
        let found: Vec<&str> = copies.iter().map(|copy| copy.archive_id.as_str()).collect();
        assert_eq!(found, [&peer[2300..]]);
    }
}

pub async fn requesters_of_full_length_are_told_apart(database: Database) {
    let store = database.open().await;
    let owner = Owner::parse(&bare(1)).unwrap();
    let session = SessionJid::parse(&full(1)).unwrap();
    store.publish_bundle(&owner, OMEMO2, device(1), &session, &plain_bundle(1, 1..=3), at(0)).await.unwrap();
    let mut handed = Vec::new();
    for requester in [full(5), full(6), full(5)] {
        let claimant = Claimant::Address(Requester::parse(&requester).unwrap());
        let claim = Claim { owner: owner.clone(), claimant, ..claim_by("x") };
        handed.push(format!("{:?}", got(&store.claim(&claim, &ClaimRules::default(), at(1)).await.unwrap())));
    }
    assert_eq!(handed, ["Fresh(1)", "Fresh(2)", "Repeat(1)"]);
}
