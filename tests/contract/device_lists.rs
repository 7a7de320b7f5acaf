//! Device lists (directory invariant 6).

use multiend::model::{Device, DeviceList, Protocol, SessionJid};
use multiend::store::{ListPublished, SharedStore};

use super::database::Database;
use super::words::{OMEMO2, alice, at, device, list, session};

const LIMIT: usize = 5;

async fn publish(store: &SharedStore, resource: &str, published: &DeviceList) -> ListPublished {
    store.publish_device_list(&alice(), OMEMO2, &session(resource), published, LIMIT, at(0)).await.unwrap()
}

async fn read(store: &SharedStore, resource: Option<&str>) -> Option<DeviceList> {
    store.device_list(&alice(), OMEMO2, resource.map(session).as_ref()).await.unwrap()
}

fn accepted(ids: &[u32], changed: bool) -> ListPublished {
    ListPublished::Accepted { list: list(ids), changed }
}

pub async fn a_list_is_what_was_published(database: Database) {
    let store = database.open().await;
    assert_eq!(read(&store, Some("phone")).await, None);
    let labelled =
        Device { id: device(3), label: Some("Grüße 📱".to_owned()), label_signature: Some("c2ln".to_owned()) };
    let published = DeviceList::new(vec![labelled, Device::unlabelled(device(1))]).unwrap();
    let answer = publish(&store, "phone", &published).await;
    assert_eq!(answer, ListPublished::Accepted { list: published.clone(), changed: true });
    assert_eq!(read(&store, None).await, Some(published.clone()));
    let again = publish(&store, "phone", &published).await;
    assert_eq!(again, ListPublished::Accepted { list: published, changed: false });
    // Another label or another order is another list.
    assert_eq!(publish(&store, "phone", &list(&[3, 1])).await, accepted(&[3, 1], true));
    assert_eq!(publish(&store, "phone", &list(&[1, 3])).await, accepted(&[1, 3], true));
    // The other protocol has its own, and an empty one is not the same as none.
    assert_eq!(store.device_list(&alice(), Protocol::Legacy, None).await.unwrap(), None);
    assert_eq!(publish(&store, "phone", &list(&[])).await, accepted(&[], true));
    assert_eq!(read(&database.open().await, None).await, Some(list(&[])));
}

pub async fn a_device_that_the_session_never_saw_stays(database: Database) {
    let store = database.open().await;
    publish(&store, "phone", &list(&[1, 2])).await;
    // Published devices come first, in their order, then what is kept.
    assert_eq!(publish(&store, "laptop", &list(&[9, 2])).await, accepted(&[9, 2, 1], true));
}

pub async fn a_device_that_the_session_saw_is_removed(database: Database) {
    let store = database.open().await;
    publish(&store, "phone", &list(&[1, 2])).await;
    assert_eq!(read(&store, Some("laptop")).await, Some(list(&[1, 2])));
    publish(&store, "phone", &list(&[1, 2, 3])).await;
    // The laptop saw 1 and 2, but not 3.
    assert_eq!(publish(&store, "laptop", &list(&[4])).await, accepted(&[4, 3], true));
}

pub async fn publishing_does_not_count_as_seeing_what_was_kept(database: Database) {
    let store = database.open().await;
    publish(&store, "phone", &list(&[1])).await;
    // A client that announces itself at each start, and never reads, removes nobody.
    for _ in 0..3 {
        let ListPublished::Accepted { list: merged, .. } = publish(&store, "laptop", &list(&[2])).await else {
            panic!("refused");
        };
        assert_eq!(merged, list(&[2, 1]));
    }
    assert_eq!(read(&store, Some("laptop")).await, Some(list(&[2, 1])));
    assert_eq!(publish(&store, "laptop", &list(&[2])).await, accepted(&[2], true));
}

pub async fn only_the_owner_s_sessions_see(database: Database) {
    let store = database.open().await;
    publish(&store, "phone", &list(&[1])).await;
    // Another account's session with the same resource name.
    let stranger = SessionJid::parse("mallory@example.net/laptop").unwrap();
    store.device_list(&alice(), OMEMO2, Some(&stranger)).await.unwrap();
    assert_eq!(publish(&store, "laptop", &list(&[2])).await, accepted(&[2, 1], true));
}

pub async fn a_list_that_would_grow_too_long_is_not_stored(database: Database) {
    let store = database.open().await;
    publish(&store, "phone", &list(&[1, 2, 3])).await;
    assert_eq!(publish(&store, "laptop", &list(&[4, 5, 6])).await, ListPublished::TooManyDevices);
    assert_eq!(read(&store, None).await, Some(list(&[1, 2, 3])));
    // Nor does the refused publish count as a view: 1, 2 and 3 stay.
    assert_eq!(publish(&store, "laptop", &list(&[4, 5])).await, accepted(&[4, 5, 1, 2, 3], true));
}

pub async fn a_deleted_list_is_gone_and_unseen(database: Database) {
    let store = database.open().await;
    assert!(!store.delete_device_list(&alice(), OMEMO2, at(0)).await.unwrap());
    publish(&store, "phone", &list(&[1, 2])).await;
    assert!(store.delete_device_list(&alice(), OMEMO2, at(0)).await.unwrap());
    assert!(!store.delete_device_list(&alice(), OMEMO2, at(0)).await.unwrap());
    assert_eq!(read(&store, None).await, None);
    publish(&store, "laptop", &list(&[2])).await;
    assert_eq!(publish(&store, "phone", &list(&[1])).await, accepted(&[1, 2], true));
}

pub async fn concurrent_publishes_lose_no_device(database: Database) {
    let stores = [database.open().await, database.open().await];
    let mut publishes = tokio::task::JoinSet::new();
    for number in 1..=20_u32 {
        let store = stores[number as usize % 2].clone();
        publishes.spawn(async move {
            let session = session(&format!("r{number}"));
            store.publish_device_list(&alice(), OMEMO2, &session, &list(&[number]), 100, at(0)).await.unwrap()
        });
    }
    publishes.join_all().await;
    let mut ids: Vec<u32> = read(&stores[0], None).await.unwrap().ids().map(|id| id.get()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=20).collect::<Vec<_>>());
}

/// A session forgotten has seen nothing: what it publishes removes nobody.
pub async fn sessions_beyond_the_bound_are_forgotten(database: Database) {
    let store = database.open().await;
    publish(&store, "phone", &list(&[1])).await;
    read(&store, Some("early")).await;
    for number in 0..150 {
        read(&store, Some(&format!("r{number}"))).await;
    }
    assert_eq!(publish(&store, "early", &list(&[2])).await, accepted(&[2, 1], true));
    assert_eq!(publish(&store, "r149", &list(&[2])).await, accepted(&[2], true));
}

/// One instance answers a session with a list that another one is deleting.
pub async fn what_is_read_while_it_is_deleted_is_not_seen_of_the_next_list(database: Database) {
    let (store, other) = (database.open().await, database.open().await);
    for round in 0..150 {
        let now = at(round * 86_400);
        let publish = async |resource: &str, ids: &[u32]| {
            store.publish_device_list(&alice(), OMEMO2, &session(resource), &list(ids), 9, now).await.unwrap();
        };
        publish("laptop", &[1, 2]).await;
        let (owner, phone) = (alice(), session("phone"));
        let (read, deleted) = tokio::join!(
            other.device_list(&owner, OMEMO2, Some(&phone)),
            store.delete_device_list(&owner, OMEMO2, now)
        );
        read.unwrap();
        assert!(deleted.unwrap());
        publish("laptop", &[1, 2]).await;
        publish("phone", &[1]).await;
        let in_force = store.device_list(&alice(), OMEMO2, None).await.unwrap().unwrap();
        assert!(in_force.contains(device(2)), "round {round}: a device that the session never saw is gone");
    }
}
