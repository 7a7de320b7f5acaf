//! What the link counts. Label values are fixed, and every series exists from the start.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::limits::RefusalReason;
use super::stanza_head::StanzaKind;

/// Prometheus metrics of the link, all named `multiend_link_…`.
#[derive(Clone, Debug)]
pub struct LinkMetrics {
    up: IntGauge,
    reconnects: IntCounter,
    stanzas_in: IntCounterVec,
    stanzas_out: IntCounterVec,
    bytes_in: IntCounter,
    bytes_out: IntCounter,
    refused: IntCounterVec,
}

impl LinkMetrics {
    /// Makes the metrics and registers them. Fails if the registry has metrics of these names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            up: IntGauge::new("multiend_link_up", "1 while the component is connected to its server, else 0")?,
            reconnects: IntCounter::new("multiend_link_reconnects_total", "Connections made after the first")?,
            stanzas_in: by_kind("multiend_link_stanzas_in_total", "Stanzas received and handed on")?,
            stanzas_out: by_kind("multiend_link_stanzas_out_total", "Stanzas written to the server")?,
            bytes_in: IntCounter::new("multiend_link_bytes_in_total", "Bytes received from the server")?,
            bytes_out: IntCounter::new("multiend_link_bytes_out_total", "Bytes written to the server")?,
            refused: IntCounterVec::new(
                Opts::new("multiend_link_refused_total", "Stanzas refused without being read"),
                &["reason"],
            )?,
        };
        for reason in RefusalReason::ALL {
            metrics.refused.with_label_values(&[reason.label()]);
        }
        registry.register(Box::new(metrics.up.clone()))?;
        registry.register(Box::new(metrics.reconnects.clone()))?;
        registry.register(Box::new(metrics.stanzas_in.clone()))?;
        registry.register(Box::new(metrics.stanzas_out.clone()))?;
        registry.register(Box::new(metrics.bytes_in.clone()))?;
        registry.register(Box::new(metrics.bytes_out.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        Ok(metrics)
    }

    pub(super) fn set_up(&self, up: bool) {
        self.up.set(i64::from(up));
    }

    pub(super) fn reconnected(&self) {
        self.reconnects.inc();
    }

    pub(super) fn received(&self, kind: StanzaKind) {
        self.stanzas_in.with_label_values(&[kind.name()]).inc();
    }

    pub(super) fn sent(&self, stanza: &[u8]) {
        if let Some(kind) = StanzaKind::of_bytes(stanza) {
            self.stanzas_out.with_label_values(&[kind.name()]).inc();
        }
    }

    pub(super) fn read(&self, bytes: usize) {
        self.bytes_in.inc_by(bytes as u64);
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.bytes_out.inc_by(bytes as u64);
    }

    pub(super) fn refused(&self, reason: RefusalReason) {
        self.refused.with_label_values(&[reason.label()]).inc();
    }
}

fn by_kind(name: &str, help: &str) -> Result<IntCounterVec, prometheus::Error> {
    let counter = IntCounterVec::new(Opts::new(name, help), &["kind"])?;
    for kind in StanzaKind::ALL {
        counter.with_label_values(&[kind.name()]);
    }
    Ok(counter)
}
