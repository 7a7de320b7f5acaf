//! Writing to archives (archive invariants 1 and 2).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use multiend::model::{Class, Copy, Direction, Owner, StoredCopy};
use multiend::store::{Appended, Edge, Filter, Page, PageQuery, SharedStore};
use tokio::task::JoinSet;

use super::database::Database;
use super::words::{alice, at, copy, id, message, owner};

/// The whole archive.
pub async fn all_of(store: &SharedStore, owner: &Owner) -> Vec<StoredCopy> {
    let query = PageQuery {
        owner: owner.clone(),
        filter: Filter::default(),
        edge: Edge::First,
        max: 10_000,
        max_bytes: usize::MAX,
    };
    match store.page(&query, at(0)).await.unwrap() {
        Page::Copies { copies, complete: true, .. } => copies,
        other => panic!("{other:?}"),
    }
}

fn ids(copies: &[StoredCopy]) -> Vec<&str> {
    copies.iter().map(|copy| copy.archive_id.as_str()).collect()
}

pub async fn copies_come_back_as_they_went_in(database: Database) {
    let store = database.open().await;
    assert!(store.append(&[]).await.unwrap().is_empty());
    let mut batch = Vec::new();
    for (place, class) in Class::ALL.into_iter().enumerate() {
        let sent = Copy {
            direction: Direction::Sent,
            own_resource: Some("phøne/1".to_owned()),
            ..copy(format!("{place}sent"), "bob@example.net/läptop")
        };
        let mut of_class = message("<body>💌</body>\r\n", at(place as i64), vec![sent]);
        of_class.class = class;
        batch.push(of_class);
    }
    batch.push(message("", at(9), vec![copy("domain", "example.net")]));
    let results = store.append(&batch).await.unwrap();
    let stored = all_of(&database.open().await, &alice()).await;
    assert_eq!(stored.len(), 5);
    for ((got, sent), result) in stored.iter().zip(&batch).zip(results) {
        let copy = &sent.copies[0];
        assert_eq!(result, [Appended::Stored(got.sequence)]);
        assert_eq!((got.class, got.at, got.body.as_ref()), (sent.class, sent.at, Some(&sent.body)));
        assert_eq!((&got.archive_id, got.direction), (&copy.archive_id, copy.direction));
        assert_eq!((&got.peer, &got.own_resource), (&copy.peer.to_bare(), &copy.own_resource));
        assert_eq!(got.peer_resource.as_deref(), copy.peer.resource().map(|resource| resource.as_str()));
    }
    assert!(stored.is_sorted_by(|a, b| a.sequence < b.sequence));
}

pub async fn a_local_message_is_one_body_and_two_copies(database: Database) {
    let store = database.open().await;
    let mut to_bob = copy("b1", "alice@example.org");
    to_bob.owner = owner("bob");
    store.append(&[message("hello", at(0), vec![copy("a1", "bob@example.org"), to_bob])]).await.unwrap();
    for owner in [alice(), owner("bob")] {
        let stored = all_of(&store, &owner).await;
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].body.as_deref(), Some(b"hello".as_slice()));
    }
    let totals = store.archive_totals().await.unwrap();
    assert_eq!((totals.copies, totals.placeholders, totals.bodies, totals.body_bytes), (2, 0, 1, 5));
}

pub async fn a_duplicate_is_stored_once(database: Database) {
    let store = database.open().await;
    let one = message("one", at(0), vec![copy("x", "bob@example.net")]);
    let first = store.append(&[one.clone(), one.clone()]).await.unwrap();
    let [Appended::Stored(_)] = first[0][..] else { panic!("{first:?}") };
    assert_eq!(first[1], [Appended::Duplicate]);
    // Again, from another instance, beside a new one; with a copy for somebody else that is new; and in another archive.
    let mut other_owner = copy("x", "alice@example.org");
    other_owner.owner = owner("bob");
    let batch = [
        message("new", at(1), vec![copy("y", "bob@example.net")]),
        message("one", at(2), vec![copy("x", "bob@example.net"), other_owner]),
        one,
    ];
    let again = database.open().await.append(&batch).await.unwrap();
    assert!(matches!(again[0][..], [Appended::Stored(_)]));
    assert!(matches!(again[1][..], [Appended::Duplicate, Appended::Stored(_)]));
    assert_eq!(again[2], [Appended::Duplicate]);
    assert_eq!(ids(&all_of(&store, &alice()).await), ["x", "y"]);
    assert_eq!(ids(&all_of(&store, &owner("bob")).await), ["x"]);
    let totals = store.archive_totals().await.unwrap();
    assert_eq!((totals.copies, totals.bodies), (3, 3), "a message of duplicates alone stores no body");
}

pub async fn time_never_decreases_with_the_sequence(database: Database) {
    let store = database.open().await;
    let single = |name: &str, second| message("", at(second), vec![copy(name, "bob@example.net")]);
    store.append(&[single("a", -10), single("b", 5), single("c", 3)]).await.unwrap();
    store.append(&[single("d", 4), single("e", 6)]).await.unwrap();
    let times: Vec<_> = all_of(&store, &alice()).await.iter().map(|copy| copy.at).collect();
    assert_eq!(times, [at(-10), at(5), at(5), at(5), at(6)]);
}

/// All of a batch is stored, or nothing: here the last message breaks a rule of the database itself.
pub async fn a_bad_batch_stores_nothing_of_it(database: Database) {
    let store = database.open().await;
    store.append(&[message("", at(0), vec![copy("a", "bob@example.net")])]).await.unwrap();
    if database.is_sqlite() {
        database.execute("CREATE TRIGGER t BEFORE INSERT ON entry WHEN new.archive_id = 'bad' BEGIN SELECT raise(ABORT, 'no'); END").await;
    } else {
        database.execute("ALTER TABLE entry ADD CHECK (archive_id <> 'bad')").await;
    }
    let single = |name: &str| message(name, at(1), vec![copy(name, "bob@example.net")]);
    store.append(&[single("good"), single("bad")]).await.unwrap_err();
    assert_eq!(store.archive_totals().await.unwrap().bodies, 1);
    store.append(&[single("good")]).await.unwrap();
    let stored = all_of(&store, &alice()).await;
    assert_eq!(ids(&stored), ["a", "good"]);
}

/// Two instances append to one archive while a reader follows it: it sees every copy, once, in the order of the sequence.
pub async fn a_reader_never_passes_a_copy_that_becomes_visible_later(database: Database) {
    const WRITERS: usize = 4;
    const BATCHES: usize = 25;
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (store, done) = (database.open().await, done.clone());
        tokio::spawn(async move {
            let mut read: Vec<StoredCopy> = Vec::new();
            loop {
                // Asked before the page: what is there when the writers are done, the last page has.
                let last = done.load(Ordering::Acquire);
                let edge = read.last().map_or(Edge::First, |copy| Edge::After(copy.archive_id.clone()));
                let filter = Filter::default();
                let query = PageQuery { owner: alice(), filter, edge, max: 7, max_bytes: usize::MAX };
                let Page::Copies { copies, complete, .. } = store.page(&query, at(0)).await.unwrap() else {
                    panic!("the last id read is unknown");
                };
                read.extend(copies);
                if last && complete {
                    return read;
                }
            }
        })
    };
    let mut writers = JoinSet::new();
    let instances = [database.open().await, database.open().await];
    for writer in 0..WRITERS {
        let store = instances[writer % 2].clone();
        writers.spawn(async move {
            for batch in 0..BATCHES {
                let single = |n: usize| {
                    let copy = copy(format!("w{writer}-{batch}-{n}"), "bob@example.net");
                    message("x", at((batch * 7 % 5) as i64), vec![copy])
                };
                store.append(&(0..1 + batch % 3).map(single).collect::<Vec<_>>()).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    done.store(true, Ordering::Release);
    let read = reader.await.unwrap();
    assert_eq!(read, all_of(&instances[0], &alice()).await);
    assert!(read.is_sorted_by(|a, b| a.sequence < b.sequence && a.at <= b.at));
    let unique: BTreeSet<_> = read.iter().map(|copy| copy.archive_id.clone()).collect();
    let expected: usize = (0..BATCHES).map(|batch| 1 + batch % 3).sum::<usize>() * WRITERS;
    assert_eq!((read.len(), unique.len()), (expected, expected));
    // What one writer wrote stands in the order in which it wrote it.
    for writer in 0..WRITERS {
        let batches: Vec<usize> = read
            .iter()
            .filter_map(|copy| copy.archive_id.as_str().strip_prefix(&format!("w{writer}-")))
            .map(|rest| rest.split('-').next().unwrap().parse().unwrap())
            .collect();
        assert!(batches.is_sorted());
    }
}

/// Batches name the same owners, known and new, in any order.
pub async fn batches_over_the_same_archives_do_not_deadlock(database: Database) {
    let instances = [database.open().await, database.open().await];
    let mut writers = JoinSet::new();
    for writer in 0..6_usize {
        let store = instances[writer % 2].clone();
        writers.spawn(async move {
            for round in 0..8 {
                let mut batch: Vec<_> = (0..10)
                    .map(|n| {
                        let mut copy = copy(format!("w{writer}-{round}"), "bob@example.net");
                        copy.owner = owner(&format!("o{}", n + round));
                        message("x", at(0), vec![copy])
                    })
                    .collect();
                if writer % 3 == 0 {
                    batch.reverse();
                }
                batch.rotate_left(writer);
                store.append(&batch).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    assert_eq!(instances[0].archive_totals().await.unwrap().copies, 6 * 8 * 10);
    // An owner's archive is intact and starts anew for none of them.
    let stored = all_of(&instances[0], &owner("o9")).await;
    assert!(stored.is_sorted_by(|a, b| a.sequence < b.sequence));
    assert!(stored.iter().any(|copy| copy.archive_id == id("w0-0")));
}
