//! What the store measures of itself. No label ever names an account, a JID or a key.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::StoreError;

/// Upper bounds in seconds: from a read out of memory to a disk that has stalled.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Latency and contention of the database, by operation.
#[derive(Clone)]
pub struct StoreMetrics {
    operation_seconds: HistogramVec,
    retries: IntCounterVec,
    errors: IntCounterVec,
    pool_wait_seconds: Histogram,
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
        Ok(Self {
            operation_seconds: HistogramVec::new(operation_seconds.buckets(buckets()), &["operation"])?,
            retries: IntCounterVec::new(retries, &["operation"])?,
            errors: IntCounterVec::new(errors, &["operation"])?,
            pool_wait_seconds: Histogram::with_opts(pool_wait_seconds.buckets(buckets()))?,
        })
    }

    /// Makes the metrics part of what a registry gathers. Once per registry.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.operation_seconds.clone()))?;
        registry.register(Box::new(self.retries.clone()))?;
        registry.register(Box::new(self.errors.clone()))?;
        registry.register(Box::new(self.pool_wait_seconds.clone()))
    }

    pub(super) fn waited_for_connection(&self, time: Duration) {
        self.pool_wait_seconds.observe(time.as_secs_f64());
    }

    pub(super) fn retried(&self, operation: &str) {
        self.retries.with_label_values(&[operation]).inc();
    }

    pub(super) fn ended(&self, operation: &str, time: Duration, failed: bool) {
        self.operation_seconds.with_label_values(&[operation]).observe(time.as_secs_f64());
        // Touched in any case, so that a rate over it starts at zero and not at the first failure.
        self.errors.with_label_values(&[operation]).inc_by(u64::from(failed));
    }
}
