//! Expiry and purging (archive invariants 3 and 5).

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use multiend::model::{ArchivedMessage, StoredCopy, Timestamp};
use multiend::store::{Appended, Edge, Filter, Page, PageQuery, Purged, SharedStore};

use super::database::Database;
use super::words::{alice, at, copy, id, message, owner};

/// A message to alice sent in minute 0 that expires in the given minute.
fn expiring(name: &str, expires_at: Option<i64>) -> ArchivedMessage {
    let mut copy = copy(name, "bob@example.net");
    copy.expires_at = expires_at.map(minute);
    message(name, minute(0), vec![copy])
}

/// What expires in different minutes is purged apart.
fn minute(minutes: i64) -> Timestamp {
    at(minutes * 60)
}

fn query(edge: Edge) -> PageQuery {
    PageQuery { owner: alice(), filter: Filter::default(), edge, max: 100, max_bytes: usize::MAX }
}

async fn page_of(store: &SharedStore, query: &PageQuery, now: i64) -> (Vec<StoredCopy>, Option<Timestamp>) {
    match store.page(query, minute(now)).await.unwrap() {
        Page::Copies { copies, expired_before, .. } => (copies, expired_before),
        other => panic!("{other:?}"),
    }
}

/// The archive as text: each copy with its id, a placeholder in brackets.
async fn shown(store: &SharedStore, now: i64) -> String {
    let (copies, _) = page_of(store, &query(Edge::First), now).await;
    let text = |copy: &StoredCopy| match &copy.body {
        Some(body) => {
            assert_eq!(body.as_ref(), copy.archive_id.as_str().as_bytes());
            copy.archive_id.to_string()
        }
        None => format!("[{}]", copy.archive_id),
    };
    copies.iter().map(text).collect::<Vec<_>>().join(" ")
}

async fn purge_all(store: &SharedStore, now: i64) -> Purged {
    let mut total = Purged::default();
    loop {
        let step = store.purge(minute(now), 3).await.unwrap();
        if step == Purged::default() {
            return total;
        }
        assert!(step.trimmed <= 3, "{step:?}");
        total.expired += step.expired;
        total.trimmed += step.trimmed;
        total.bodies += step.bodies;
    }
}

pub async fn what_expires_is_hidden_at_the_instant(database: Database) {
    let store = database.open().await;
    store.append(&[expiring("a", None), expiring("b", Some(10)), expiring("c", Some(20))]).await.unwrap();
    assert_eq!(shown(&store, 9).await, "a b c");
    assert_eq!(shown(&store, 10).await, "a [b] c");
    assert_eq!(shown(&store, 20).await, "a [b] [c]");
    assert_eq!(store.purge_backlog(minute(9)).await.unwrap(), (0, None));
    assert_eq!(store.purge_backlog(minute(30)).await.unwrap(), (2, Some(minute(10))));
    // A placeholder keeps id, time and JID.
    let (copies, _) = page_of(&store, &query(Edge::After(id("a"))), 10).await;
    assert_eq!((copies[0].archive_id.as_str(), copies[0].at), ("b", minute(0)));
    assert_eq!(copies[0].peer.as_str(), "bob@example.net");
}

pub async fn purging_leaves_placeholders_in_the_middle_and_trims_the_oldest_end(database: Database) {
    let store = database.open().await;
    let batch = [
        expiring("a", Some(10)),
        expiring("b", Some(30)),
        expiring("c", Some(10)),
        expiring("d", Some(20)),
        expiring("e", None),
        expiring("f", Some(20)),
    ];
    store.append(&batch).await.unwrap();
    assert_eq!(store.purge(minute(9), 100).await.unwrap(), Purged::default());
    assert_eq!(purge_all(&store, 10).await, Purged { expired: 2, trimmed: 1, bodies: 2 });
    assert_eq!(shown(&store, 10).await, "b [c] d e f");
    assert_eq!(purge_all(&store, 20).await, Purged { expired: 2, trimmed: 0, bodies: 2 });
    assert_eq!(shown(&store, 20).await, "b [c] [d] e [f]");
    let totals = store.archive_totals().await.unwrap();
    assert_eq!((totals.copies, totals.placeholders, totals.bodies), (2, 3, 2));
    // What is left of c can still be paged from.
    let (copies, _) = page_of(&store, &query(Edge::After(id("c"))), 20).await;
    assert_eq!(copies.len(), 3);
    // With b, the placeholders after it are the oldest end.
    assert_eq!(purge_all(&store, 30).await, Purged { expired: 1, trimmed: 3, bodies: 1 });
    assert_eq!(shown(&store, 30).await, "e [f]");
    assert_eq!(store.purge_backlog(minute(30)).await.unwrap(), (0, None));
    assert!(matches!(store.page(&query(Edge::After(id("c"))), minute(30)).await.unwrap(), Page::UnknownId(_)));
}

pub async fn a_body_lives_as_long_as_one_of_its_copies(database: Database) {
    let store = database.open().await;
    let bobs = |expiry: Option<i64>| {
        let mut copy = copy("x", "alice@example.org");
        copy.owner = owner("bob");
        copy.expires_at = expiry.map(minute);
        copy
    };
    let mut shared = expiring("x", Some(10));
    shared.copies.push(bobs(Some(20)));
    store.append(&[expiring("keep", None), shared]).await.unwrap();
    assert_eq!(purge_all(&store, 10).await.bodies, 0);
    let query = PageQuery { owner: owner("bob"), ..query(Edge::First) };
    assert_eq!(page_of(&store, &query, 10).await.0[0].body.as_deref(), Some(b"x".as_slice()));
    assert_eq!(shown(&store, 10).await, "keep [x]");
    let purged = purge_all(&store, 20).await;
    assert_eq!((purged.trimmed, purged.bodies), (1, 1));
    // A copy that never expires keeps the body for ever.
    let mut shared = expiring("y", Some(10));
    shared.copies.push(bobs(None));
    store.append(&[shared]).await.unwrap();
    assert_eq!(purge_all(&store, 1_000_000).await.bodies, 0);
    assert_eq!(page_of(&store, &query, 1_000_000).await.0[0].body.as_deref(), Some(b"y".as_slice()));
}

/// Of what is stored together, one message may expire seconds before another. Whichever way one goes, it is counted once.
pub async fn each_copy_and_message_that_goes_is_counted_once(database: Database) {
    let store = database.open().await;
    let at_second = |name: &str, whose: &str, second: i64| {
        let mut message = expiring(name, Some(10));
        message.copies[0].owner = owner(whose);
        message.copies[0].expires_at = Some(at(600 + second));
        message
    };
    let mut shared = at_second("b", "alice", 10);
    shared.copies.push(at_second("b", "bob", 20).copies[0].clone());
    store.append(&[at_second("a", "alice", 0), shared, at_second("c", "carol", 30)]).await.unwrap();
    let purge_at = async |second: i64| {
        let mut total = Purged::default();
        loop {
            let step = store.purge(at(600 + second), 3).await.unwrap();
            if step == Purged::default() {
                return total;
            }
            total.expired += step.expired;
            total.trimmed += step.trimmed;
            total.bodies += step.bodies;
        }
    };
    assert_eq!(purge_at(5).await, Purged { expired: 1, trimmed: 1, bodies: 1 });
    assert_eq!(purge_at(15).await, Purged { expired: 1, trimmed: 1, bodies: 0 });
    assert_eq!(purge_at(25).await, Purged { expired: 1, trimmed: 1, bodies: 1 });
    assert_eq!(purge_at(30).await, Purged { expired: 1, trimmed: 1, bodies: 1 });
    assert_eq!(store.purge_backlog(at(700)).await.unwrap(), (0, None));
}

pub async fn sequence_numbers_and_ids_are_never_reused(database: Database) {
    let store = database.open().await;
    let first = store.append(&[expiring("keep", None), expiring("a", Some(10))]).await.unwrap();
    purge_all(&store, 10).await;
    // A placeholder still holds its id.
    assert_eq!(store.append(&[expiring("a", None)]).await.unwrap(), [[Appended::Duplicate]]);
    assert_eq!(shown(&store, 10).await, "keep [a]");
    let mut of_bob = expiring("b", Some(10));
    of_bob.copies[0].owner = owner("bob");
    let Appended::Stored(trimmed) = store.append(&[of_bob.clone()]).await.unwrap()[0][0] else { panic!("duplicate") };
    purge_all(&store, 10).await;
    assert_eq!(store.ends(&owner("bob"), minute(10)).await.unwrap(), None);
    // An archive emptied by expiry goes on counting.
    of_bob.copies[0].archive_id = id("c");
    let Appended::Stored(next) = store.append(&[of_bob]).await.unwrap()[0][0] else { panic!("duplicate") };
    assert!(next > trimmed);
    let Appended::Stored(last) = first[1][0] else { panic!("duplicate") };
    let Appended::Stored(next) = store.append(&[expiring("d", None)]).await.unwrap()[0][0] else { panic!("duplicate") };
    assert!(next > last);
}

pub async fn a_page_says_what_expired_before_it(database: Database) {
    let store = database.open().await;
    let later = |name: &str| message(name, minute(5), vec![copy(name, "bob@example.net")]);
    store.append(&[expiring("a", Some(10)), expiring("b", Some(12)), later("c"), later("d")]).await.unwrap();
    let expired_before = async |query: &PageQuery| page_of(&store, query, 20).await.1;
    assert_eq!(expired_before(&query(Edge::First)).await, None, "what is still shown is not missing");
    purge_all(&store, 20).await;
    assert_eq!(shown(&store, 20).await, "c d");
    assert_eq!(expired_before(&query(Edge::First)).await, Some(minute(12)));
    assert_eq!(expired_before(&query(Edge::Last)).await, Some(minute(12)));
    assert_eq!(expired_before(&query(Edge::Before(id("d")))).await, Some(minute(12)));
    // A query that begins after what is gone misses nothing.
    assert_eq!(expired_before(&query(Edge::After(id("c")))).await, None);
    let filtered = |filter| PageQuery { filter, ..query(Edge::First) };
    let after_id = Filter { after_id: Some(id("c")), ..Filter::default() };
    assert_eq!(expired_before(&filtered(after_id)).await, None);
    let start = |second| filtered(Filter { start: Some(minute(second)), ..Filter::default() });
    assert_eq!(expired_before(&start(1)).await, None);
    assert_eq!(expired_before(&start(0)).await, Some(minute(12)));
    let ids = Filter { ids: vec![id("d")], ..Filter::default() };
    assert_eq!(expired_before(&filtered(ids)).await, None);
}

pub async fn purges_are_bounded_and_two_at_once_are_safe(database: Database) {
    let instances = [database.open().await, database.open().await];
    let batch: Vec<_> = (0..300)
        .map(|n| {
            let mut message = expiring(&format!("m{n}"), (n % 10 != 9).then_some(10));
            message.copies[0].owner = owner(&format!("o{}", n % 3));
            message
        })
        .collect();
    instances[0].append(&batch).await.unwrap();
    let mut purges = tokio::task::JoinSet::new();
    for store in instances.clone() {
        purges.spawn(async move { purge_all(&store, 10).await });
    }
    let mut total = Purged::default();
    for done in purges.join_all().await {
        total.expired += done.expired;
        total.trimmed += done.trimmed;
        total.bodies += done.bodies;
    }
    // Whoever found all rows taken by the other stopped early; one more round finds what that left.
    let rest = purge_all(&instances[0], 10).await;
    assert_eq!(total.expired + rest.expired, 270);
    assert_eq!(total.bodies + rest.bodies, 270);
    let totals = instances[0].archive_totals().await.unwrap();
    assert_eq!((totals.copies, totals.bodies), (30, 30));
    assert_eq!(totals.placeholders, 270 - total.trimmed - rest.trimmed);
    for n in 0..3 {
        let query = PageQuery { owner: owner(&format!("o{n}")), ..query(Edge::First) };
        assert!(page_of(&instances[0], &query, 10).await.0[0].body.is_some(), "the oldest end is trimmed");
    }
}

/// Where several writers can be at work, an append that holds its archive's lock does not hold up a purge.
#[tokio::test]
async fn a_purge_does_not_wait_for_an_append() {
    let database = Database::postgres().await;
    let store = database.open().await;
    store.append(&[expiring("a", Some(10)), expiring("b", None)]).await.unwrap();
    let mut appending = PgConnection::connect(&database.url).await.unwrap();
    let mut transaction = appending.begin().await.unwrap();
    sqlx::query("SELECT id FROM account FOR NO KEY UPDATE").fetch_all(&mut *transaction).await.unwrap();
    let purged = tokio::time::timeout(Duration::from_secs(10), store.purge(minute(10), 10)).await.unwrap().unwrap();
    assert_eq!(purged, Purged { expired: 1, trimmed: 1, bodies: 1 });
    transaction.rollback().await.unwrap();
}

/// Who writes chooses its resource: an archive does not remember each one for ever.
#[tokio::test]
async fn addresses_go_with_the_last_copy_that_names_them() {
    let database = Database::postgres().await;
    let store = database.open().await;
    let from = |name: &str, peer: &str, expires_at: Option<i64>| {
        let mut message = expiring(name, expires_at);
        message.copies[0].peer = jid::Jid::new(peer).unwrap();
        message.copies[0].own_resource = Some("phone".to_owned());
        message
    };
    let batch = [
        from("a", "bob@example.net/once", Some(10)),
        from("b", "bob@example.net/again", Some(10)),
        from("c", "eve@example.net/gone", Some(10)),
        from("d", "bob@example.net/again", None),
    ];
    store.append(&batch).await.unwrap();
    purge_all(&store, 10).await;
    assert_eq!(shown(&store, 10).await, "d");
    let mut admin = PgConnection::connect(&database.url).await.unwrap();
    let left: Vec<String> =
        sqlx::query_scalar("SELECT jid FROM address ORDER BY jid").fetch_all(&mut admin).await.unwrap();
    assert_eq!(left, ["alice@example.org/phone", "bob@example.net", "bob@example.net/again"]);
    // One that comes again gets another number.
    store.append(&[from("e", "eve@example.net/gone", None)]).await.unwrap();
    assert_eq!(shown(&store, 10).await, "d e");
}
