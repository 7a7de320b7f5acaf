//! Reading archives (archive invariants 3 and 6).

use multiend::model::{ArchiveId, StoredCopy};
use multiend::store::{Edge, Filter, Page, PageQuery, SharedStore};

use super::database::Database;
use super::words::{alice, at, copy, id, jid, message, owner};

fn query(edge: Edge, max: u32) -> PageQuery {
    PageQuery { owner: alice(), filter: Filter::default(), edge, max, max_bytes: usize::MAX }
}

async fn page(store: &SharedStore, query: &PageQuery) -> (Vec<String>, bool) {
    match store.page(query, at(0)).await.unwrap() {
        Page::Copies { copies, complete, expired_before: None } => (names(&copies), complete),
        other => panic!("{other:?}"),
    }
}

fn names(copies: &[StoredCopy]) -> Vec<String> {
    copies.iter().map(|copy| copy.archive_id.as_str().to_owned()).collect()
}

/// Copies 0 to 9, from bob, a second apart.
async fn ten(store: &SharedStore) {
    let single = |n: usize| message(&"x".repeat(n * 10), at(n as i64), vec![copy(n, "bob@example.net/x")]);
    store.append(&(0..10).map(single).collect::<Vec<_>>()).await.unwrap();
}

pub async fn pages_go_both_ways_and_say_when_they_are_complete(database: Database) {
    let store = database.open().await;
    ten(&store).await;
    let after = |n| Edge::After(id(n));
    let before = |n| Edge::Before(id(n));
    for (edge, max, expected, complete) in [
        (Edge::First, 4, 0..4, false),
        (after(3), 4, 4..8, false),
        (after(7), 4, 8..10, true),
        (after(5), 4, 6..10, true),
        (after(9), 4, 10..10, true),
        (Edge::Last, 4, 6..10, false),
        (before(6), 4, 2..6, false),
        (before(2), 4, 0..2, true),
        (before(4), 4, 0..4, true),
        (before(0), 4, 0..0, true),
        (Edge::First, u32::MAX, 0..10, true),
        (Edge::Last, 10, 0..10, true),
    ] {
        let expected: Vec<String> = expected.map(|n: usize| n.to_string()).collect();
        assert_eq!(page(&store, &query(edge.clone(), max)).await, (expected, complete), "{edge:?} {max}");
    }
}

pub async fn unknown_ids_are_told(database: Database) {
    let store = database.open().await;
    let unknown = async |edge: Edge, filter: Filter| {
        let query = PageQuery { filter, ..query(edge, 5) };
        match store.page(&query, at(0)).await.unwrap() {
            Page::UnknownId(id) => Some(id),
            Page::Copies { .. } => None,
        }
    };
    let gone: ArchiveId = id("gone'\"\\");
    for round in 0..2 {
        assert_eq!(unknown(Edge::After(gone.clone()), Filter::default()).await, Some(gone.clone()));
        assert_eq!(unknown(Edge::Before(gone.clone()), Filter::default()).await, Some(gone.clone()));
        let filters = [
            Filter { after_id: Some(gone.clone()), ..Filter::default() },
            Filter { before_id: Some(gone.clone()), ..Filter::default() },
            Filter { ids: vec![gone.clone()], ..Filter::default() },
        ];
        for filter in filters {
            assert_eq!(store.count(&alice(), &filter, at(0)).await.unwrap(), 0);
            assert_eq!(unknown(Edge::First, filter).await, Some(gone.clone()));
        }
        assert_eq!(unknown(Edge::First, Filter::default()).await, None);
        if round == 0 {
            // The same in an archive that is not empty, and for an id that another archive has.
            let mut other = copy(gone.as_str(), "alice@example.org");
            other.owner = owner("bob");
            store.append(&[message("", at(0), vec![copy("a", "bob@example.net"), other])]).await.unwrap();
        }
    }
}

pub async fn with_oneself_means_messages_to_oneself(database: Database) {
    let store = database.open().await;
    let single = |name: &str, peer: &str| message("", at(0), vec![copy(name, peer)]);
    let batch = [
        single("bob", "bob@example.net/a"),
        single("self", "alice@example.org/phone"),
        single("bare", "bob@example.net"),
        single("other", "bob@example.net/b"),
        single("self2", "alice@example.org"),
    ];
    store.append(&batch).await.unwrap();
    let with = async |text: &str| {
        let filter = Filter { with: Some(jid(text)), ..Filter::default() };
        let (names, _) = page(&store, &PageQuery { filter: filter.clone(), ..query(Edge::First, 10) }).await;
        assert_eq!(store.count(&alice(), &filter, at(0)).await.unwrap() as usize, names.len());
        names.join(" ")
    };
    assert_eq!(with("alice@example.org").await, "self self2");
    assert_eq!(with("alice@example.org/phone").await, "self");
    assert_eq!(with("bob@example.net").await, "bob bare other");
    assert_eq!(with("bob@example.net/b").await, "other");
    assert_eq!(with("bob@example.net/c").await, "");
    assert_eq!(with("example.net").await, "");
}

pub async fn a_page_is_bounded_in_bytes_but_never_empty(database: Database) {
    let store = database.open().await;
    ten(&store).await;
    let bytes = async |edge, max_bytes| {
        let (names, complete) = page(&store, &PageQuery { max_bytes, ..query(edge, 10) }).await;
        (names.join(" "), complete)
    };
    // Bodies are of 0, 10, 20 … 90 bytes.
    assert_eq!(bytes(Edge::First, 60).await, ("0 1 2 3".to_owned(), false));
    assert_eq!(bytes(Edge::First, 59).await, ("0 1 2".to_owned(), false));
    assert_eq!(bytes(Edge::After(id(7)), 1).await, ("8".to_owned(), false));
    assert_eq!(bytes(Edge::After(id(8)), 1).await, ("9".to_owned(), true));
    assert_eq!(bytes(Edge::Last, 170).await, ("8 9".to_owned(), false));
    assert_eq!(bytes(Edge::Last, 0).await, ("9".to_owned(), false));
    assert!(bytes(Edge::First, 450).await.1);
}

pub async fn the_ends_are_the_oldest_and_the_newest(database: Database) {
    let store = database.open().await;
    assert_eq!(store.ends(&alice(), at(0)).await.unwrap(), None);
    store.register_account(&alice(), at(0)).await.unwrap();
    assert_eq!(store.ends(&alice(), at(0)).await.unwrap(), None);
    ten(&store).await;
    let (oldest, newest) = store.ends(&alice(), at(0)).await.unwrap().unwrap();
    assert_eq!((names(&[oldest, newest.clone()]).join(" "), newest.at), ("0 9".to_owned(), at(9)));
    assert_eq!(store.count(&alice(), &Filter::default(), at(0)).await.unwrap(), 10);
}

pub async fn an_archive_answers_for_its_owner_only(database: Database) {
    let store = database.open().await;
    ten(&store).await;
    let mut others = copy("z", "alice@example.org");
    others.owner = owner("bob");
    store.append(&[message("", at(0), vec![others])]).await.unwrap();
    let bobs = PageQuery { owner: owner("bob"), ..query(Edge::First, 100) };
    assert_eq!(page(&store, &bobs).await.0, ["z"]);
    let nobodys = PageQuery { owner: owner("nobody"), ..query(Edge::First, 100) };
    assert_eq!(page(&store, &nobodys).await, (Vec::new(), true));
    assert_eq!(store.count(&owner("nobody"), &Filter::default(), at(0)).await.unwrap(), 0);
}
