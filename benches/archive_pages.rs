//! Reading an archive of 10,000 copies in tables of growing size, hot and after a restart of the database; what a device saves
//! that catches up; and storing while a million expired copies are purged. On a PostgreSQL of its own with fsync on.
//!
//! `SCALE=10m` adds ten million copies to the table sizes (default 10,000 and 1,000,000; `SCALE=100k` stops at 100,000).
//! With the argument `pages` or `purge`, only that half of it.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    unreachable_pub
)]

#[path = "support/figures.rs"]
mod figures;
#[path = "support/messages.rs"]
mod messages;

#[path = "../tests/support"]
#[allow(dead_code)]
mod support {
    pub mod ports;
    pub mod postgres;
    pub mod process;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use figures::Figures;
use multiend::admin::purge::{PurgeSettings, purge_all};
use multiend::archive::metrics::ArchiveMetrics;
use multiend::archive::view::Viewer;
use multiend::model::{ArchivedMessage, Clock as _, Owner, Protocol, SystemClock, Timestamp};
use multiend::store::{self, Edge, Filter, Page, PageQuery, SharedStore};
use support::postgres::{Fsync, Postgres};
use tokio_util::sync::CancellationToken;

/// Copies of the account whose archive is read.
const OWN: u64 = 10_000;
const BATCH: usize = 128;
/// Pages of each kind: so many that four connections that are new, after a restart, are not the slowest hundredth.
const PAGES: u64 = 1_000;
/// How long messages are stored before, and at most during, the purge.
const TURN: Duration = Duration::from_secs(15);

fn main() {
    // `cargo test` builds benchmarks, and has nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let scale = std::env::var("SCALE").unwrap_or_default();
    let only = |half: &str| std::env::args().any(|argument| argument == half);
    let mut figures = Figures::default();
    if !only("purge") {
        pages(&mut figures, &scale).await;
    }
    if !only("pages") {
        purge(&mut figures, if scale == "100k" { 100_000 } else { 1_000_000 }).await;
    }
    figures.write("archive-pages");
}

async fn pages(figures: &mut Figures, scale: &str) {
    let sizes: &[(u64, &str)] = match scale {
        "100k" => &[(10_000, "10k"), (100_000, "100k")],
        "10m" => &[(10_000, "10k"), (1_000_000, "1m"), (10_000_000, "10m")],
        _ => &[(10_000, "10k"), (1_000_000, "1m")],
    };
    let mut smallest = None;
    for (copies, name) in sizes {
        let mut postgres = Postgres::start(Fsync::On);
        let url = postgres.fresh_database().await;
        store::migrate(&url).await.unwrap();
        let store = store::open(&url, 4).await.unwrap();
        fill(&store, *copies).await;
        let archive = Arc::new(Archive::of(&store).await);
        for edge in ["first", "middle", "last"] {
            archive.pages(&store, edge, 20).await;
            let times = archive.pages(&store, edge, PAGES).await;
            figures.plain(&format!("{name}, hot, {edge}: p50"), times.p50, "ms");
            figures.at_most(&format!("{name}, hot, {edge}: p99"), times.p99, "ms", 10.0);
            figures.plain(&format!("{name}, hot, {edge}: slowest"), times.most, "ms");
            if edge == "middle" {
                let smallest = *smallest.get_or_insert(times.p50);
                figures.at_most(&format!("{name}, hot, {edge}: p50 to that at 10k"), times.p50 / smallest, "x", 1.5);
            }
        }
        if *copies == 10_000 {
            figures.at_most("catch-up of 1,000 messages, trimmed to whole", archive.catch_up(&store).await, "x", 0.35);
        }
        drop(store);
        postgres.restart();
        let store = store::open(&url, 4).await.unwrap();
        let times = archive.pages(&store, "middle", PAGES).await;
        figures.plain(&format!("{name}, after a restart, middle: p50"), times.p50, "ms");
        figures.at_most(&format!("{name}, after a restart, middle: p99"), times.p99, "ms", 10.0);
        figures.plain(&format!("{name}, after a restart, middle: slowest"), times.most, "ms");
    }
}

fn begin() -> Timestamp {
    Timestamp::from_micros(1_780_000_000_000_000)
}

/// The messages of account 0 among those of others, as far apart from each other as they would be.
async fn fill(store: &SharedStore, copies: u64) {
    let messages = copies / 2;
    let every = (messages / (OWN / 2)).max(1);
    let mut batch = Vec::with_capacity(BATCH);
    for number in 0..messages {
        let at = begin().plus(Duration::from_millis(number * 100));
        let protocol = if number.is_multiple_of(2) { Protocol::Legacy } else { Protocol::Omemo2 };
        let mut message = messages::message(protocol, number, at, None);
        if number.is_multiple_of(every) {
            to_account_zero(&mut message, number);
        }
        batch.push(message);
        if batch.len() == BATCH || number + 1 == messages {
            store.append(&batch).await.unwrap();
            batch.clear();
        }
    }
}

/// Makes both copies those of account 0, with one of its contacts: what it sent is what it received.
fn to_account_zero(message: &mut ArchivedMessage, number: u64) {
    let contact = messages::account(1 + number % 20);
    for copy in &mut message.copies {
        copy.owner = Owner::parse(&messages::account(0)).unwrap();
        copy.peer = jid::Jid::new(&contact).unwrap();
    }
    message.body = messages::body(Protocol::Omemo2, number, (1 + number % 20, 0)).into();
}

struct Archive {
    owner: Owner,
    middle: Vec<multiend::model::ArchiveId>,
}

struct Times {
    p50: f64,
    p99: f64,
    most: f64,
}

impl Archive {
    async fn of(store: &SharedStore) -> Self {
        let owner = Owner::parse(&messages::account(0)).unwrap();
        let mut this = Self { owner, middle: Vec::new() };
        let (mut edge, mut ids) = (Edge::First, Vec::new());
        loop {
            let (copies, complete) = this.page(store, edge, 500).await;
            ids.extend(copies.iter().map(|copy| copy.archive_id.clone()));
            if complete {
                break;
            }
            edge = Edge::After(ids.last().unwrap().clone());
        }
        this.middle = ids.split_off(ids.len() / 4);
        this.middle.truncate(this.middle.len() / 2);
        this
    }

    async fn page(&self, store: &SharedStore, edge: Edge, max: u32) -> (Vec<multiend::model::StoredCopy>, bool) {
        let query = PageQuery { owner: self.owner.clone(), filter: Filter::default(), edge, max, max_bytes: 16 << 20 };
        match store.page(&query, SystemClock.now()).await.unwrap() {
            Page::Copies { copies, complete, .. } => (copies, complete),
            Page::UnknownId(id) => panic!("{id} is not there"),
        }
    }

    /// Reads in a task of the runtime, as the program does: outside of it, another thread wakes who waits.
    async fn pages(self: &Arc<Self>, store: &SharedStore, edge: &'static str, count: u64) -> Times {
        tokio::spawn(self.clone().read(store.clone(), edge, count)).await.unwrap()
    }

    async fn read(self: Arc<Self>, store: SharedStore, edge: &'static str, count: u64) -> Times {
        let mut times = Vec::new();
        for n in 0..count {
            let place = messages::Noise::new(n).below(self.middle.len() as u64) as usize;
            let edge = match edge {
                "first" => Edge::First,
                "middle" => Edge::After(self.middle[place].clone()),
                _ => Edge::Last,
            };
            let started = Instant::now();
            let (copies, _) = self.page(&store, edge, 50).await;
            times.push(started.elapsed().as_secs_f64() * 1_000.0);
            assert_eq!(copies.len(), 50);
        }
        times.sort_by(f64::total_cmp);
        let [p50, p99] = [50, 99].map(|hundredth| times[times.len() * hundredth / 100]);
        Times { p50, p99, most: times[times.len() - 1] }
    }

    /// Bytes of messages that one device is given of its last 1,000, to what they would be with the headers of all.
    async fn catch_up(&self, store: &SharedStore) -> f64 {
        let viewer = Viewer::new(self.owner.clone()).with_devices(Protocol::Omemo2, [messages::device_id(0, 0)]);
        let (copies, _) = self.page(store, Edge::Last, 1_000).await;
        let (mut whole, mut trimmed) = (0, 0);
        for body in copies.iter().filter_map(|copy| copy.body.as_ref()) {
            let view = viewer.view(body).unwrap();
            assert!(view.not_for_viewer.is_empty());
            whole += body.len();
            trimmed += view.body.len();
        }
        trimmed as f64 / whole as f64
    }
}

/// Stores messages for a time, or until told to stop; gives copies per second.
async fn store_for(store: &SharedStore, next: &AtomicU64, stop: &AtomicBool) -> f64 {
    let (started, mut stored) = (Instant::now(), 0_u64);
    while started.elapsed() < TURN && !stop.load(Ordering::Relaxed) {
        let first = next.fetch_add(BATCH as u64, Ordering::Relaxed);
        let batch: Vec<_> = (first..first + BATCH as u64)
            .map(|number| messages::message(Protocol::Legacy, number, SystemClock.now(), None))
            .collect();
        store.append(&batch).await.unwrap();
        stored += BATCH as u64 * 2;
    }
    stored as f64 / started.elapsed().as_secs_f64()
}

async fn purge(figures: &mut Figures, copies: u64) {
    let postgres = Postgres::start(Fsync::On);
    let url = postgres.fresh_database().await;
    store::migrate(&url).await.unwrap();
    let store = store::open(&url, 4).await.unwrap();
    let next = AtomicU64::new(0);
    while next.load(Ordering::Relaxed) * 2 < copies {
        let first = next.fetch_add(BATCH as u64, Ordering::Relaxed);
        let batch: Vec<_> = (first..first + BATCH as u64)
            .map(|number| {
                let at = begin().plus(Duration::from_millis(number));
                messages::message(Protocol::Legacy, number, at, Some(at.plus(Duration::from_secs(1))))
            })
            .collect();
        store.append(&batch).await.unwrap();
    }
    let before = store_for(&store, &next, &AtomicBool::new(false)).await;
    let done = Arc::new(AtomicBool::new(false));
    let purging = {
        let (store, done) = (store.clone(), done.clone());
        tokio::spawn(async move {
            let started = Instant::now();
            let metrics = ArchiveMetrics::register(&prometheus::Registry::new()).unwrap();
            let (settings, stop) = (PurgeSettings::default(), CancellationToken::new());
            let total = purge_all(store.as_ref(), &SystemClock, settings, &metrics, &stop).await.unwrap();
            done.store(true, Ordering::Relaxed);
            (total, started.elapsed())
        })
    };
    let during = store_for(&store, &next, &done).await;
    let (purged, took) = purging.await.unwrap();
    // Two copies of each message; every one of them has expired, and none of what was stored since.
    assert!(purged.expired >= copies && purged.expired == purged.trimmed, "{purged:?}");
    assert_eq!(purged.bodies * 2, purged.expired, "{purged:?}");
    figures.plain("purge: expired copies", purged.expired as f64, "copies");
    figures.plain("purge: as fast as", purged.expired as f64 / took.as_secs_f64(), "copies/s");
    figures.plain("storing before the purge", before, "copies/s");
    figures.at_least("storing during the purge to before", during / before, "x", 0.8);
}
