use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use jid::Jid;
use tokio::time::timeout;

use super::*;
use crate::model::{ArchiveId, Class, Copy, Direction, Owner, StoredCopy, Timestamp};
use crate::store::{ArchiveTotals, Filter, Page, PageQuery, Purged};

const LONG: Duration = Duration::from_secs(20);

/// A store that only appends, and fails as told.
#[derive(Default)]
struct FakeStore {
    /// Bodies in the order stored.
    stored: Mutex<Vec<String>>,
    seen: Mutex<BTreeSet<(Owner, ArchiveId)>>,
    batches: Mutex<Vec<usize>>,
    /// How many appends still find the database away.
    away: AtomicUsize,
    /// Appends take a permit each.
    gate: Option<tokio::sync::Semaphore>,
    attempts: AtomicUsize,
}

#[async_trait]
impl ArchiveStore for FakeStore {
    async fn append(&self, batch: &[ArchivedMessage]) -> Result<Vec<Vec<Appended>>, StoreError> {
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        self.attempts.fetch_add(1, Ordering::SeqCst);
        let away = self.away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if away.is_ok() {
            return Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut));
        }
        if batch.iter().any(|message| message.body.starts_with(b"poison")) {
            return Err(StoreError::Database(sqlx::Error::Protocol("no".to_owned())));
        }
        self.batches.lock().unwrap().push(batch.len());
        let mut stored = self.stored.lock().unwrap();
        let mut results = Vec::new();
        for message in batch {
            let mut copies = Vec::new();
            for copy in &message.copies {
                let new = self.seen.lock().unwrap().insert((copy.owner.clone(), copy.archive_id.clone()));
                copies.push(if new { Appended::Stored(1) } else { Appended::Duplicate });
            }
            if copies.contains(&Appended::Stored(1)) {
                stored.push(String::from_utf8(message.body.to_vec()).unwrap());
            }
            results.push(copies);
        }
        Ok(results)
    }

    async fn page(&self, _: &PageQuery, _: Timestamp) -> Result<Page, StoreError> {
        Err(StoreError::Corrupt("not asked"))
    }
    async fn count(&self, _: &Owner, _: &Filter, _: Timestamp) -> Result<u64, StoreError> {
        Err(StoreError::Corrupt("not asked"))
    }
    async fn ends(&self, _: &Owner, _: Timestamp) -> Result<Option<(StoredCopy, StoredCopy)>, StoreError> {
        Err(StoreError::Corrupt("not asked"))
    }
    async fn purge(&self, _: Timestamp, _: u32) -> Result<Purged, StoreError> {
        Err(StoreError::Corrupt("not asked"))
    }
    async fn purge_backlog(&self, _: Timestamp) -> Result<(u64, Option<Timestamp>), StoreError> {
        Err(StoreError::Corrupt("not asked"))
    }
    async fn archive_id_secret(&self) -> Result<[u8; 32], StoreError> {
        Err(StoreError::Corrupt("not asked"))
    }
    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
    async fn archive_totals(&self) -> Result<ArchiveTotals, StoreError> {
        Err(StoreError::Corrupt("not asked"))
    }
}

fn message(text: &str) -> ArchivedMessage {
    let copy = |owner: &str, direction| Copy {
        owner: Owner::parse(owner).unwrap(),
        archive_id: ArchiveId::parse(text).unwrap(),
        direction,
        peer: Jid::new("peer@example.org").unwrap(),
        own_resource: None,
        expires_at: None,
    };
    ArchivedMessage {
        key_exchanges: Vec::new(),
        class: Class::Content,
        at: Timestamp::from_micros(0),
        body: Bytes::from(text.to_owned()),
        origin: None,
        retracts: None,
        copies: vec![copy("a@x", Direction::Sent), copy("b@x", Direction::Received)],
    }
}

fn settings() -> IngestSettings {
    IngestSettings {
        queue: 64,
        batch_max: 16,
        retry_first: Duration::from_millis(1),
        retry_max: Duration::from_millis(4),
        ..IngestSettings::default()
    }
}

struct Writer {
    handle: IngestHandle<usize>,
    committed: mpsc::Receiver<Committed<usize>>,
    store: Arc<FakeStore>,
    registry: prometheus::Registry,
}

fn start(store: FakeStore, settings: IngestSettings) -> Writer {
    let registry = prometheus::Registry::new();
    let metrics = ArchiveMetrics::register(&registry).unwrap();
    let store = Arc::new(store);
    let (handle, committed) = Ingest::start(store.clone(), settings, metrics);
    Writer { handle, committed, store, registry }
}

impl Writer {
    fn figure(&self, series: &str) -> u64 {
        let text = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// Invariant 1: acknowledged means durable, and retries do not reorder.
#[tokio::test]
async fn everything_is_stored_in_order_though_the_database_goes_away() {
    let mut writer = start(FakeStore { away: AtomicUsize::new(7), ..FakeStore::default() }, settings());
    let handle = writer.handle.clone();
    let submitting = tokio::spawn(async move {
        for number in 0..200 {
            handle.submit(message(&format!("m{number:03}")), number).await.unwrap();
        }
    });
    for expected in 0..200 {
        let committed = timeout(LONG, writer.committed.recv()).await.unwrap().unwrap();
        assert_eq!(committed.token, expected);
        assert_eq!(committed.result.unwrap(), [Appended::Stored(1), Appended::Stored(1)]);
        // The word comes after the deed.
        assert!(writer.store.stored.lock().unwrap().len() > expected);
    }
    submitting.await.unwrap();
    let stored = writer.store.stored.lock().unwrap().clone();
    assert_eq!(stored, (0..200).map(|number| format!("m{number:03}")).collect::<Vec<_>>());
    assert_eq!(writer.figure("multiend_archive_append_retries_total"), 7);
    assert_eq!(writer.figure("multiend_archive_copies_total{class=\"content\",result=\"stored\"}"), 400);
    assert_eq!(writer.figure("multiend_archive_queue_messages"), 0);
    let batches = writer.store.batches.lock().unwrap().clone();
    assert!(batches.iter().all(|size| *size <= 16) && batches.len() < 200, "{batches:?}");
}

#[tokio::test]
async fn a_message_that_the_database_refuses_is_rejected_alone() {
    let mut writer = start(FakeStore::default(), settings());
    for (number, text) in ["one", "poison", "two", "two", "three"].into_iter().enumerate() {
        writer.handle.submit(message(text), number).await.unwrap();
    }
    let mut results = Vec::new();
    for expected in 0..5 {
        let committed = timeout(LONG, writer.committed.recv()).await.unwrap().unwrap();
        assert_eq!(committed.token, expected);
        results.push(committed.result.map(|copies| copies[0]).map_err(|_| "rejected"));
    }
    let stored = Ok(Appended::Stored(1));
    assert_eq!(results, [stored, Err("rejected"), stored, Ok(Appended::Duplicate), stored]);
    assert_eq!(*writer.store.stored.lock().unwrap(), ["one", "two", "three"]);
    assert_eq!(writer.figure("multiend_archive_copies_total{class=\"content\",result=\"rejected\"}"), 2);
    assert_eq!(writer.figure("multiend_archive_copies_total{class=\"content\",result=\"duplicate\"}"), 2);
}

#[tokio::test]
async fn a_message_without_copies_keeps_its_place_and_is_not_stored() {
    let mut writer = start(FakeStore::default(), settings());
    let passing = |text: &str| ArchivedMessage { copies: Vec::new(), ..message(text) };
    for (number, message) in [passing("p1"), message("one"), passing("p2"), message("two")].into_iter().enumerate() {
        writer.handle.submit(message, number).await.unwrap();
    }
    for copies in [0, 2, 0, 2].into_iter().enumerate() {
        let committed = timeout(LONG, writer.committed.recv()).await.unwrap().unwrap();
        assert_eq!((committed.token, committed.result.unwrap().len()), copies);
    }
    assert_eq!(*writer.store.stored.lock().unwrap(), ["one", "two"]);
    assert_eq!(writer.figure("multiend_archive_queue_messages"), 0);
}

#[tokio::test]
async fn a_barrier_waits_for_what_came_before_it_and_no_longer() {
    let gate = tokio::sync::Semaphore::new(0);
    let settings = IngestSettings { batch_max: 1, ..settings() };
    let writer = start(FakeStore { gate: Some(gate), ..FakeStore::default() }, settings);
    timeout(LONG, writer.handle.barrier()).await.unwrap().unwrap();
    writer.handle.submit(message("before"), 0).await.unwrap();
    let barrier = writer.handle.barrier();
    tokio::pin!(barrier);
    assert!(timeout(Duration::from_millis(20), &mut barrier).await.is_err());
    writer.handle.submit(message("after"), 1).await.unwrap();
    writer.store.gate.as_ref().unwrap().add_permits(1);
    timeout(LONG, barrier).await.unwrap().unwrap();
    assert_eq!(*writer.store.stored.lock().unwrap(), ["before"]);
    assert_eq!(writer.figure("multiend_archive_queue_messages"), 1);
}

#[tokio::test]
async fn a_full_queue_makes_the_submitter_wait() {
    let gate = tokio::sync::Semaphore::new(0);
    let settings = IngestSettings { queue: 2, batch_max: 1, ..settings() };
    let writer = start(FakeStore { gate: Some(gate), ..FakeStore::default() }, settings);
    let mut accepted = 0;
    while timeout(Duration::from_millis(200), writer.handle.submit(message(&format!("m{accepted}")), 0)).await.is_ok() {
        accepted += 1;
    }
    // Two in the queue, one with the writer.
    assert_eq!(accepted, 3);
    writer.store.gate.as_ref().unwrap().add_permits(1);
    timeout(LONG, writer.handle.submit(message("later"), 0)).await.unwrap().unwrap();
}

#[tokio::test]
async fn dropping_the_handles_drains_the_queue_and_ends_the_writer() {
    let mut writer = start(FakeStore { away: AtomicUsize::new(3), ..FakeStore::default() }, settings());
    for number in 0..40 {
        writer.handle.submit(message(&format!("m{number:02}")), number).await.unwrap();
    }
    drop(writer.handle);
    let mut tokens = Vec::new();
    while let Some(committed) = timeout(LONG, writer.committed.recv()).await.unwrap() {
        tokens.push(committed.token);
    }
    assert_eq!(tokens, (0..40).collect::<Vec<_>>());
    assert_eq!(writer.store.stored.lock().unwrap().len(), 40);
}

#[tokio::test]
async fn what_was_accepted_is_stored_even_if_nobody_listens() {
    let writer = start(FakeStore::default(), settings());
    drop(writer.committed);
    for number in 0..100 {
        writer.handle.submit(message(&format!("m{number:02}")), number).await.unwrap();
    }
    timeout(LONG, writer.handle.barrier()).await.unwrap().unwrap();
    assert_eq!(writer.store.stored.lock().unwrap().len(), 100);
}

#[tokio::test]
async fn batches_are_bounded_by_bytes() {
    let gate = tokio::sync::Semaphore::new(0);
    let settings = IngestSettings { batch_bytes: 10, ..settings() };
    let writer = start(FakeStore { gate: Some(gate), ..FakeStore::default() }, settings);
    for number in 0..12 {
        writer.handle.submit(message(&format!("m{number:03}")), number).await.unwrap();
    }
    writer.store.gate.as_ref().unwrap().add_permits(100);
    timeout(LONG, writer.handle.barrier()).await.unwrap().unwrap();
    let batches = writer.store.batches.lock().unwrap().clone();
    assert!(batches.iter().all(|size| *size <= 3), "{batches:?}");
    assert_eq!(batches.iter().sum::<usize>(), 12);
}
