//! Accounts, sessions and subscriptions.

use multiend::model::Protocol;
use multiend::store::NodeKind;

use super::database::Database;
use super::words::{OMEMO2, alice, at, copy, device, jid, list, message, owner, plain_bundle, publish, session};

pub async fn an_account_is_known_once_registered(database: Database) {
    let store = database.open().await;
    assert!(!store.account_exists(&alice()).await.unwrap());
    for _ in 0..2 {
        store.register_account(&alice(), at(0)).await.unwrap();
        assert!(store.account_exists(&alice()).await.unwrap());
    }
    // Whatever an owner does makes it known; what others do with it does not.
    store.publish_device_list(&owner("l"), OMEMO2, &session("x"), &list(&[1]), 9, at(0)).await.unwrap();
    store.publish_bundle(&owner("b"), OMEMO2, device(1), &session("x"), &plain_bundle(1, [1]), at(0)).await.unwrap();
    let mut archived = copy("x", "bob@example.net");
    archived.owner = owner("m");
    store.append(&[message("", at(0), vec![archived])]).await.unwrap();
    for name in ["l", "b", "m"] {
        assert!(store.account_exists(&owner(name)).await.unwrap(), "{name}");
    }
    assert!(!store.subscribe(&owner("s"), OMEMO2, NodeKind::Bundles, &jid("a@b/c"), 9).await.unwrap());
    store.device_list(&owner("s"), OMEMO2, Some(&session("x"))).await.unwrap();
    assert!(!store.account_exists(&owner("s")).await.unwrap());
}

pub async fn a_session_is_every_device_it_was_seen_to_be(database: Database) {
    let store = database.open().await;
    let devices = async |protocol, resource| {
        let devices = store.session_devices(&alice(), protocol, &session(resource)).await.unwrap();
        devices.into_iter().map(|device| device.get()).collect::<Vec<_>>()
    };
    assert!(devices(OMEMO2, "phone").await.is_empty());
    publish(&store, &plain_bundle(1, [1])).await;
    assert_eq!(devices(OMEMO2, "phone").await, [1]);
    for (second, number) in [(1, 5), (2, 5), (3, 3)] {
        store.learn_session(&alice(), OMEMO2, &session("phone"), device(number), at(second)).await.unwrap();
    }
    assert_eq!(devices(OMEMO2, "phone").await, [1, 3, 5]);
    assert!(devices(Protocol::Legacy, "phone").await.is_empty());
    assert!(devices(OMEMO2, "laptop").await.is_empty());
    // Those longest unseen make room.
    for number in 10..110 {
        let resource = session(&format!("r{number}"));
        store.learn_session(&alice(), OMEMO2, &resource, device(number), at(i64::from(number))).await.unwrap();
    }
    assert!(devices(OMEMO2, "phone").await.is_empty());
    assert_eq!(devices(OMEMO2, "r10").await, [10]);
}

pub async fn subscriptions_are_kept_up_to_the_limit(database: Database) {
    let store = database.open().await;
    store.register_account(&alice(), at(0)).await.unwrap();
    let node = NodeKind::DeviceList;
    let subscribe = async |subscriber| store.subscribe(&alice(), OMEMO2, node, &jid(subscriber), 2).await.unwrap();
    assert!(subscribe("bob@example.net").await);
    assert!(subscribe("carol@example.net/phone").await);
    assert!(!subscribe("dave@example.net").await);
    assert!(subscribe("bob@example.net").await, "again is no error, full or not");
    let all = store.subscribers(&alice(), OMEMO2, node).await.unwrap();
    assert_eq!(all, [jid("bob@example.net"), jid("carol@example.net/phone")]);
    assert!(store.subscribers(&alice(), OMEMO2, NodeKind::Bundles).await.unwrap().is_empty());
    assert!(store.subscribers(&alice(), Protocol::Legacy, node).await.unwrap().is_empty());
    assert!(store.subscribers(&owner("nobody"), OMEMO2, node).await.unwrap().is_empty());
    assert!(store.unsubscribe(&alice(), OMEMO2, node, &jid("bob@example.net")).await.unwrap());
    assert!(!store.unsubscribe(&alice(), OMEMO2, node, &jid("bob@example.net")).await.unwrap());
    assert!(subscribe("dave@example.net").await);
}
