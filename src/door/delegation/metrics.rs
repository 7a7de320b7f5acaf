//! What the delegation door counts.

use prometheus::{IntCounterVec, Opts, Registry};

use super::passage::Outcome;

/// Metrics of the delegation door, all there from the start.
#[derive(Clone)]
pub struct DelegationMetrics {
    pages: IntCounterVec,
}

impl DelegationMetrics {
    /// Makes and registers them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let pages = IntCounterVec::new(
            Opts::new(
                "multiend_delegation_pages_total",
                "Pages of archives with messages, by what the server did to those",
            ),
            &["result"],
        )?;
        for outcome in [Outcome::LetThrough, Outcome::Refused, Outcome::Unknown] {
            pages.with_label_values(&[name(outcome)]);
        }
        registry.register(Box::new(pages.clone()))?;
        Ok(Self { pages })
    }

    pub(super) fn page(&self, outcome: Outcome) {
        self.pages.with_label_values(&[name(outcome)]).inc();
    }
}

fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::LetThrough => "delivered",
        Outcome::Refused => "refused",
        Outcome::Unknown => "unknown",
    }
}
