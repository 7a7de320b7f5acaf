//! Restores from a backup (directory invariant 9): what a restored database believes to be unissued is never handed out as
//! such.

use std::collections::BTreeSet;

use multiend::model::Protocol;
use multiend::store::{Claim, NoticeKind, SharedStore, Stock, StoreError, Voided};
use tokio::task::JoinSet;

use super::database::Database;
use super::words::{
    DAY, Got, OMEMO2, RULES, alice, at, claim, claim_by, device, got, list, owner, plain_bundle, publish, session,
};

async fn strict(store: &SharedStore, name: &str) -> Got {
    got(&store.claim(&Claim { strict: true, ..claim_by(name) }, &RULES, at(9)).await.unwrap())
}

pub async fn what_was_in_stock_before_a_restore_is_void(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=5)).await;
    assert_eq!(claim(&store, "bob", at(1)).await, Got::Fresh(1));
    let other = database.open().await;
    assert_eq!(store.begin_epoch(at(2)).await.unwrap().epoch, 1);
    // On every instance at once, before anything else was done.
    assert_eq!(other.stock(&alice(), OMEMO2, device(1)).await.unwrap(), Stock { unissued: 0, issued: 5 });
    assert_eq!(strict(&other, "dave").await, Got::NoPrekey);
    // The last resort begins with those that perhaps nobody has. Nor does anybody get what it had.
    assert_eq!(claim(&other, "carol", at(3)).await, Got::LastResort(2));
    assert_eq!(claim(&store, "bob", at(3)).await, Got::LastResort(3));
    assert_eq!(claim(&store, "bob", at(4)).await, Got::Repeat(3));
}

pub async fn the_first_bundle_after_a_restore_says_what_was_there_before(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=3)).await;
    // After the backup 4 was published and issued: the restored database knows nothing of it.
    store.begin_epoch(at(1)).await.unwrap();
    assert!(store.published_bundles(&alice(), OMEMO2, None, 9).await.unwrap().is_empty(), "its device is to publish");
    let first = publish(&store, &plain_bundle(1, 2..=5)).await;
    assert_eq!((first.added, first.already_issued, first.withdrawn, first.unissued), (0, 4, 1, 0));
    assert_eq!(store.published_bundles(&alice(), OMEMO2, None, 9).await.unwrap().len(), 1);
    assert_eq!(strict(&store, "dave").await, Got::NoPrekey);
    // The same again brings nothing, a new key does.
    assert_eq!(publish(&store, &plain_bundle(1, 2..=5)).await.unissued, 0);
    assert_eq!(publish(&store, &plain_bundle(1, 3..=6)).await.added, 1);
    assert_eq!(claim(&store, "carol", at(3)).await, Got::Fresh(6));
    // A second restore makes that void as well.
    publish(&store, &plain_bundle(1, 3..=7)).await;
    store.begin_epoch(at(4)).await.unwrap();
    assert!(matches!(claim(&store, "eve", at(5)).await, Got::LastResort(_)));
}

pub async fn a_device_that_the_restored_database_does_not_know_may_be_from_before(database: Database) {
    let store = database.open().await;
    store.begin_epoch(at(0)).await.unwrap();
    let month = 30 * DAY.as_secs() as i64;
    let publish = async |number: u32, second: i64| {
        let bundle = plain_bundle(1, 1..=3);
        store.publish_bundle(&alice(), OMEMO2, device(number), &session("x"), &bundle, at(second)).await.unwrap()
    };
    assert_eq!(publish(1, month - 1).await.unissued, 0);
    assert_eq!(publish(2, month).await.unissued, 3);
    // It is told what to do.
    let told = store.take_notices(9, DAY, at(month)).await.unwrap();
    assert_eq!(
        told.iter().map(|notice| (notice.device, notice.kind)).collect::<Vec<_>>(),
        [(Some(device(1)), NoticeKind::Restored)]
    );
}

pub async fn stock_is_made_void_in_batches_and_its_owners_are_told(database: Database) {
    let store = database.open().await;
    let publish = async |name: &str, protocol, number| {
        let own = multiend::model::SessionJid::parse(&format!("{name}@example.org/x")).unwrap();
        let bundle = plain_bundle(1, 1..=3);
        store.publish_bundle(&owner(name), protocol, device(number), &own, &bundle, at(0)).await.unwrap();
    };
    for (name, protocol, number) in [
        ("alice", OMEMO2, 1),
        ("alice", OMEMO2, 2),
        ("alice", Protocol::Legacy, 1),
        ("bob", OMEMO2, 1),
        ("carol", OMEMO2, 1),
    ] {
        publish(name, protocol, number).await;
    }
    assert_eq!(store.void_older(9, at(1)).await.unwrap(), Voided::default());
    store.begin_epoch(at(1)).await.unwrap();
    assert_eq!(store.devices_to_void().await.unwrap(), 5);
    // One is claimed from in between, and one is published.
    assert!(matches!(claim(&store, "dave", at(2)).await, Got::LastResort(_)));
    publish("carol", OMEMO2, 1).await;
    assert_eq!(store.devices_to_void().await.unwrap(), 3);
    assert_eq!(store.void_older(2, at(3)).await.unwrap(), Voided { devices: 2, prekeys: 6 });
    let again = database.open().await;
    assert_eq!(again.void_older(2, at(3)).await.unwrap(), Voided { devices: 1, prekeys: 3 });
    assert_eq!(again.void_older(2, at(3)).await.unwrap(), Voided::default());
    assert_eq!(again.devices_to_void().await.unwrap(), 0);
    let told: BTreeSet<_> = store
        .take_notices(99, DAY, at(4))
        .await
        .unwrap()
        .into_iter()
        // What the claims before it had to tell is not the restore's.
        .filter(|notice| notice.kind != NoticeKind::LowStock)
        .map(|notice| (notice.owner.to_string(), notice.protocol, notice.device, notice.kind))
        .collect();
    let expected = [
        ("alice", OMEMO2, Some(1)),
        ("alice", OMEMO2, Some(2)),
        ("alice", OMEMO2, None),
        ("alice", Protocol::Legacy, Some(1)),
        ("alice", Protocol::Legacy, None),
        ("bob", OMEMO2, Some(1)),
        ("bob", OMEMO2, None),
        ("carol", OMEMO2, Some(1)),
        ("carol", OMEMO2, None),
    ];
    let expected: BTreeSet<_> = expected
        .into_iter()
        .map(|(name, protocol, number)| {
            let kind = if number.is_some() { NoticeKind::Restored } else { NoticeKind::ListChanged };
            (owner(name).to_string(), protocol, number.map(device), kind)
        })
        .collect();
    assert_eq!(told, expected);
}

pub async fn a_doubted_database_hands_out_nothing_until_it_is_confirmed(database: Database) {
    let stores = [database.open().await, database.open().await];
    publish(&stores[0], &plain_bundle(1, 1..=5)).await;
    assert_eq!(claim(&stores[0], "bob", at(1)).await, Got::Fresh(1));
    stores[0].doubt().await.unwrap();
    for store in &stores {
        assert!(matches!(store.claim(&claim_by("carol"), &RULES, at(2)).await, Err(StoreError::Unconfirmed)));
        assert!(matches!(store.claim(&claim_by("bob"), &RULES, at(2)).await, Err(StoreError::Unconfirmed)));
    }
    // Everything else goes on.
    stores[1].publish_device_list(&alice(), OMEMO2, &session("x"), &list(&[1]), 9, at(2)).await.unwrap();
    publish(&stores[1], &plain_bundle(1, 1..=6)).await;
    assert_eq!(stores[1].published_bundles(&alice(), OMEMO2, None, 9).await.unwrap().len(), 1);
    assert!(database.open().await.deployment().await.unwrap().doubted);
    let confirmed = stores[1].confirm(at(3)).await.unwrap();
    assert_eq!((confirmed.doubted, confirmed.confirmed_at, confirmed.epoch), (false, Some(at(3)), 0));
    assert_eq!(claim(&stores[0], "carol", at(4)).await, Got::Fresh(2));
    stores[0].doubt().await.unwrap();
    assert!(!stores[1].begin_epoch(at(5)).await.unwrap().doubted);
    assert!(matches!(claim(&stores[0], "dave", at(6)).await, Got::LastResort(_)));
}

pub async fn the_progress_of_a_deployment_only_grows(database: Database) {
    let stores = [database.open().await, database.open().await];
    let first = stores[0].deployment().await.unwrap();
    assert_ne!(first.id, [0; 16]);
    let mut advancing = JoinSet::new();
    for number in 0..20 {
        let store = stores[number % 2].clone();
        advancing.spawn(async move { store.advance().await.unwrap().progress });
    }
    let mut all = advancing.join_all().await;
    all.sort_unstable();
    assert_eq!(all, (1..=20).map(|step| first.progress + step).collect::<Vec<_>>());
    assert_eq!(stores[0].confirm(at(0)).await.unwrap().progress, first.progress + 21);
    assert_eq!(stores[1].begin_epoch(at(0)).await.unwrap().progress, first.progress + 22);
    let sibling = database.empty_sibling().await;
    multiend::store::migrate(&sibling.url).await.unwrap();
    assert_ne!(sibling.open().await.deployment().await.unwrap().id, first.id);
}

/// Claims, publishes and the voiding at once: once the epoch has begun, nothing from before is fresh.
pub async fn an_epoch_that_begins_under_load_lets_no_older_prekey_through(database: Database) {
    let stores = [database.open().await, database.open().await];
    publish(&stores[0], &plain_bundle(1, 1..=200)).await;
    let mut claiming = JoinSet::new();
    for number in 0..8 {
        let store = stores[number % 2].clone();
        claiming.spawn(async move {
            for round in 0..10 {
                claim(&store, &format!("early{number}-{round}"), at(1)).await;
            }
        });
    }
    stores[1].begin_epoch(at(2)).await.unwrap();
    let mut later = JoinSet::new();
    for number in 0..8 {
        let store = stores[number % 2].clone();
        later.spawn(async move {
            let mut all = Vec::new();
            for round in 0..10 {
                all.push(claim(&store, &format!("late{number}-{round}"), at(3)).await);
            }
            all
        });
    }
    let voiding = async { while stores[0].void_older(1, at(3)).await.unwrap() != Voided::default() {} };
    let publishing = async {
        publish(&stores[1], &plain_bundle(1, 1..=220)).await;
        publish(&stores[1], &plain_bundle(1, 1..=230)).await;
    };
    tokio::join!(voiding, publishing);
    claiming.join_all().await;
    for got in later.join_all().await.into_iter().flatten() {
        match got {
            Got::Fresh(number) => assert!(number > 220, "{number} was there before"),
            Got::LastResort(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stores[0].directory_totals().await.unwrap().issued_twice, 0);
}
