//! What the directory counts. No label holds a JID, an id or a key.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use super::bundle_refusal::BundleRefusal;
use super::life::{LifeRun, Mode};
use super::life_metrics::LifeMetrics;
use crate::model::Protocol;
use crate::store::{BundlePublished, ClaimKind, ClaimLimit, ClaimOutcome, DeviceStates};

/// Counters of the directory, all present at 0 from the start.
#[derive(Clone)]
pub struct DirectoryMetrics {
    claims: IntCounterVec,
    empty_while_stocked: IntCounterVec,
    /// Not registered: who shows queues shows it.
    claims_waiting: IntGauge,
    bundles: IntCounterVec,
    bundles_refused: IntCounterVec,
    prekeys_added: IntCounterVec,
    identity_changes: IntCounterVec,
    lists: IntCounterVec,
    histories: IntCounterVec,
    life: LifeMetrics,
}

const NO_BUNDLE: &str = "no-bundle";
const NO_PREKEY: &str = "no-prekey";
const ANSWERED: &str = "answered";
const NOT_ON_CHAIN: &str = "not-on-chain";

/// The result of a claim that was refused, with the reason.
fn limited(limit: ClaimLimit) -> &'static str {
    match limit {
        ClaimLimit::Device => "refused-device",
        ClaimLimit::Requester => "refused-requester",
        ClaimLimit::Domain => "refused-domain",
        ClaimLimit::Reserve => "refused-reserve",
    }
}

impl DirectoryMetrics {
    /// Makes and registers them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(format!("multiend_directory_{name}"), help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let metrics = Self {
            claims: counter("claims_total", "Prekeys asked for, by result", &["protocol", "result"])?,
            empty_while_stocked: counter(
                "empty_while_stocked_total",
                "Claims told that there is no prekey although there was one: a fault, if it is not 0",
                &["protocol"],
            )?,
            claims_waiting: IntGauge::new("claims_waiting", "Claims that wait for their transaction")?,
            bundles_refused: counter(
                "bundles_refused_total",
                "Bundles refused, by what is wrong with them",
                &["protocol", "reason"],
            )?,
            bundles: counter("bundles_total", "Bundles published, by result", &["protocol", "result"])?,
            prekeys_added: counter("prekeys_added_total", "New prekeys in published bundles", &["protocol"])?,
            identity_changes: counter(
                "identity_changes_total",
                "Devices that came with a new identity key",
                &["protocol"],
            )?,
            lists: counter("lists_total", "Device lists published, by result", &["protocol", "result"])?,
            histories: counter("histories_total", "Histories asked for, by result", &["result"])?,
            life: LifeMetrics::register(registry)?,
        };
        for protocol in Protocol::ALL.map(Protocol::name) {
            let results = ClaimKind::ALL.map(ClaimKind::name).into_iter().chain([NO_BUNDLE, NO_PREKEY]);
            let results = results.chain(ClaimLimit::ALL.map(limited));
            results.for_each(|result| drop(metrics.claims.with_label_values(&[protocol, result])));
            for result in ["accepted", "refused"] {
                metrics.bundles.with_label_values(&[protocol, result]);
            }
            for reason in BundleRefusal::ALL {
                metrics.bundles_refused.with_label_values(&[protocol, reason.name()]);
            }
            for result in ["as-published", "merged"] {
                metrics.lists.with_label_values(&[protocol, result]);
            }
            metrics.empty_while_stocked.with_label_values(&[protocol]);
            metrics.prekeys_added.with_label_values(&[protocol]);
            metrics.identity_changes.with_label_values(&[protocol]);
        }
        for result in [ANSWERED, NOT_ON_CHAIN] {
            metrics.histories.with_label_values(&[result]);
        }
        Ok(metrics)
    }

    pub(super) fn claim(&self, protocol: Protocol, outcome: &ClaimOutcome) {
        let result = match outcome {
            ClaimOutcome::Handed { kind, .. } => kind.name(),
            ClaimOutcome::NoBundle => NO_BUNDLE,
            ClaimOutcome::NoPrekey => NO_PREKEY,
            ClaimOutcome::Limited(limit) => limited(*limit),
        };
        self.claims.with_label_values(&[protocol.name(), result]).inc();
    }

    pub(super) fn empty_while_stocked(&self, protocol: Protocol) {
        self.empty_while_stocked.with_label_values(&[protocol.name()]).inc();
    }

    /// Prekeys handed out as fresh since the start.
    pub fn issued(&self) -> u64 {
        let fresh =
            |protocol: Protocol| self.claims.with_label_values(&[protocol.name(), ClaimKind::Fresh.name()]).get();
        Protocol::ALL.into_iter().map(fresh).fold(0, u64::saturating_add)
    }

    /// Claims that wait for their transaction.
    pub fn claims_waiting(&self) -> usize {
        usize::try_from(self.claims_waiting.get()).unwrap_or(0)
    }

    pub(super) fn claim_waits(&self) {
        self.claims_waiting.inc();
    }

    pub(super) fn claims_taken(&self, claims: usize) {
        self.claims_waiting.sub(i64::try_from(claims).unwrap_or(i64::MAX));
    }

    pub(super) fn bundle_published(&self, protocol: Protocol, outcome: &BundlePublished) {
        self.bundles.with_label_values(&[protocol.name(), "accepted"]).inc();
        self.prekeys_added.with_label_values(&[protocol.name()]).inc_by(u64::from(outcome.added));
        if outcome.identity_changed {
            self.identity_changes.with_label_values(&[protocol.name()]).inc();
        }
    }

    pub(super) fn bundle_refused(&self, protocol: Protocol, reason: BundleRefusal) {
        self.bundles.with_label_values(&[protocol.name(), "refused"]).inc();
        self.bundles_refused.with_label_values(&[protocol.name(), reason.name()]).inc();
    }

    pub(super) fn history_read(&self, on_chain: bool) {
        self.histories.with_label_values(&[if on_chain { ANSWERED } else { NOT_ON_CHAIN }]).inc();
    }

    pub(super) fn list_published(&self, protocol: Protocol, merged: bool) {
        let result = if merged { "merged" } else { "as-published" };
        self.lists.with_label_values(&[protocol.name(), result]).inc();
    }

    pub(super) fn life_cycle(&self, run: &LifeRun, mode: Mode) {
        self.life.run(run, mode);
    }

    pub(super) fn device_states(&self, states: &DeviceStates) {
        self.life.states(states);
    }

    pub(super) fn revived(&self) {
        self.life.revived();
    }

    pub(super) fn sign_lost(&self) {
        self.life.sign_lost();
    }
}
