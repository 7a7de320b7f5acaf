//! What leaves an archive before it expires (archive invariant 5).

use std::collections::BTreeMap;

use multiend::archive::retire::{Limits, Retired, retire};
use multiend::model::{ArchivedMessage, Class, Copy, DeviceId, ProtocolDevice};
use multiend::store::{Appended, Edge, Filter, Page, PageQuery, SharedStore};

use super::append::all_of;
use super::database::Database;
use super::words::{OMEMO2, alice, at, copy, id, list, message, owner, session};

fn of_class(name: &str, class: Class) -> ArchivedMessage {
    ArchivedMessage { class, ..message(name, at(0), vec![copy(name, "bob@example.net")]) }
}

/// The archive as text: each copy with its body, a placeholder in brackets.
async fn shown(store: &SharedStore, name: &str) -> String {
    let text = |copy: multiend::model::StoredCopy| match copy.body {
        Some(_) => copy.archive_id.to_string(),
        None => format!("[{}]", copy.archive_id),
    };
    all_of(store, &owner(name)).await.into_iter().map(text).collect::<Vec<_>>().join(" ")
}

pub async fn an_archive_keeps_so_many_of_a_class_and_the_oldest_go(database: Database) {
    let store = database.open().await;
    let batch: Vec<_> =
        (0..12).map(|n| of_class(&format!("m{n}"), if n % 3 == 0 { Class::Signal } else { Class::Content })).collect();
    store.append(&batch).await.unwrap();
    let limits = Limits { most: BTreeMap::from([(Class::Content, 3)]), once_read: Vec::new() };
    let retired = retire(&store, &alice(), &limits, at(1)).await.unwrap();
    assert_eq!(retired, Retired { surplus: 5, read: 0 });
    // Signals have no bound, and what is left keeps its place.
    assert_eq!(shown(&store, "alice").await, "m0 [m1] [m2] m3 [m4] [m5] m6 [m7] m8 m9 m10 m11");
    assert_eq!(retire(&store, &alice(), &limits, at(1)).await.unwrap(), Retired::default());
    let totals = store.archive_totals().await.unwrap();
    assert_eq!((totals.copies, totals.placeholders, totals.bodies), (7, 5, 7));
    // Placeholders count for nothing, new ones push old ones out.
    store.append(&[of_class("new", Class::Content)]).await.unwrap();
    assert_eq!(retire(&store, &alice(), &limits, at(1)).await.unwrap().surplus, 1);
    // With the last signals, the oldest end goes.
    let limits = Limits { most: BTreeMap::from([(Class::Signal, 1)]), once_read: Vec::new() };
    assert_eq!(retire(&store, &alice(), &limits, at(1)).await.unwrap().surplus, 3);
    while store.purge(at(1), 100).await.unwrap() != multiend::store::Purged::default() {}
    assert_eq!(shown(&store, "alice").await, "m9 m10 m11 new");
}

/// What one owner's archive lets go, the other's keeps.
pub async fn a_retired_copy_takes_nothing_from_the_other_archive(database: Database) {
    let store = database.open().await;
    let local = |name: &str| {
        let bobs = Copy { owner: owner("bob"), ..copy(format!("{name}-b"), "alice@example.org/phone") };
        message(name, at(0), vec![copy(format!("{name}-a"), "bob@example.org"), bobs])
    };
    let appended = store.append(&[local("x"), local("y"), local("z")]).await.unwrap();
    let Appended::Stored(second) = appended[1][0] else { panic!("not stored") };
    assert_eq!(store.retire(&alice(), &[second, second, 999], at(1)).await.unwrap(), 1);
    assert_eq!(store.retire(&alice(), &[second], at(1)).await.unwrap(), 0, "there is nothing left to take");
    assert_eq!(shown(&store, "alice").await, "x-a [y-a] z-a");
    let bobs = all_of(&store, &owner("bob")).await;
    assert_eq!(bobs[1].body.as_deref(), Some(b"y".as_slice()));
    assert_eq!(store.archive_totals().await.unwrap().bodies, 3);
    let Appended::Stored(of_bob) = appended[1][1] else { panic!("not stored") };
    assert_eq!(store.retire(&owner("bob"), &[of_bob], at(1)).await.unwrap(), 1);
    assert_eq!(store.archive_totals().await.unwrap().bodies, 2);
    assert_eq!(shown(&store, "bob").await, "x-b [y-b] z-b");
    // Every other message is what it was.
    let bodies: Vec<_> = all_of(&store, &owner("bob")).await.into_iter().filter_map(|copy| copy.body).collect();
    assert_eq!(bodies, [b"x".as_slice(), b"z"]);
}

pub async fn what_every_listed_device_has_read_goes_if_the_operator_wants_it(database: Database) {
    let store = database.open().await;
    let key_transport = |name: &str, rid: u32| {
        let body = format!(
            "<message><encrypted xmlns='urn:xmpp:omemo:2'><header sid='9'><keys jid='alice@example.org'>\
             <key rid='{rid}'>QUJD</key></keys></header></encrypted></message>"
        );
        ArchivedMessage { class: Class::KeyTransport, ..message(&body, at(0), vec![copy(name, "bob@example.net")]) }
    };
    let batch = [
        of_class("content1", Class::Content),
        key_transport("for1", 1),
        key_transport("for2", 2),
        key_transport("forNobody", 7),
        of_class("content2", Class::Content),
        key_transport("late", 1),
    ];
    store.append(&batch).await.unwrap();
    store.publish_device_list(&alice(), OMEMO2, &session("phone"), &list(&[1, 2]), 9, at(0)).await.unwrap();
    let reads = async |device: u32, up_to: &str| {
        let device = ProtocolDevice { protocol: OMEMO2, device: DeviceId::new(device).unwrap() };
        store.move_cursors(&alice(), &[device], &id(up_to), at(0)).await.unwrap().unwrap();
    };
    let keys = Limits { most: BTreeMap::new(), once_read: vec![Class::KeyTransport] };
    assert_eq!(retire(&store, &alice(), &keys, at(1)).await.unwrap(), Retired::default(), "nobody has read anything");
    // Device 1 has read on; what is for device 2, or for nobody, waits for device 2.
    reads(1, "content2").await;
    assert_eq!(retire(&store, &alice(), &keys, at(1)).await.unwrap(), Retired { surplus: 0, read: 1 });
    assert_eq!(shown(&store, "alice").await, "content1 [for1] for2 forNobody content2 late");
    reads(2, "forNobody").await;
    assert_eq!(retire(&store, &alice(), &keys, at(1)).await.unwrap().read, 2);
    assert_eq!(shown(&store, "alice").await, "content1 [for1] [for2] [forNobody] content2 late");
    // Content goes only where it is asked for.
    let all = Limits { most: BTreeMap::new(), once_read: vec![Class::Content, Class::KeyTransport] };
    assert_eq!(retire(&store, &alice(), &all, at(1)).await.unwrap().read, 1);
    assert_eq!(shown(&store, "alice").await, "[content1] [for1] [for2] [forNobody] content2 late");
    // The other owner's archive is another one.
    assert_eq!(retire(&store, &owner("bob"), &all, at(1)).await.unwrap(), Retired::default());
}

/// A placeholder in the middle keeps id, time and JID, and can be paged from.
pub async fn a_retired_copy_stays_in_its_place(database: Database) {
    let store = database.open().await;
    let batch = ["a", "b", "c"].map(|name| of_class(name, Class::Content));
    let appended = store.append(&batch).await.unwrap();
    let before = all_of(&store, &alice()).await;
    let Appended::Stored(middle) = appended[1][0] else { panic!("not stored") };
    store.retire(&alice(), &[middle], at(1)).await.unwrap();
    let after = all_of(&store, &alice()).await;
    let facts =
        |copy: &multiend::model::StoredCopy| (copy.archive_id.clone(), copy.sequence, copy.at, copy.peer.clone());
    assert_eq!(before.iter().map(facts).collect::<Vec<_>>(), after.iter().map(facts).collect::<Vec<_>>());
    let query =
        PageQuery { owner: alice(), filter: Filter::default(), edge: Edge::After(id("b")), max: 9, max_bytes: 999 };
    let Page::Copies { copies, .. } = store.page(&query, at(1)).await.unwrap() else { panic!("b is unknown") };
    assert_eq!(copies[0].archive_id, id("c"));
    // The id is still taken.
    assert_eq!(store.append(&[of_class("b", Class::Content)]).await.unwrap(), [[Appended::Duplicate]]);
}
