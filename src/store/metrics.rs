//! What the store measures of itself. No label ever names an account, a JID or a key.

use std::time::{Duration, Instant};

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

use super::StoreError;

/// Upper bounds in seconds: from a read out of memory to a disk that has stalled.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Every operation, so that each is there at 0 from the start. A test compares this with the calls.
const OPERATIONS: [&str; 73] = [
    "add-device",
    "add-notice",
    "adopt-preferences",
    "append",
    "archive-id-secret",
    "archive-totals",
    "begin-history",
    "bundle-items",
    "census-cursors",
    "census-stock",
    "certain-devices",
    "claim",
    "claim-batch",
    "claim-one",
    "consumed-prekeys",
    "copies-at",
    "count",
    "cursors",
    "dead-letter",
    "dead-letters",
    "delete-list",
    "device-records",
    "device-sessions",
    "device-states",
    "devices-to-void",
    "directory-totals",
    "drop-dead-letter",
    "due-devices",
    "ends",
    "erase-named",
    "erase-owned",
    "find-account",
    "forget-claims",
    "identity-keys",
    "learn-sessions",
    "list-seen",
    "move-cursors",
    "owner-records",
    "page",
    "ping",
    "preferences",
    "prekey-states",
    "publish-bundle",
    "publish-list",
    "purge",
    "purge-backlog",
    "quarantine",
    "read-bundles",
    "read-deployment",
    "read-history",
    "read-list",
    "register-account",
    "register-accounts",
    "remove",
    "remove-device",
    "retire",
    "retract-bundle",
    "revive",
    "session-devices",
    "set-aside",
    "set-preferences",
    "settle-notices",
    "signs-of-life",
    "skim",
    "stock",
    "subscribe",
    "subscribers",
    "take-notices",
    "unsubscribe",
    "void-older",
    "void-stock",
    "waiting",
    "watch",
];

/// The connections of an instance to its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Those that are open.
    pub open: u32,
    /// Those of them that nobody uses.
    pub idle: u32,
    /// How many there may be.
    pub most: u32,
}

/// Latency and contention of the database, by operation.
#[derive(Clone)]
pub struct StoreMetrics {
    operation_seconds: HistogramVec,
    retries: IntCounterVec,
    errors: IntCounterVec,
    pool_wait_seconds: Histogram,
    pool_waiting: IntGauge,
}

impl StoreMetrics {
    /// Fresh metrics, all at zero.
    pub(super) fn new() -> Result<Self, StoreError> {
        let buckets = || BUCKETS.to_vec();
        let operation_seconds = HistogramOpts::new(
            "multiend_store_operation_seconds",
            "Time of one store operation, with the wait for a connection and every retry",
        );
        let pool_wait_seconds =
            HistogramOpts::new("multiend_store_pool_wait_seconds", "Time spent waiting for a database connection");
        let retries =
            Opts::new("multiend_store_retries_total", "Transactions run again because they lost against another one");
        let errors = Opts::new("multiend_store_errors_total", "Store operations that failed");
        let metrics = Self {
            operation_seconds: HistogramVec::new(operation_seconds.buckets(buckets()), &["operation"])?,
            retries: IntCounterVec::new(retries, &["operation"])?,
            errors: IntCounterVec::new(errors, &["operation"])?,
            pool_wait_seconds: Histogram::with_opts(pool_wait_seconds.buckets(buckets()))?,
            pool_waiting: IntGauge::new(
                "multiend_store_pool_waiting",
                "Operations that wait for a database connection now",
            )?,
        };
        for operation in OPERATIONS {
            metrics.operation_seconds.with_label_values(&[operation]);
            metrics.retries.with_label_values(&[operation]);
            metrics.errors.with_label_values(&[operation]);
        }
        Ok(metrics)
    }

    /// Makes the metrics part of what a registry gathers. Once per registry.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.operation_seconds.clone()))?;
        registry.register(Box::new(self.retries.clone()))?;
        registry.register(Box::new(self.errors.clone()))?;
        registry.register(Box::new(self.pool_wait_seconds.clone()))?;
        registry.register(Box::new(self.pool_waiting.clone()))
    }

    /// Waits for a connection, or for a transaction on one. That it took too long is a wait like others; so is one that
    /// nobody waits for any more.
    pub(super) async fn connection<C>(
        &self,
        acquire: impl Future<Output = Result<C, sqlx::Error>>,
    ) -> Result<C, sqlx::Error> {
        let _waiting = WaitingForConnection::start(self);
        acquire.await
    }

    pub(super) fn retried(&self, operation: &str) {
        self.retries.with_label_values(&[operation]).inc();
    }

    pub(super) fn ended(&self, operation: &str, time: Duration, failed: bool) {
        self.operation_seconds.with_label_values(&[operation]).observe(time.as_secs_f64());
        if failed {
            self.errors.with_label_values(&[operation]).inc();
        }
    }
}

/// Somebody waits, until this is dropped.
struct WaitingForConnection<'a> {
    metrics: &'a StoreMetrics,
    since: Instant,
}

impl<'a> WaitingForConnection<'a> {
    fn start(metrics: &'a StoreMetrics) -> Self {
        metrics.pool_waiting.inc();
        Self { metrics, since: Instant::now() }
    }
}

impl Drop for WaitingForConnection<'_> {
    fn drop(&mut self) {
        self.metrics.pool_waiting.dec();
        self.metrics.pool_wait_seconds.observe(self.since.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::OPERATIONS;

    /// Every text in quotes that follows the opening of a call of one of the functions that run an operation.
    #[test]
    fn every_operation_is_there_from_the_start() {
        let mut named = BTreeSet::new();
        for engine in ["postgres", "sqlite"] {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store").join(engine);
            for file in std::fs::read_dir(directory).unwrap() {
                let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
                for call in [".transaction(", ".snapshot(", ".each(", ".walk(", ".run("] {
                    let calls = source.split(call).skip(1);
                    let operations = calls.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
                    named.extend(operations.map(str::to_owned));
                }
            }
        }
        let listed: BTreeSet<String> = OPERATIONS.map(str::to_owned).into_iter().collect();
        assert!(named.len() > 50, "{named:?}");
        let missing: Vec<_> = named.difference(&listed).collect();
        assert!(missing.is_empty(), "add {missing:?} to OPERATIONS in src/store/metrics.rs");
        let gone: Vec<_> = listed.difference(&named).collect();
        assert!(gone.is_empty(), "nobody calls {gone:?}, which stands in OPERATIONS");
    }
}
