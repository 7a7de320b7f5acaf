//! Taking messages back (XEP-0424; archive invariant 3: what goes from the middle leaves a placeholder).

use bytes::Bytes;
use multiend::model::{ArchivedMessage, Copy, Direction, Origin, Retraction};
use multiend::store::{Appended, Purged, SharedStore};

use super::append::all_of;
use super::database::Database;
use super::words::{alice, at, copy, message, owner};

/// A message from alice to bob, in both archives.
fn local(name: &str, origin: Option<i64>) -> ArchivedMessage {
    let sent = Copy { direction: Direction::Sent, ..copy(format!("{name}-a"), "bob@example.org") };
    let received = Copy { owner: owner("bob"), ..copy(format!("{name}-b"), "alice@example.org/phone") };
    ArchivedMessage { origin: origin.map(Origin::new), ..message(name, at(0), vec![sent, received]) }
}

fn retraction(name: &str, origin: i64) -> ArchivedMessage {
    let tombstone = Bytes::from(format!("tombstone by {name}"));
    ArchivedMessage { retracts: Some(Retraction { origin: Origin::new(origin), tombstone }), ..local(name, None) }
}

async fn bodies(store: &SharedStore) -> Vec<String> {
    let of = async |name: &str| -> Vec<String> {
        let text = |body: Option<Bytes>| String::from_utf8(body.unwrap().to_vec()).unwrap();
        all_of(store, &owner(name)).await.into_iter().map(|copy| text(copy.body)).collect()
    };
    let (alices, bobs) = (of("alice").await, of("bob").await);
    assert_eq!(alices, bobs);
    alices
}

pub async fn a_retracted_message_is_a_tombstone_in_both_archives(database: Database) {
    let store = database.open().await;
    store.append(&[local("first", Some(1)), local("second", Some(2)), local("third", None)]).await.unwrap();
    let before = all_of(&store, &alice()).await;
    store.append(&[retraction("r", 2)]).await.unwrap();
    assert_eq!(bodies(&store).await, ["first", "tombstone by r", "third", "r"]);
    // Id, time and JID stay as they were.
    let after = all_of(&store, &alice()).await;
    for (before, after) in before.iter().zip(&after) {
        let facts =
            |copy: &multiend::model::StoredCopy| (copy.archive_id.clone(), copy.sequence, copy.at, copy.peer.clone());
        assert_eq!(facts(before), facts(after));
    }
    // The same message again, and the same retraction again, change nothing.
    let again = store.append(&[local("second", Some(2)), retraction("r", 2)]).await.unwrap();
    assert!(again.iter().flatten().all(|copy| *copy == Appended::Duplicate));
    store.append(&[retraction("late", 2)]).await.unwrap();
    assert_eq!(bodies(&store).await, ["first", "tombstone by r", "third", "r", "late"]);
}

/// A retraction reaches what came before it, in an earlier batch or its own, and nothing that comes after.
pub async fn a_retraction_takes_back_what_came_before_it(database: Database) {
    let store = database.open().await;
    store.append(&[local("stored", Some(7))]).await.unwrap();
    store.append(&[local("queued", Some(7)), retraction("r", 7), local("later", Some(7))]).await.unwrap();
    assert_eq!(bodies(&store).await, ["tombstone by r", "tombstone by r", "r", "later"]);
    store.append(&[retraction("r2", 8)]).await.unwrap();
    assert_eq!(bodies(&store).await, ["tombstone by r", "tombstone by r", "r", "later", "r2"]);
    store.append(&[retraction("r3", 7)]).await.unwrap();
    assert_eq!(bodies(&store).await[3], "tombstone by r3");
}

/// An owner that no longer archives this peer still has the message taken back.
pub async fn a_retraction_counts_although_nobody_keeps_it(database: Database) {
    let store = database.open().await;
    store.append(&[local("said", Some(1))]).await.unwrap();
    let never = multiend::model::ArchivePreferences::new(
        multiend::model::ArchiveDefault::Never,
        Default::default(),
        Default::default(),
    )
    .unwrap();
    for name in ["alice", "bob"] {
        store.set_preferences(&owner(name), &never, at(0)).await.unwrap();
    }
    let appended = store.append(&[retraction("r", 1)]).await.unwrap();
    assert_eq!(appended, [[Appended::Unwanted, Appended::Unwanted]]);
    assert_eq!(bodies(&store).await, ["tombstone by r"]);
}

/// An archive that keeps so many messages only has let the author's copy go; the recipient's is there.
pub async fn a_message_is_taken_back_although_its_author_s_copy_is_gone(database: Database) {
    let store = database.open().await;
    let appended = store.append(&[local("first", Some(1)), local("second", Some(2)), local("third", Some(3))]).await;
    let places: Vec<i64> = appended
        .unwrap()
        .iter()
        .map(|copies| match copies[0] {
            Appended::Stored(place) => place,
            _ => panic!("not stored"),
        })
        .collect();
    assert_eq!(store.retire(&alice(), &places[..2], at(1)).await.unwrap(), 2);
    while store.purge(at(1), 100).await.unwrap() != Purged::default() {}
    store.append(&[retraction("r", 2)]).await.unwrap();
    let bobs: Vec<_> = all_of(&store, &owner("bob")).await.into_iter().filter_map(|copy| copy.body).collect();
    assert_eq!(bobs, [&b"first"[..], b"tombstone by r", b"third", b"r"]);
}
