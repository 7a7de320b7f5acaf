//! Figures that stand in the database: how prekeys are distributed over devices, what waits, how large it is. Nothing of
//! this is read when somebody asks for `/metrics`: one task reads it now and then, page by page, and rests four times as
//! long as each page took. So it never has more than a fifth of one connection, however large the database is.

use std::time::{Duration, Instant};

use prometheus::{Gauge, HistogramOpts, IntGauge, IntGaugeVec, Opts, Registry};
use tokio_util::sync::CancellationToken;

use super::snapshot_histogram::SnapshotHistogram;
use crate::archive::ArchiveMetrics;
use crate::model::{Clock, Protocol};
use crate::store::{Backlog, CensusPage, CensusPlace, SharedStore, StoreError};

/// Devices of one page.
const PAGE: u32 = 500;
/// The rest after a page, in times of what it took.
const REST: u32 = 4;
/// The shortest rest.
const SHORTEST_REST: Duration = Duration::from_millis(1);
/// What waits is looked at so often, if walks are no more frequent.
const LOOK: Duration = Duration::from_secs(15);

/// Upper bounds of the stock of a device: none, nearly none, low by default (20), and the steps of a bundle of 100.
const STOCK: [f64; 9] = [0.0, 1.0, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0];
/// Upper bounds of the copies that a device has not read.
const UNREAD: [f64; 8] = [0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0];

/// Gauges and distributions, all there from the start.
#[derive(Clone)]
pub struct CensusMetrics {
    stock: SnapshotHistogram,
    unread: SnapshotHistogram,
    waiting: IntGaugeVec,
    oldest: IntGaugeVec,
    database_bytes: IntGauge,
    store_up: IntGauge,
    walk_seconds: Gauge,
    walked_at: Gauge,
}

const NOTICES: &str = "notices";
const DEAD_LETTERS: &str = "dead-letters";

impl CensusMetrics {
    /// Makes and registers them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let stock = HistogramOpts::new(
            "multiend_directory_stock_prekeys",
            "Unissued prekeys of a device with a bundle: how devices are distributed, as of the last walk",
        );
        let unread = HistogramOpts::new(
            "multiend_archive_unread_copies",
            "Copies that a device has not read: how devices that say how far they have read are distributed, as of the last walk",
        );
        let protocols = Protocol::ALL.map(|protocol| vec![protocol.name()]).to_vec();
        let gauges = |name: &str, help: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["what"])?;
            registry.register(Box::new(gauges.clone()))?;
            for what in [NOTICES, DEAD_LETTERS] {
                gauges.with_label_values(&[what]);
            }
            Ok::<_, prometheus::Error>(gauges)
        };
        let integer = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let seconds = |name: &str, help: &str| {
            let gauge = Gauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            stock: SnapshotHistogram::register(registry, stock.buckets(STOCK.to_vec()), &["protocol"], protocols)?,
            unread: SnapshotHistogram::register(registry, unread.buckets(UNREAD.to_vec()), &[], vec![Vec::new()])?,
            waiting: gauges("multiend_store_waiting", "Rows that wait for somebody, counted up to 100,000")?,
            oldest: gauges("multiend_store_oldest_waiting_seconds", "How long the oldest of them has waited")?,
            database_bytes: integer("multiend_store_database_bytes", "Bytes of the database on the disk")?,
            store_up: integer("multiend_store_up", "1 if the database answered when it was last asked, else 0")?,
            walk_seconds: seconds("multiend_census_walk_seconds", "Time of the last walk over all devices")?,
            walked_at: seconds(
                "multiend_census_walked_timestamp_seconds",
                "When the last walk over all devices ended, since 1970; 0: none yet",
            )?,
        })
    }
}

/// What looks.
pub struct Census {
    /// Where.
    pub store: SharedStore,
    /// When.
    pub clock: std::sync::Arc<dyn Clock>,
    /// What it finds.
    pub metrics: CensusMetrics,
    /// What it finds of the archive.
    pub archive: ArchiveMetrics,
    /// The rest between two walks.
    pub interval: Duration,
}

impl Census {
    /// Looks until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            // Not after each other: a walk may take long, and what waits may become urgent.
            _ = async { tokio::join!(self.look(), self.walk()) } => {}
        }
    }

    /// What waits.
    async fn look(&self) {
        loop {
            let now = self.clock.now();
            match self.store.waiting(now).await {
                Ok(waiting) => {
                    self.metrics.store_up.set(1);
                    self.metrics.database_bytes.set(gauge(waiting.database_bytes));
                    for (what, backlog) in [(NOTICES, waiting.notices), (DEAD_LETTERS, waiting.dead_letters)] {
                        let Backlog { count, oldest } = backlog;
                        let seconds = oldest.map_or(0, |oldest| now.since(oldest).as_secs());
                        self.metrics.waiting.with_label_values(&[what]).set(gauge(count));
                        self.metrics.oldest.with_label_values(&[what]).set(gauge(seconds));
                    }
                    self.archive.purge_backlog(waiting.expired.count, waiting.expired.oldest, now);
                }
                Err(error) => {
                    self.metrics.store_up.set(0);
                    tracing::debug!(%error, "the figures of the database cannot be read now");
                }
            }
            tokio::time::sleep(self.interval.min(LOOK)).await;
        }
    }

    /// How things are distributed over devices.
    async fn walk(&self) {
        loop {
            let started = Instant::now();
            match self.walk_once().await {
                Ok(()) => {
                    self.metrics.walk_seconds.set(started.elapsed().as_secs_f64());
                    let micros = u64::try_from(self.clock.now().micros()).unwrap_or(0);
                    self.metrics.walked_at.set(Duration::from_micros(micros).as_secs_f64());
                }
                Err(error) => tracing::debug!(%error, "the figures of devices cannot be read now"),
            }
            tokio::time::sleep(self.interval).await;
        }
    }

    async fn walk_once(&self) -> Result<(), StoreError> {
        let stock = self.metrics.stock.begin()?;
        pages(
            |after| self.store.stock_page(after, PAGE),
            |(protocol, unissued)| stock.with_label_values(&[protocol.name()]).observe(float(unissued)),
        )
        .await?;
        self.metrics.stock.publish(stock);
        let unread = self.metrics.unread.begin()?;
        let devices = unread.with_label_values::<&str>(&[]);
        pages(|after| self.store.unread_page(after, PAGE), |copies| devices.observe(float(copies))).await?;
        self.metrics.unread.publish(unread);
        Ok(())
    }
}

/// Reads page after page, with rests.
async fn pages<T, R>(read: impl Fn(Option<CensusPlace>) -> R, mut found: impl FnMut(T)) -> Result<(), StoreError>
where
    R: Future<Output = Result<CensusPage<T>, StoreError>>,
{
    let mut after = None;
    loop {
        let started = Instant::now();
        let page = read(after).await?;
        page.found.into_iter().for_each(&mut found);
        match page.next {
            None => return Ok(()),
            next => after = next,
        }
        tokio::time::sleep(started.elapsed().saturating_mul(REST).max(SHORTEST_REST)).await;
    }
}

fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn float(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}
