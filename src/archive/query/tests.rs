use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;

use super::*;
use crate::model::{ArchivedMessage, DeviceId, DeviceList, PublishedBundle, SessionJid};
use crate::stanza::tree::Element;
use crate::store::{
    Appended, ArchiveStore, ArchiveTotals, BundlePublished, Claim, ClaimOutcome, DirectoryStore, DirectoryTotals,
    ListPublished, NodeKind, Purged, Stock,
};

const ALICE: &str = "alice@example.org";
const OMEMO2: &str = "<message type='chat' id='1'><encrypted xmlns='urn:xmpp:omemo:2'><header sid='100'>\
    <keys jid='bob@example.org'><key rid='1'>QUFB</key></keys>\
    <keys jid='alice@example.org'><key rid='3'>Q0ND</key><key rid='4'>RERE</key></keys></header>\
    <payload>UEFZ</payload></encrypted></message>";

/// A store that answers one page, knows one session, and remembers what it was asked.
struct OnePage {
    answer: Mutex<Option<Result<Page, StoreError>>>,
    count: u64,
    asked: Mutex<Vec<PageQuery>>,
}

fn not_asked<T>() -> Result<T, StoreError> {
    Err(StoreError::Corrupt("not asked here"))
}

#[async_trait]
impl ArchiveStore for OnePage {
    async fn page(&self, query: &PageQuery, _: Timestamp) -> Result<Page, StoreError> {
        self.asked.lock().unwrap().push(query.clone());
        self.answer.lock().unwrap().take().unwrap()
    }
    async fn count(&self, _: &Owner, _: &Filter, _: Timestamp) -> Result<u64, StoreError> {
        Ok(self.count)
    }
    async fn ends(&self, _: &Owner, _: Timestamp) -> Result<Option<(StoredCopy, StoredCopy)>, StoreError> {
        Ok(Some((copy("first", OMEMO2), copy("last", OMEMO2))))
    }
    async fn append(&self, _: &[ArchivedMessage]) -> Result<Vec<Vec<Appended>>, StoreError> {
        not_asked()
    }
    async fn purge(&self, _: Timestamp, _: u32) -> Result<Purged, StoreError> {
        not_asked()
    }
    async fn purge_backlog(&self, _: Timestamp) -> Result<(u64, Option<Timestamp>), StoreError> {
        not_asked()
    }
    async fn archive_id_secret(&self) -> Result<[u8; 32], StoreError> {
        not_asked()
    }
    async fn ping(&self) -> Result<(), StoreError> {
        not_asked()
    }
    async fn archive_totals(&self) -> Result<ArchiveTotals, StoreError> {
        not_asked()
    }
}

#[async_trait]
impl DirectoryStore for OnePage {
    async fn session_devices(
        &self,
        owner: &Owner,
        protocol: Protocol,
        session: &SessionJid,
    ) -> Result<Vec<DeviceId>, StoreError> {
        let known = owner.as_str() == ALICE && protocol == Protocol::Omemo2 && session.resource() == "known";
        Ok(if known { vec![DeviceId::new(3).unwrap()] } else { Vec::new() })
    }
    async fn register_account(&self, _: &Owner, _: Timestamp) -> Result<(), StoreError> {
        not_asked()
    }
    async fn account_exists(&self, _: &Owner) -> Result<bool, StoreError> {
        not_asked()
    }
    async fn device_list(
        &self,
        _: &Owner,
        _: Protocol,
        _: Option<&SessionJid>,
    ) -> Result<Option<DeviceList>, StoreError> {
        not_asked()
    }
    async fn publish_device_list(
        &self,
        _: &Owner,
        _: Protocol,
        _: &SessionJid,
        _: &DeviceList,
        _: usize,
        _: Timestamp,
    ) -> Result<ListPublished, StoreError> {
        not_asked()
    }
    async fn list_seen_by(&self, _: &Owner, _: Protocol, _: &[SessionJid]) -> Result<(), StoreError> {
        not_asked()
    }
    async fn delete_device_list(&self, _: &Owner, _: Protocol) -> Result<bool, StoreError> {
        not_asked()
    }
    async fn publish_bundle(
        &self,
        _: &Owner,
        _: Protocol,
        _: DeviceId,
        _: &SessionJid,
        _: &PublishedBundle,
        _: Timestamp,
    ) -> Result<BundlePublished, StoreError> {
        not_asked()
    }
    async fn retract_bundle(&self, _: &Owner, _: Protocol, _: DeviceId) -> Result<bool, StoreError> {
        not_asked()
    }
    async fn published_bundles(
        &self,
        _: &Owner,
        _: Protocol,
        _: Option<&[DeviceId]>,
    ) -> Result<Vec<(DeviceId, String, Bytes)>, StoreError> {
        not_asked()
    }
    async fn claim(&self, _: &Claim, _: Timestamp) -> Result<ClaimOutcome, StoreError> {
        not_asked()
    }
    async fn stock(&self, _: &Owner, _: Protocol, _: DeviceId) -> Result<Stock, StoreError> {
        not_asked()
    }
    async fn subscribe(&self, _: &Owner, _: Protocol, _: NodeKind, _: &Jid, _: u32) -> Result<bool, StoreError> {
        not_asked()
    }
    async fn unsubscribe(&self, _: &Owner, _: Protocol, _: NodeKind, _: &Jid) -> Result<bool, StoreError> {
        not_asked()
    }
    async fn subscribers(&self, _: &Owner, _: Protocol, _: NodeKind) -> Result<Vec<Jid>, StoreError> {
        not_asked()
    }
    async fn learn_session(
        &self,
        _: &Owner,
        _: Protocol,
        _: &SessionJid,
        _: DeviceId,
        _: Timestamp,
    ) -> Result<(), StoreError> {
        not_asked()
    }
    async fn directory_totals(&self) -> Result<DirectoryTotals, StoreError> {
        not_asked()
    }
}

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(0).plus(Duration::from_secs(43_200))
    }
}

fn copy(id: &str, body: &str) -> StoredCopy {
    StoredCopy {
        archive_id: ArchiveId::parse(id).unwrap(),
        sequence: 1,
        at: Timestamp::from_micros(1_000_000),
        direction: Direction::Received,
        peer: BareJid::new("bob@example.org").unwrap(),
        peer_resource: Some("phone".to_owned()),
        own_resource: None,
        class: Class::Content,
        body: (!body.is_empty()).then(|| Bytes::from(body.to_owned())),
    }
}

fn page(copies: Vec<StoredCopy>) -> Result<Page, StoreError> {
    Ok(Page::Copies { copies, complete: true, expired_before: Some(Timestamp::from_micros(7)) })
}

struct Asked {
    answer: Result<Answer, QueryError>,
    query: Option<PageQuery>,
    metrics: String,
}

async fn ask(requester: &str, query: &str, answer: Result<Page, StoreError>) -> Asked {
    let store = Arc::new(OnePage { answer: Mutex::new(Some(answer)), count: 12, asked: Mutex::default() });
    let registry = prometheus::Registry::new();
    let metrics = ArchiveMetrics::register(&registry).unwrap();
    let limits = PageLimits { default: 5, max: 20, max_bytes: 1_000 };
    let archive = Archive::new(store.clone(), limits, Arc::new(Noon), metrics);
    let source = format!("<query xmlns='urn:xmpp:mam:2'>{query}</query>");
    let source = if query.starts_with("node=") { format!("<query xmlns='urn:xmpp:mam:2' {query}/>") } else { source };
    let query = Query::parse(&Element::parse(source.as_bytes()).unwrap()).unwrap();
    let requester = Requester::parse(requester).unwrap();
    let answer = archive.query(&Owner::parse(ALICE).unwrap(), &requester, &query).await;
    let query = store.asked.lock().unwrap().pop();
    let metrics = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    Asked { answer, query, metrics }
}

fn set(content: &str) -> String {
    format!("<set xmlns='http://jabber.org/protocol/rsm'>{content}</set>")
}

/// Invariant 6: an archive answers its owner only.
#[tokio::test]
async fn nobody_but_the_owner_gets_an_answer() {
    for other in ["bob@example.org/phone", "alice@elsewhere.example/known", "example.org", "alicia@example.org"] {
        let asked = ask(other, "", page(vec![copy("a", OMEMO2)])).await;
        assert!(matches!(asked.answer, Err(QueryError::Forbidden)), "{other}");
        assert!(asked.query.is_none(), "the store was asked for {other}");
        assert!(asked.metrics.contains("multiend_archive_queries_total{outcome=\"forbidden\"} 1"));
    }
    assert!(ask("alice@example.org/any", "", page(vec![])).await.answer.is_ok());
    assert!(ask("Alice@Example.org", "", page(vec![])).await.answer.is_ok());
}

#[tokio::test]
async fn pages_are_bounded_whatever_is_asked() {
    for (asked, given) in [("", 5), ("<max>7</max>", 7), ("<max>100000</max>", 20), ("<max>1</max><before/>", 1)] {
        let query = ask("alice@example.org/x", &set(asked), page(vec![])).await.query.unwrap();
        assert_eq!((query.max, query.max_bytes), (given, 1_000), "{asked}");
    }
}

/// Invariant 4: a view trims only where the mapping from session to device is certain.
#[tokio::test]
async fn a_known_device_gets_its_own_headers_only() {
    let trimmed = OMEMO2
        .replace("<keys jid='bob@example.org'><key rid='1'>QUFB</key></keys>", "")
        .replace("<key rid='4'>RERE</key>", "");
    for (requester, expected) in [
        ("alice@example.org/known", trimmed.as_str()),
        ("alice@example.org/unknown", OMEMO2),
        ("alice@example.org", OMEMO2),
    ] {
        let asked = ask(requester, "", page(vec![copy("a", OMEMO2)])).await;
        let answer = asked.answer.unwrap();
        assert_eq!(answer.items[0].body.as_deref(), Some(expected.as_bytes()), "{requester}");
        let saved = format!("multiend_archive_trimmed_bytes_total {}\n", OMEMO2.len() - expected.len());
        assert!(asked.metrics.contains(&saved), "{requester}");
    }
    // Bytes that cannot be read are given whole.
    let answer = ask("alice@example.org/known", "", page(vec![copy("a", "<broken")])).await.answer.unwrap();
    assert_eq!(answer.items[0].body.as_deref(), Some(b"<broken".as_slice()));
}

#[tokio::test]
async fn a_page_says_what_it_holds_also_when_flipped() {
    let sent = StoredCopy {
        direction: Direction::Sent,
        own_resource: Some("tablet".to_owned()),
        peer_resource: None,
        ..copy("c", OMEMO2)
    };
    let copies = vec![copy("a", OMEMO2), copy("b", ""), sent];
    let flat = ask("alice@example.org/x", "", page(copies.clone())).await.answer.unwrap();
    let ids = |answer: &Answer| answer.items.iter().map(|item| item.archive_id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&flat), ["a", "b", "c"]);
    assert!(flat.items[1].body.is_none());
    assert_eq!((flat.items[0].from.as_str(), flat.items[0].to.as_str()), ("bob@example.org/phone", ALICE));
    assert_eq!(
        (flat.items[2].from.as_str(), flat.items[2].to.as_str()),
        ("alice@example.org/tablet", "bob@example.org")
    );
    assert_eq!(flat.fin.expired_before, Some(Timestamp::from_micros(7)));

    let flipped = ask("alice@example.org/x", "<flip-page/>", page(copies)).await.answer.unwrap();
    assert_eq!(ids(&flipped), ["c", "b", "a"]);
    assert_eq!(flipped.fin, flat.fin);
    assert_eq!(flipped.fin.set.ends, Some(("a".to_owned(), "c".to_owned())));
    assert!(ask("alice@example.org/x", "", page(vec![])).await.answer.unwrap().fin.set.ends.is_none());
}

#[tokio::test]
async fn a_page_of_nothing_asks_for_the_count() {
    let asked = ask("alice@example.org/x", &set("<max>0</max>"), page(vec![copy("a", OMEMO2)])).await;
    let answer = asked.answer.unwrap();
    assert!(answer.items.is_empty() && answer.fin.set.ends.is_none() && !answer.fin.complete);
    assert_eq!(answer.fin.set.count, Some(12));
    let id = ArchiveId::parse("gone").unwrap();
    let unknown = ask("alice@example.org/x", &set("<max>0</max>"), Ok(Page::UnknownId(id))).await;
    assert!(matches!(unknown.answer, Err(QueryError::UnknownId(_))));
}

#[tokio::test]
async fn errors_say_what_a_client_can_do() {
    let id = ArchiveId::parse("gone").unwrap();
    let unknown = ask("alice@example.org/x", "", Ok(Page::UnknownId(id.clone()))).await.answer;
    assert!(matches!(unknown, Err(QueryError::UnknownId(found)) if found == id));
    let away = ask("alice@example.org/x", "", Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut))).await.answer;
    assert!(matches!(away, Err(QueryError::Unavailable(_))));
    let failed = ask("alice@example.org/x", "", Err(StoreError::Corrupt("x"))).await;
    assert!(matches!(failed.answer, Err(QueryError::Failed(_))));
    assert!(failed.metrics.contains("multiend_archive_queries_total{outcome=\"failed\"} 1"));
    let node = ask("alice@example.org/x", "node='urn:example'", page(vec![])).await.answer;
    assert!(matches!(node, Err(QueryError::UnknownNode)));
}

#[tokio::test]
async fn metadata_names_the_ends_for_the_owner() {
    let store = Arc::new(OnePage { answer: Mutex::default(), count: 0, asked: Mutex::default() });
    let metrics = ArchiveMetrics::register(&prometheus::Registry::new()).unwrap();
    let archive = Archive::new(store, PageLimits::default(), Arc::new(Noon), metrics);
    let owner = Owner::parse(ALICE).unwrap();
    let of = |requester: &str| {
        let requester = Requester::parse(requester).unwrap();
        let (archive, owner) = (archive.clone(), owner.clone());
        async move { archive.metadata(&owner, &requester).await }
    };
    let ends = of("alice@example.org/x").await.unwrap().unwrap();
    assert_eq!((ends.oldest.0.as_str(), ends.newest.0.as_str()), ("first", "last"));
    assert!(matches!(of("bob@example.org").await, Err(QueryError::Forbidden)));
}
