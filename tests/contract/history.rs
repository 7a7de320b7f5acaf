//! Histories: every change in its place, whoever makes it, and nothing lost when changes come at once.

use multiend::model::{Device, DeviceList, HistoryChange, HistoryEntry, HistoryHead, Owner, Protocol};
use multiend::store::{CHANGES_A_DAY, HistoryRead, SharedStore, StoreError};
use tokio::task::JoinSet;

use super::database::Database;
use super::words::{OMEMO2, alice, at, device, list, owner, plain_bundle, publish, session};

/// All of a history, page by page, with each entry hashed: what comes out is the head that the store names.
pub async fn read_all(store: &SharedStore, owner: &Owner) -> (HistoryHead, Vec<HistoryEntry>) {
    let mut known = HistoryHead::START;
    let mut all = Vec::new();
    loop {
        let HistoryRead::Entries { head, entries } = store.history(owner, &known, 2, at(900)).await.unwrap() else {
            panic!("{known:?} is not on the chain");
        };
        if entries.is_empty() {
            assert_eq!(known, head);
            return (head, all);
        }
        for entry in entries {
            assert_eq!(entry.index, known.index + 1);
            assert!(all.last().is_none_or(|before: &HistoryEntry| before.at <= entry.at));
            known = known.after(owner, entry.at, entry.protocol, &entry.change);
            all.push(entry);
        }
    }
}

fn ids(ids: &[u32]) -> HistoryChange {
    HistoryChange::list(Some(&list(ids)))
}

fn identity(number: u32, key: u8) -> HistoryChange {
    HistoryChange::Identity { device: device(number), key: vec![key; 32] }
}

async fn changes(store: &SharedStore) -> Vec<HistoryChange> {
    read_all(store, &alice()).await.1.into_iter().map(|entry| entry.change).collect()
}

pub async fn each_change_is_one_entry_and_what_changes_nothing_is_none(database: Database) {
    let store = database.open().await;
    assert_eq!(read_all(&store, &alice()).await, (HistoryHead::START, vec![]));
    let publish_list = async |protocol, ids: &[u32], second| {
        store.publish_device_list(&alice(), protocol, &session("phone"), &list(ids), 9, at(second)).await.unwrap()
    };
    publish(&store, &plain_bundle(1, 1..=3)).await;
    publish_list(OMEMO2, &[1], 10).await;
    publish_list(OMEMO2, &[1], 11).await;
    publish_list(Protocol::Legacy, &[1, 2], 12).await;
    publish(&store, &plain_bundle(1, 4..=6)).await;
    publish(&store, &plain_bundle(2, 4..=6)).await;
    store.retract_bundle(&alice(), OMEMO2, device(1), at(0)).await.unwrap();
    // What was retracted is still known: the same key again is no change.
    publish(&store, &plain_bundle(2, 7..=9)).await;
    assert!(store.delete_device_list(&alice(), OMEMO2, at(20)).await.unwrap());
    assert!(!store.delete_device_list(&alice(), OMEMO2, at(21)).await.unwrap());
    publish_list(OMEMO2, &[], 22).await;
    let (head, entries) = read_all(&database.open().await, &alice()).await;
    assert_eq!(head.index, 6);
    let told: Vec<_> = entries.into_iter().map(|entry| (entry.protocol, entry.change)).collect();
    assert_eq!(
        told,
        [
            (OMEMO2, identity(1, 1)),
            (OMEMO2, ids(&[1])),
            (Protocol::Legacy, ids(&[1, 2])),
            (OMEMO2, identity(1, 2)),
            (OMEMO2, HistoryChange::NoList),
            (OMEMO2, ids(&[])),
        ]
    );
}

pub async fn a_new_label_is_a_change(database: Database) {
    let store = database.open().await;
    let labelled = |label: Option<&str>| {
        let device = Device { id: device(1), label: label.map(str::to_owned), label_signature: None };
        DeviceList::new(vec![device]).unwrap()
    };
    let lists = [labelled(None), labelled(Some("phone")), labelled(Some("laptop"))];
    for published in &lists {
        store.publish_device_list(&alice(), OMEMO2, &session("phone"), published, 9, at(0)).await.unwrap();
    }
    let expected: Vec<_> = lists.iter().map(|list| HistoryChange::list(Some(list))).collect();
    assert_eq!(changes(&store).await, expected);
    assert_ne!(expected[1], expected[2]);
}

/// A history from a database of before there were histories begins with what is there: at the first reading, or with the
/// next change, before it.
pub async fn a_history_begins_with_what_was_there_before(database: Database) {
    let store = database.open().await;
    let before = async |owner: &Owner| {
        let own = multiend::model::SessionJid::parse(&format!("{owner}/phone")).unwrap();
        for (protocol, number) in [(OMEMO2, 1), (OMEMO2, 2), (Protocol::Legacy, 3)] {
            let bundle = plain_bundle(number as u8, 1..=2);
            store.publish_bundle(owner, protocol, device(number), &own, &bundle, at(0)).await.unwrap();
        }
        store.publish_device_list(owner, OMEMO2, &own, &list(&[2, 1]), 9, at(0)).await.unwrap();
        database.execute("DELETE FROM history").await;
    };
    let found = [identity(3, 3), identity(1, 1), identity(2, 2), ids(&[2, 1])];
    before(&alice()).await;
    assert_eq!(changes(&store).await, found);
    let head = read_all(&store, &alice()).await.0;
    assert_eq!(read_all(&store, &alice()).await.0, head, "reading again begins nothing again");

    before(&alice()).await;
    store.publish_device_list(&alice(), OMEMO2, &session("x"), &list(&[5]), 9, at(1)).await.unwrap();
    let with_list: Vec<_> = found.iter().cloned().chain([ids(&[5, 2, 1])]).collect();
    assert_eq!(changes(&store).await, with_list);

    before(&owner("carol")).await;
    let bundle = plain_bundle(9, 1..=2);
    let own = multiend::model::SessionJid::parse("carol@example.org/phone").unwrap();
    store.publish_bundle(&owner("carol"), OMEMO2, device(1), &own, &bundle, at(1)).await.unwrap();
    let carols = read_all(&store, &owner("carol")).await.1.into_iter().map(|entry| entry.change).collect::<Vec<_>>();
    assert_eq!(carols, found.iter().cloned().chain([identity(1, 9)]).collect::<Vec<_>>());
}

pub async fn a_known_head_is_found_and_a_foreign_one_is_not(database: Database) {
    let store = database.open().await;
    for ids in [&[1][..], &[1, 2], &[1, 2, 3]] {
        store.publish_device_list(&alice(), OMEMO2, &session("phone"), &list(ids), 9, at(0)).await.unwrap();
    }
    let (head, entries) = read_all(&store, &alice()).await;
    let mut known = HistoryHead::START;
    for (at_index, entry) in entries.iter().enumerate() {
        let rest = HistoryRead::Entries { head, entries: entries[at_index..].to_vec() };
        assert_eq!(store.history(&alice(), &known, 9, at(1)).await.unwrap(), rest);
        known = known.after(&alice(), entry.at, entry.protocol, &entry.change);
    }
    let foreign = [
        HistoryHead { index: 2, hash: head.hash },
        HistoryHead { index: 4, hash: head.hash },
        HistoryHead { index: 0, hash: head.hash },
        HistoryHead { index: u64::MAX, hash: head.hash },
        HistoryHead { index: 3, hash: [0; 32] },
    ];
    for other in foreign {
        assert_eq!(store.history(&alice(), &other, 9, at(1)).await.unwrap(), HistoryRead::NotOnChain, "{other:?}");
    }
    // Nobody else's history, nor that of an account that is not known, has it either.
    assert_eq!(store.history(&owner("nobody"), &head, 9, at(1)).await.unwrap(), HistoryRead::NotOnChain);
    publish(&store, &plain_bundle(1, 1..=2)).await;
    assert_eq!(store.history(&owner("carol"), &head, 9, at(1)).await.unwrap(), HistoryRead::NotOnChain);
}

pub async fn concurrent_changes_make_one_chain(database: Database) {
    let stores = [database.open().await, database.open().await];
    let mut changing = JoinSet::new();
    for number in 1..=20_u32 {
        let store = stores[number as usize % 2].clone();
        changing.spawn(async move {
            let own = session(&format!("r{number}"));
            let protocol = if number % 3 == 0 { Protocol::Legacy } else { OMEMO2 };
            store.publish_device_list(&alice(), protocol, &own, &list(&[number]), 100, at(0)).await.unwrap();
            let bundle = plain_bundle(number as u8, 1..=2);
            store.publish_bundle(&alice(), protocol, device(number), &own, &bundle, at(0)).await.unwrap();
            store.history(&alice(), &HistoryHead::START, 100, at(0)).await.unwrap();
        });
    }
    changing.join_all().await;
    let (head, entries) = read_all(&stores[0], &alice()).await;
    assert_eq!(head.index, 40);
    for protocol in Protocol::ALL {
        let in_force = stores[0].device_list(&alice(), protocol, None).await.unwrap();
        let newest = entries.iter().rfind(|entry| {
            entry.protocol == protocol && matches!(entry.change, HistoryChange::List { .. } | HistoryChange::NoList)
        });
        assert_eq!(newest.unwrap().change, HistoryChange::list(in_force.as_ref()));
    }
}

/// Invariant "former keys stay recorded": whichever identity a device had can be looked up with its time.
pub async fn former_identity_keys_stay_recorded(database: Database) {
    let store = database.open().await;
    for (key, second) in [(1, 5), (2, 6), (1, 7)] {
        let bundle = plain_bundle(key, 1..=2);
        store.publish_bundle(&alice(), OMEMO2, device(1), &session("phone"), &bundle, at(second)).await.unwrap();
    }
    let recorded = store.identity_keys(&alice(), OMEMO2, device(1), 10).await.unwrap();
    let recorded: Vec<_> = recorded.into_iter().map(|identity| (identity.key[0], identity.since)).collect();
    assert_eq!(recorded, [(1, at(7)), (2, at(6)), (1, at(5))]);
    assert_eq!(store.identity_keys(&alice(), OMEMO2, device(1), 1).await.unwrap().len(), 1);
    assert!(store.identity_keys(&alice(), Protocol::Legacy, device(1), 10).await.unwrap().is_empty());
}

pub async fn changes_of_one_day_are_bounded(database: Database) {
    let store = database.open().await;
    let publish = async |number: u64, second: i64| {
        let published = list(&[1 + (number % 2) as u32]);
        store.device_list(&alice(), OMEMO2, Some(&session("phone"))).await.unwrap();
        store.publish_device_list(&alice(), OMEMO2, &session("phone"), &published, 9, at(second)).await
    };
    publish(0, 0).await.unwrap();
    // The many between the first and the last: what they say is not looked at.
    let (first, rest) =
        ("SELECT position + 1, account, at, protocol, kind, content, hash FROM history", CHANGES_A_DAY - 1);
    database
        .execute(&format!(
            "INSERT INTO history (position, account, at, protocol, kind, content, hash)
             WITH RECURSIVE filling (position, account, at, protocol, kind, content, hash) AS (
                 {first} UNION ALL
                 SELECT position + 1, account, at, protocol, kind, content, hash FROM filling WHERE position < {rest})
             SELECT * FROM filling"
        ))
        .await;
    publish(CHANGES_A_DAY - 1, 0).await.unwrap();
    assert!(matches!(publish(CHANGES_A_DAY, 86_399).await, Err(StoreError::TooManyChanges)));
    let before = store.device_list(&alice(), OMEMO2, None).await.unwrap();
    // Nothing of it happened; what changes nothing is still taken, and the next day is another day.
    let read = store.history(&alice(), &HistoryHead::START, 1, at(0)).await.unwrap();
    assert!(matches!(read, HistoryRead::Entries { head, .. } if head.index == CHANGES_A_DAY));
    publish(CHANGES_A_DAY - 1, 86_399).await.unwrap();
    assert_eq!(store.device_list(&alice(), OMEMO2, None).await.unwrap(), before);
    publish(CHANGES_A_DAY, 86_400).await.unwrap();
}
