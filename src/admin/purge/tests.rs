use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::model::{ArchivedMessage, Owner, StoredCopy, SystemClock, Timestamp};
use crate::store::{Appended, ArchiveTotals, Filter, Page, PageQuery};

/// A store with these steps of purging ahead.
struct Backlog {
    steps: Mutex<VecDeque<Result<Purged, StoreError>>>,
    limits: Mutex<Vec<u32>>,
}

impl Backlog {
    fn of(steps: Vec<Result<Purged, StoreError>>) -> Arc<Self> {
        Arc::new(Self { steps: Mutex::new(steps.into()), limits: Mutex::default() })
    }

    fn calls(&self) -> usize {
        self.limits.lock().unwrap().len()
    }
}

fn not_asked<T>() -> Result<T, StoreError> {
    Err(StoreError::Corrupt("not asked here"))
}

#[async_trait]
impl ArchiveStore for Backlog {
    async fn purge(&self, _: Timestamp, limit: u32) -> Result<Purged, StoreError> {
        self.limits.lock().unwrap().push(limit);
        self.steps.lock().unwrap().pop_front().unwrap_or(Ok(Purged::default()))
    }
    async fn purge_backlog(&self, _: Timestamp) -> Result<(u64, Option<Timestamp>), StoreError> {
        Ok((0, None))
    }
    async fn append(&self, _: &[ArchivedMessage]) -> Result<Vec<Vec<Appended>>, StoreError> {
        not_asked()
    }
    async fn page(&self, _: &PageQuery, _: Timestamp) -> Result<Page, StoreError> {
        not_asked()
    }
    async fn count(&self, _: &Owner, _: &Filter, _: Timestamp) -> Result<u64, StoreError> {
        not_asked()
    }
    async fn ends(&self, _: &Owner, _: Timestamp) -> Result<Option<(StoredCopy, StoredCopy)>, StoreError> {
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

fn step(expired: u64) -> Result<Purged, StoreError> {
    Ok(Purged { expired, trimmed: 1, bodies: expired })
}

fn metrics() -> ArchiveMetrics {
    ArchiveMetrics::register(&prometheus::Registry::new()).unwrap()
}

#[tokio::test]
async fn purges_in_batches_until_nothing_is_left() {
    let store = Backlog::of(vec![step(10), step(10), step(3)]);
    let settings = PurgeSettings { batch: 10, ..PurgeSettings::default() };
    let stop = CancellationToken::new();
    let total = purge_all(store.as_ref(), &SystemClock, settings, &metrics(), &stop).await.unwrap();
    assert_eq!(total, Purged { expired: 23, trimmed: 3, bodies: 23 });
    assert_eq!(*store.limits.lock().unwrap(), [10; 4]);
}

#[tokio::test]
async fn goes_on_after_a_failure_and_stops_when_told() {
    let away = || Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut));
    let store = Backlog::of(vec![step(1), away(), away(), step(2)]);
    let settings = PurgeSettings { batch: 10, interval: Duration::from_millis(1) };
    let stop = CancellationToken::new();
    let purging = tokio::spawn(run(store.clone(), Arc::new(SystemClock), settings, metrics(), stop.clone()));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while store.calls() < 6 {
        assert!(tokio::time::Instant::now() < deadline, "only {} calls", store.calls());
        tokio::task::yield_now().await;
    }
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), purging).await.unwrap().unwrap();
    assert!(store.steps.lock().unwrap().is_empty());
}
