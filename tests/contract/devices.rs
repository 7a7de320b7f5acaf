//! One device at a time (directory invariant 6, and what a device is told of its own prekeys).

use multiend::model::{Device, DeviceList, PrekeyId};
use multiend::store::{ListPublished, PrekeyState, SharedStore};
use tokio::task::JoinSet;

use super::database::Database;
use super::words::{DAY, OMEMO2, alice, at, claim, device, list, owner, plain_bundle, publish, session};

const LIMIT: usize = 5;

async fn add(store: &SharedStore, resource: &str, number: u32) -> ListPublished {
    let device = Device::unlabelled(device(number));
    store.add_device(&alice(), OMEMO2, &session(resource), &device, LIMIT, at(0)).await.unwrap()
}

async fn remove(store: &SharedStore, resource: &str, number: u32) -> (Option<DeviceList>, bool, bool) {
    let removed = store.remove_device(&alice(), OMEMO2, &session(resource), device(number), at(0)).await.unwrap();
    (removed.list, removed.was_listed, removed.had_bundle)
}

async fn publish_list(store: &SharedStore, resource: &str, ids: &[u32]) -> ListPublished {
    store.publish_device_list(&alice(), OMEMO2, &session(resource), &list(ids), LIMIT, at(0)).await.unwrap()
}

fn accepted(ids: &[u32], changed: bool) -> ListPublished {
    ListPublished::Accepted { list: list(ids), changed }
}

pub async fn one_device_is_added_relabelled_and_removed(database: Database) {
    let store = database.open().await;
    assert_eq!(add(&store, "phone", 7).await, accepted(&[7], true));
    assert_eq!(add(&store, "laptop", 3).await, accepted(&[7, 3], true));
    assert_eq!(add(&store, "phone", 7).await, accepted(&[7, 3], false), "once more changes nothing");
    let labelled = Device { id: device(7), label: Some("phone".to_owned()), label_signature: Some("c2ln".to_owned()) };
    let relabelled = store.add_device(&alice(), OMEMO2, &session("phone"), &labelled, LIMIT, at(0)).await.unwrap();
    let ListPublished::Accepted { list: in_force, changed: true } = relabelled else { panic!("{relabelled:?}") };
    assert_eq!(in_force.devices(), [labelled, Device::unlabelled(device(3))], "it keeps its place");
    assert_eq!(store.device_list(&alice(), OMEMO2, None).await.unwrap(), Some(in_force));

    publish(&store, &plain_bundle(1, 1..=2)).await;
    assert_eq!(remove(&store, "phone", 7).await, (Some(list(&[3])), true, false));
    assert_eq!(remove(&store, "phone", 7).await, (Some(list(&[3])), false, false));
    assert_eq!(remove(&store, "phone", 1).await, (Some(list(&[3])), false, true), "a bundle without a place goes, too");
    assert!(store.bundle_items(&alice(), OMEMO2, 9).await.unwrap().is_empty());
    let stranger = store.remove_device(&owner("nobody"), OMEMO2, &session("x"), device(1), at(0)).await.unwrap();
    assert_eq!((stranger.list, stranger.was_listed), (None, false));
}

pub async fn a_list_takes_no_device_beyond_the_limit(database: Database) {
    let store = database.open().await;
    for number in 1..=5 {
        add(&store, "phone", number).await;
    }
    assert_eq!(add(&store, "phone", 6).await, ListPublished::TooManyDevices);
    assert_eq!(add(&store, "phone", 5).await, accepted(&[1, 2, 3, 4, 5], false), "a listed one needs no room");
    remove(&store, "phone", 2).await;
    assert_eq!(add(&store, "phone", 6).await, accepted(&[1, 3, 4, 5, 6], true));
}

/// What was added in this way the session has seen, and nothing else: a later list without it means to remove it.
pub async fn adding_is_seeing_that_device_and_no_other(database: Database) {
    let store = database.open().await;
    add(&store, "phone", 1).await;
    add(&store, "laptop", 2).await;
    assert_eq!(publish_list(&store, "laptop", &[3]).await, accepted(&[3, 1], true), "it never saw 1, and took 2 back");
    // A device that this session removed and that comes back by itself is new to it.
    assert_eq!(remove(&store, "laptop", 3).await.0, Some(list(&[1])));
    add(&store, "tablet", 3).await;
    assert_eq!(publish_list(&store, "laptop", &[2]).await, accepted(&[2, 1, 3], true));
}

pub async fn ten_devices_add_themselves_while_two_are_removed(database: Database) {
    let stores = [database.open().await, database.open().await];
    let limit = 100;
    publish_list(&stores[0], "old", &[91, 92]).await;
    let mut running = JoinSet::new();
    for number in 1..=10_u32 {
        let store = stores[number as usize % 2].clone();
        running.spawn(async move {
            let device = Device::unlabelled(device(number));
            let session = session(&format!("r{number}"));
            store.add_device(&alice(), OMEMO2, &session, &device, limit, at(0)).await.unwrap();
        });
    }
    for number in [91, 92] {
        let store = stores[number as usize % 2].clone();
        running.spawn(async move {
            store.remove_device(&alice(), OMEMO2, &session("old"), device(number), at(0)).await.unwrap();
        });
    }
    // And others publish whole lists of what they know.
    for number in 11..=14_u32 {
        let store = stores[number as usize % 2].clone();
        running.spawn(async move {
            let session = session(&format!("p{number}"));
            store.publish_device_list(&alice(), OMEMO2, &session, &list(&[number]), limit, at(0)).await.unwrap();
        });
    }
    running.join_all().await;
    let in_force = stores[0].device_list(&alice(), OMEMO2, None).await.unwrap().unwrap();
    let mut ids: Vec<u32> = in_force.ids().map(|id| id.get()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=14).collect::<Vec<_>>(), "all additions survive, and both removals");
}

pub async fn a_device_is_told_what_became_of_its_prekeys(database: Database) {
    let store = database.open().await;
    let states = async |others: &[u32]| {
        let others: Vec<PrekeyId> = others.iter().map(|id| PrekeyId::new(*id).unwrap()).collect();
        let states = store.prekey_states(&alice(), OMEMO2, device(1), &others).await.unwrap();
        states.map(|states| states.into_iter().map(|(id, state)| (id.get(), state)).collect::<Vec<_>>())
    };
    assert_eq!(states(&[]).await, None);
    publish(&store, &plain_bundle(1, [5, 4, 3])).await;
    use PrekeyState::{Consumed, Issued, Unissued};
    assert_eq!(states(&[]).await.unwrap(), [(5, Unissued), (4, Unissued), (3, Unissued)], "in the order of the queue");
    claim(&store, "bob", at(0)).await;
    claim(&store, "carol", at(0)).await;
    database.execute("UPDATE prekey SET consumed_at = 1 WHERE prekey_id = 4").await;
    assert_eq!(states(&[]).await.unwrap(), [(3, Unissued), (4, Consumed), (5, Issued)]);
    // A bundle that has neither 4 nor 5 any more; 3 goes without ever having been issued.
    publish(&store, &plain_bundle(1, [6])).await;
    assert_eq!(states(&[]).await.unwrap(), [(6, Unissued)]);
    assert_eq!(states(&[3, 4, 5, 6, 7]).await.unwrap(), [(6, Unissued), (4, Consumed), (5, Issued)]);
    store.retract_bundle(&alice(), OMEMO2, device(1), at(0)).await.unwrap();
    assert_eq!(states(&[4]).await, None);
}

pub async fn bundles_and_sessions_are_found_by_device(database: Database) {
    let store = database.open().await;
    assert!(store.bundle_items(&alice(), OMEMO2, 9).await.unwrap().is_empty());
    for number in [3, 1, 2] {
        store
            .publish_bundle(&alice(), OMEMO2, device(number), &session("phone"), &plain_bundle(1, [number]), at(0))
            .await
            .unwrap();
    }
    let items = store.bundle_items(&alice(), OMEMO2, 2).await.unwrap();
    assert_eq!(items, [(device(1), "current".to_owned()), (device(2), "current".to_owned())]);
    let late = at(0).plus(DAY).plus(DAY);
    store.learn_session(&alice(), OMEMO2, &session("laptop"), device(1), late).await.unwrap();
    let sessions = store.device_sessions(&alice(), OMEMO2, device(1), 9).await.unwrap();
    assert_eq!(sessions, [session("laptop"), session("phone")], "the latest first");
    assert_eq!(store.device_sessions(&alice(), OMEMO2, device(1), 1).await.unwrap(), [session("laptop")]);
    assert!(store.device_sessions(&alice(), OMEMO2, device(9), 9).await.unwrap().is_empty());
}
