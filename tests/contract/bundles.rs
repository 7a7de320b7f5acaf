//! Publishing and reading bundles (directory invariants 3 and 5).

use multiend::model::{DeviceId, Protocol};
use multiend::store::{BundlePublished, SharedStore, Stock};

use super::database::Database;
use super::words::{Got, OMEMO2, alice, at, bundle, claim, device, owner, plain_bundle, publish, session};

async fn stock(store: &SharedStore) -> Stock {
    store.stock(&alice(), OMEMO2, device(1)).await.unwrap()
}

pub async fn the_owner_gets_back_exactly_what_it_published(database: Database) {
    let store = database.open().await;
    assert!(store.published_bundles(&alice(), OMEMO2, None, 128).await.unwrap().is_empty());
    let one = plain_bundle(1, 1..=3);
    let mut two = plain_bundle(2, 11..=13);
    two.item_id = "ünï'\"".to_owned();
    publish(&store, &one).await;
    let other = device(i32::MAX as u32);
    store.publish_bundle(&alice(), OMEMO2, other, &session("laptop"), &two, at(0)).await.unwrap();
    // What is handed out does not change what the owner reads.
    assert_eq!(claim(&store, "bob", at(1)).await, Got::Fresh(1));
    let first = (device(1), one.item_id.clone(), one.payload.clone());
    let second = (other, two.item_id.clone(), two.payload.clone());
    let store = database.open().await;
    let read =
        async |devices: Option<&[DeviceId]>| store.published_bundles(&alice(), OMEMO2, devices, 128).await.unwrap();
    assert_eq!(read(None).await, [first.clone(), second.clone()]);
    assert_eq!(read(Some(&[other, device(7)])).await, [second]);
    assert_eq!(read(Some(&[])).await, []);
    assert_eq!(store.published_bundles(&alice(), OMEMO2, None, 1).await.unwrap(), [first]);
    // A newer bundle replaces the older one.
    let newer = plain_bundle(1, 2..=4);
    publish(&store, &newer).await;
    assert_eq!(read(Some(&[device(1)])).await, [(device(1), newer.item_id.clone(), newer.payload)]);
}

pub async fn publishing_counts_what_it_did(database: Database) {
    let store = database.open().await;
    let counts = |added, already_issued, withdrawn, unissued| BundlePublished {
        added,
        already_issued,
        withdrawn,
        identity_changed: false,
        unissued,
    };
    assert_eq!(publish(&store, &plain_bundle(1, 1..=5)).await, counts(5, 0, 0, 5));
    assert_eq!(publish(&store, &plain_bundle(1, 1..=5)).await, counts(0, 0, 0, 5));
    assert_eq!(claim(&store, "bob", at(1)).await, Got::Fresh(1));
    assert_eq!(claim(&store, "carol", at(1)).await, Got::Fresh(2));
    assert_eq!(stock(&store).await, Stock { unissued: 3, issued: 2 });
    // Keeps 1 (issued) and 3, drops 2 (issued), 4 and 5, brings 6.
    assert_eq!(publish(&store, &plain_bundle(1, [1, 3, 6])).await, counts(1, 1, 3, 2));
    assert_eq!(stock(&store).await, Stock { unissued: 2, issued: 1 });
    assert_eq!(publish(&store, &plain_bundle(1, [1, 3, 6])).await, counts(0, 1, 0, 2));
    let totals = store.directory_totals().await.unwrap();
    assert_eq!((totals.bundles, totals.issued, totals.last_resort, totals.issued_twice), (1, 2, 0, 0));
}

pub async fn a_changed_identity_is_told_and_withdraws_the_older_prekeys(database: Database) {
    let store = database.open().await;
    assert!(!publish(&store, &plain_bundle(1, 1..=3)).await.identity_changed);
    let published = publish(&store, &plain_bundle(2, 11..=12)).await;
    assert!(published.identity_changed);
    assert_eq!((published.withdrawn, published.added, published.unissued), (3, 2, 2));
    assert_eq!(claim(&store, "bob", at(1)).await, Got::Fresh(11));
    // Known beyond a retraction.
    store.retract_bundle(&alice(), OMEMO2, device(1), at(0)).await.unwrap();
    assert!(publish(&store, &plain_bundle(3, 21..=22)).await.identity_changed);
}

pub async fn a_retracted_bundle_is_gone(database: Database) {
    let store = database.open().await;
    assert!(!store.retract_bundle(&alice(), OMEMO2, device(1), at(0)).await.unwrap());
    publish(&store, &plain_bundle(1, 1..=3)).await;
    assert_eq!(claim(&store, "bob", at(1)).await, Got::Fresh(1));
    assert!(store.retract_bundle(&alice(), OMEMO2, device(1), at(0)).await.unwrap());
    assert!(!store.retract_bundle(&alice(), OMEMO2, device(1), at(0)).await.unwrap());
    assert!(store.published_bundles(&alice(), OMEMO2, None, 128).await.unwrap().is_empty());
    assert_eq!(stock(&store).await, Stock::default());
    assert_eq!(claim(&store, "bob", at(2)).await, Got::NoBundle);
    assert_eq!(claim(&store, "carol", at(2)).await, Got::NoBundle);
    assert_eq!(store.directory_totals().await.unwrap().bundles, 0);
    // The tombstone of 1 outlives the retraction.
    assert_eq!(publish(&store, &plain_bundle(1, 1..=3)).await.already_issued, 1);
    assert_eq!(claim(&store, "carol", at(3)).await, Got::Fresh(2));
}

pub async fn protocols_devices_and_owners_are_apart(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=2)).await;
    let same = plain_bundle(1, 1..=2);
    let places =
        [(alice(), OMEMO2, device(2)), (alice(), Protocol::Legacy, device(1)), (owner("al"), OMEMO2, device(1))];
    for (owner, protocol, device) in &places {
        let done = store.publish_bundle(owner, *protocol, *device, &session("x"), &same, at(0)).await.unwrap();
        assert_eq!(done.added, 2);
    }
    assert_eq!(claim(&store, "bob", at(1)).await, Got::Fresh(1));
    assert_eq!(claim(&store, "carol", at(1)).await, Got::Fresh(2));
    publish(&store, &bundle(9, &[(1, 100)])).await;
    for (owner, protocol, device) in places {
        assert_eq!(store.stock(&owner, protocol, device).await.unwrap(), Stock { unissued: 2, issued: 0 });
    }
}
