//! What the archive counts. No label ever holds an address, an id or a key; all series are there from the start.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, exponential_buckets,
};

use super::classify::SkipReason;
use super::retire::Retired;
use crate::model::{Class, Timestamp};
use crate::store::{Appended, Purged};

/// How a query ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryOutcome {
    /// A page, a count, the ends.
    Answered,
    /// Somebody asked for the archive of another.
    Forbidden,
    /// The query names an id that is not in the archive.
    UnknownId,
    /// The query makes no sense or asks for what there is not.
    Refused,
    /// The database was away.
    Unavailable,
    /// The database failed.
    Failed,
}

impl QueryOutcome {
    const ALL: [Self; 6] =
        [Self::Answered, Self::Forbidden, Self::UnknownId, Self::Refused, Self::Unavailable, Self::Failed];

    fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Forbidden => "forbidden",
            Self::UnknownId => "unknown-id",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
        }
    }
}

/// The counters of the archive, `multiend_archive_*`.
#[derive(Debug, Clone)]
pub struct ArchiveMetrics {
    copies: IntCounterVec,
    skipped: IntCounterVec,
    batch_messages: Histogram,
    append_seconds: Histogram,
    ingest_lag: Histogram,
    /// Since when the oldest of the messages waits that are being stored.
    storing_since: Arc<Mutex<Option<Instant>>>,
    append_retries: IntCounter,
    dead_letters: IntCounterVec,
    queue_messages: IntGauge,
    queries: IntCounterVec,
    query_seconds: HistogramVec,
    page_copies: Histogram,
    page_bytes: Histogram,
    trimmed_bytes: IntCounter,
    not_for_viewer: IntCounter,
    omitted: IntCounter,
    cursor_lag: Histogram,
    purged: IntCounterVec,
    purge_failures: IntCounter,
    purge_backlog: IntGauge,
    purge_lag_seconds: IntGauge,
}

const STORED: &str = "stored";
const DUPLICATE: &str = "duplicate";
const UNWANTED: &str = "unwanted";
const REJECTED: &str = "rejected";
const SET_ASIDE: &str = "set-aside";
const LOST: &str = "lost";

impl ArchiveMetrics {
    /// Makes the counters and registers them. Fails if they are registered there already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let seconds = exponential_buckets(0.000_5, 2.0, 15)?;
        let counts = exponential_buckets(1.0, 2.0, 12)?;
        let bytes = exponential_buckets(1_024.0, 2.0, 12)?;
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
        };
        let this = Self {
            copies: IntCounterVec::new(
                Opts::new(
                    "multiend_archive_copies_total",
                    "Copies brought to the archive, by class and what became of them",
                ),
                &["class", "result"],
            )?,
            skipped: IntCounterVec::new(
                Opts::new("multiend_archive_skipped_total", "Messages that no archive keeps, by reason"),
                &["reason"],
            )?,
            batch_messages: histogram(
                "multiend_archive_batch_messages",
                "Messages stored in one transaction",
                &counts,
            )?,
            append_seconds: histogram("multiend_archive_append_seconds", "Time of one storing transaction", &seconds)?,
            ingest_lag: histogram(
                "multiend_archive_ingest_lag_seconds",
                "Time from when a message was accepted until it was stored or set aside",
                &exponential_buckets(0.001, 2.0, 18)?,
            )?,
            storing_since: Arc::default(),
            append_retries: IntCounter::new(
                "multiend_archive_append_retries_total",
                "Times that storing was put off because the database was away",
            )?,
            dead_letters: IntCounterVec::new(
                Opts::new(
                    "multiend_archive_dead_letters_total",
                    "Messages that cannot be stored for their own sake: set aside for an operator, or lost",
                ),
                &["result"],
            )?,
            queue_messages: IntGauge::new("multiend_archive_queue_messages", "Messages accepted and not yet stored")?,
            queries: IntCounterVec::new(
                Opts::new("multiend_archive_queries_total", "Queries, by how they ended"),
                &["outcome"],
            )?,
            query_seconds: HistogramVec::new(
                HistogramOpts::new("multiend_archive_query_seconds", "Time to answer a query").buckets(seconds.clone()),
                &["kind"],
            )?,
            page_copies: histogram("multiend_archive_page_copies", "Messages in a page", &counts)?,
            page_bytes: histogram(
                "multiend_archive_page_bytes",
                "Bytes of messages in a page, after trimming",
                &bytes,
            )?,
            trimmed_bytes: IntCounter::new(
                "multiend_archive_trimmed_bytes_total",
                "Bytes that were left out of answers: headers for other devices, and messages omitted",
            )?,
            not_for_viewer: IntCounter::new(
                "multiend_archive_not_for_viewer_total",
                "Encrypted messages given to a device for which they have no header",
            )?,
            omitted: IntCounter::new(
                "multiend_archive_omitted_total",
                "Messages left out of answers since the asking device cannot read them",
            )?,
            cursor_lag: histogram(
                "multiend_archive_cursor_lag_messages",
                "How many messages of its archive a device had not read when it said how far it has",
                &exponential_buckets(1.0, 4.0, 10)?,
            )?,
            purged: IntCounterVec::new(
                Opts::new("multiend_archive_purged_total", "What the purge removed"),
                &["what"],
            )?,
            purge_failures: IntCounter::new("multiend_archive_purge_failures_total", "Purge runs that failed")?,
            purge_backlog: IntGauge::new("multiend_archive_purge_backlog", "Expired copies still to be purged")?,
            purge_lag_seconds: IntGauge::new(
                "multiend_archive_purge_lag_seconds",
                "Since when the oldest of the expired copies waits to be purged",
            )?,
        };
        this.start_at_zero();
        registry.register(Box::new(this.copies.clone()))?;
        registry.register(Box::new(this.skipped.clone()))?;
        registry.register(Box::new(this.batch_messages.clone()))?;
        registry.register(Box::new(this.append_seconds.clone()))?;
        registry.register(Box::new(this.ingest_lag.clone()))?;
        registry.register(Box::new(this.append_retries.clone()))?;
        registry.register(Box::new(this.dead_letters.clone()))?;
        registry.register(Box::new(this.queue_messages.clone()))?;
        registry.register(Box::new(this.queries.clone()))?;
        registry.register(Box::new(this.query_seconds.clone()))?;
        registry.register(Box::new(this.page_copies.clone()))?;
        registry.register(Box::new(this.page_bytes.clone()))?;
        registry.register(Box::new(this.trimmed_bytes.clone()))?;
        registry.register(Box::new(this.not_for_viewer.clone()))?;
        registry.register(Box::new(this.omitted.clone()))?;
        registry.register(Box::new(this.cursor_lag.clone()))?;
        registry.register(Box::new(this.purged.clone()))?;
        registry.register(Box::new(this.purge_failures.clone()))?;
        registry.register(Box::new(this.purge_backlog.clone()))?;
        registry.register(Box::new(this.purge_lag_seconds.clone()))?;
        Ok(this)
    }

    fn start_at_zero(&self) {
        for class in Class::ALL {
            for result in [STORED, DUPLICATE, UNWANTED, REJECTED] {
                self.copies.with_label_values(&[class.name(), result]);
            }
        }
        for result in [SET_ASIDE, LOST] {
            self.dead_letters.with_label_values(&[result]);
        }
        for reason in SkipReason::ALL {
            self.skipped.with_label_values(&[reason.name()]);
        }
        for outcome in QueryOutcome::ALL {
            self.queries.with_label_values(&[outcome.name()]);
        }
        for kind in ["page", "count", "metadata"] {
            self.query_seconds.with_label_values(&[kind]);
        }
        for what in ["expired", "trimmed", "bodies", "surplus", "read"] {
            self.purged.with_label_values(&[what]);
        }
    }

    /// A message that no archive keeps. To be called by who decides on [`super::classify()`]'s word.
    pub fn skipped(&self, reason: SkipReason) {
        self.skipped.with_label_values(&[reason.name()]).inc();
    }

    pub(super) fn appended(&self, class: Class, appended: &[Appended]) {
        for copy in appended {
            let result = match copy {
                Appended::Stored(_) => STORED,
                Appended::Duplicate => DUPLICATE,
                Appended::Unwanted => UNWANTED,
            };
            self.copies.with_label_values(&[class.name(), result]).inc();
        }
    }

    pub(super) fn rejected(&self, class: Class, copies: usize) {
        self.copies.with_label_values(&[class.name(), REJECTED]).inc_by(u64::try_from(copies).unwrap_or(u64::MAX));
    }

    pub(super) fn dead_letter(&self, set_aside: bool) {
        self.dead_letters.with_label_values(&[if set_aside { SET_ASIDE } else { LOST }]).inc();
    }

    pub(super) fn batch(&self, messages: usize, took: Duration) {
        self.batch_messages.observe(as_f64(messages));
        self.append_seconds.observe(took.as_secs_f64());
    }

    pub(super) fn append_retry(&self) {
        self.append_retries.inc();
    }

    pub(super) fn queued(&self) {
        self.queue_messages.inc();
    }

    /// Messages accepted and not yet stored.
    pub fn waiting(&self) -> usize {
        usize::try_from(self.queue_messages.get()).unwrap_or(0)
    }

    /// How long the oldest message that is not stored yet has waited, if there is one that somebody tries to store.
    pub fn oldest_waiting(&self) -> Duration {
        let since = *self.storing_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    pub(super) fn storing(&self, since: Option<Instant>) {
        *self.storing_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    pub(super) fn lagged(&self, lag: Duration) {
        self.ingest_lag.observe(lag.as_secs_f64());
    }

    pub(super) fn done(&self, messages: usize) {
        self.queue_messages.sub(i64::try_from(messages).unwrap_or(i64::MAX));
    }

    pub(super) fn query(&self, kind: &str, outcome: QueryOutcome, took: Duration) {
        self.queries.with_label_values(&[outcome.name()]).inc();
        self.query_seconds.with_label_values(&[kind]).observe(took.as_secs_f64());
    }

    pub(super) fn page(&self, copies: usize, bytes: usize) {
        self.page_copies.observe(as_f64(copies));
        self.page_bytes.observe(as_f64(bytes));
    }

    pub(super) fn trimmed(&self, bytes: usize, not_for_viewer: bool) {
        self.trimmed_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
        if not_for_viewer {
            self.not_for_viewer.inc();
        }
    }

    pub(super) fn omitted(&self, bytes: usize) {
        self.omitted.inc();
        self.trimmed_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    pub(super) fn read_up_to(&self, behind: u64) {
        self.cursor_lag.observe(u32::try_from(behind).map_or(f64::from(u32::MAX), f64::from));
    }

    /// What one purge step did.
    pub fn purged(&self, purged: Purged) {
        for (what, number) in [("expired", purged.expired), ("trimmed", purged.trimmed), ("bodies", purged.bodies)] {
            self.purged.with_label_values(&[what]).inc_by(number);
        }
    }

    /// What was taken out of archives before it expired.
    pub fn retired(&self, retired: Retired) {
        for (what, number) in [("surplus", retired.surplus), ("read", retired.read)] {
            self.purged.with_label_values(&[what]).inc_by(number);
        }
    }

    /// A purge run that failed.
    pub fn purge_failed(&self) {
        self.purge_failures.inc();
    }

    /// How much there is still to purge, and since when the oldest of it.
    pub fn purge_backlog(&self, copies: u64, oldest: Option<Timestamp>, now: Timestamp) {
        self.purge_backlog.set(i64::try_from(copies).unwrap_or(i64::MAX));
        let lag = oldest.map_or(0, |oldest| now.since(oldest).as_secs());
        self.purge_lag_seconds.set(i64::try_from(lag).unwrap_or(i64::MAX));
    }
}

fn as_f64(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start() {
        let registry = Registry::new();
        ArchiveMetrics::register(&registry).unwrap();
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for series in [
            "multiend_archive_copies_total{class=\"key-transport\",result=\"duplicate\"} 0",
            "multiend_archive_skipped_total{reason=\"no-content\"} 0",
            "multiend_archive_queries_total{outcome=\"forbidden\"} 0",
            "multiend_archive_trimmed_bytes_total 0",
            "multiend_archive_purged_total{what=\"bodies\"} 0",
        ] {
            assert!(text.contains(series), "{series} in {text}");
        }
        assert!(ArchiveMetrics::register(&registry).is_err());
    }
}
