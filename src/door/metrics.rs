//! What the doors count: how long requests take, and what is refused, by the condition that the requester is told.

use std::time::Duration;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, exponential_buckets,
};

use crate::stanza::error::{self, Condition};

/// The doors that answer requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// Asked by clients.
    Alias,
    /// Asked by servers with a plugin.
    Plugin,
    /// Asked by servers with stock modules.
    Delegation,
    /// Asked by administrators.
    Commands,
}

impl Door {
    const ALL: [Self; 4] = [Self::Alias, Self::Plugin, Self::Delegation, Self::Commands];

    fn name(self) -> &'static str {
        match self {
            Self::Alias => "alias",
            Self::Plugin => "plugin",
            Self::Delegation => "delegation",
            Self::Commands => "commands",
        }
    }
}

/// Metrics of the doors, `multiend_door_*`, all there from the start.
#[derive(Clone)]
pub struct DoorMetrics {
    request_seconds: HistogramVec,
    refused: IntCounterVec,
    dropped: IntCounter,
    /// Not registered: who shows queues shows it.
    waiting: IntGauge,
}

impl DoorMetrics {
    /// Makes and registers them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let request_seconds = HistogramOpts::new(
            "multiend_door_request_seconds",
            "Time from when a request was read to when its answer was handed to the link",
        );
        let request_seconds = request_seconds.buckets(exponential_buckets(0.000_5, 2.0, 16)?);
        let metrics = Self {
            request_seconds: HistogramVec::new(request_seconds, &["door"])?,
            refused: IntCounterVec::new(
                Opts::new("multiend_door_refused_total", "Stanzas answered with an error, by its condition"),
                &["condition"],
            )?,
            dropped: IntCounter::new(
                "multiend_door_dropped_total",
                "Stanzas that were dropped since nobody can be told what is wrong with them",
            )?,
            waiting: IntGauge::new("requests_waiting", "Requests that wait to be answered")?,
        };
        for door in Door::ALL {
            metrics.request_seconds.with_label_values(&[door.name()]);
        }
        for condition in Condition::ALL {
            metrics.refused.with_label_values(&[condition.name()]);
        }
        registry.register(Box::new(metrics.request_seconds.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.dropped.clone()))?;
        Ok(metrics)
    }

    /// Requests that wait to be answered.
    pub fn waiting(&self) -> usize {
        usize::try_from(self.waiting.get()).unwrap_or(0)
    }

    pub(super) fn waits(&self) {
        self.waiting.inc();
    }

    pub(super) fn taken(&self) {
        self.waiting.dec();
    }

    pub(super) fn answered(&self, door: Door, took: Duration) {
        self.request_seconds.with_label_values(&[door.name()]).observe(took.as_secs_f64());
    }

    /// Counts a stanza on its way out, if it is an error.
    pub(super) fn sent(&self, stanza: &str) {
        if let Some(condition) = error::condition_of(stanza) {
            self.refused.with_label_values(&[condition.name()]).inc();
        }
    }

    pub(super) fn dropped(&self) {
        self.dropped.inc();
    }
}
