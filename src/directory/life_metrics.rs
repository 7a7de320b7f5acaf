//! What is counted of the life cycle of devices.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::life::{LifeRun, Mode};
use crate::model::Protocol;
use crate::store::DeviceStates;

const LISTED: &str = "listed";
const QUARANTINED: &str = "quarantined";

/// Counters and gauges, all present at 0 from the start.
#[derive(Clone)]
pub(super) struct LifeMetrics {
    devices: IntGaugeVec,
    would_quarantine: IntGaugeVec,
    would_remove: IntGauge,
    quarantined: IntCounterVec,
    removed: IntCounter,
    revived: IntCounter,
    signs_lost: IntCounter,
}

impl LifeMetrics {
    /// Makes and registers them.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("multiend_directory_{name}"), help);
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::with_opts(opts(name, help))?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(opts(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let would_remove =
            IntGauge::with_opts(opts("would_remove_devices", "Quarantined devices that a dry run would remove now"))?;
        registry.register(Box::new(would_remove.clone()))?;
        let help = "Devices quarantined by the life cycle, by cause";
        let quarantined = IntCounterVec::new(opts("quarantined_total", help), &["cause"])?;
        registry.register(Box::new(quarantined.clone()))?;
        let help = "Listed devices that a dry run would quarantine now, by cause";
        let metrics = Self {
            devices: gauges("devices", "Devices in lists in force and in quarantine", &["protocol", "state"])?,
            would_quarantine: gauges("would_quarantine_devices", help, &["cause"])?,
            would_remove,
            quarantined,
            removed: counter("removed_total", "Devices removed by the life cycle")?,
            revived: counter("revived_total", "Quarantined devices that showed themselves and are listed again")?,
            signs_lost: counter("signs_lost_total", "Signs of life for which there was no room in memory")?,
        };
        metrics.states(&DeviceStates::default());
        metrics.run(&LifeRun::default(), Mode::DryRun);
        metrics.run(&LifeRun::default(), Mode::On);
        Ok(metrics)
    }

    pub(super) fn states(&self, states: &DeviceStates) {
        for (state, counts) in [(LISTED, states.listed), (QUARANTINED, states.quarantined)] {
            for (protocol, count) in Protocol::ALL.into_iter().zip(counts) {
                self.devices.with_label_values(&[protocol.name(), state]).set(gauge(count));
            }
        }
    }

    /// What a run has done or, dry, would have done.
    pub(super) fn run(&self, run: &LifeRun, mode: Mode) {
        let (would, done) = if mode == Mode::On { (LifeRun::default(), *run) } else { (*run, LifeRun::default()) };
        for (cause, count) in would.quarantined() {
            self.would_quarantine.with_label_values(&[cause.name()]).set(gauge(count));
        }
        self.would_remove.set(gauge(would.removed));
        for (cause, count) in done.quarantined() {
            self.quarantined.with_label_values(&[cause.name()]).inc_by(count);
        }
        self.removed.inc_by(done.removed);
    }

    pub(super) fn revived(&self) {
        self.revived.inc();
    }

    pub(super) fn sign_lost(&self) {
        self.signs_lost.inc();
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
