//! The registry of all metrics.
//!
//! Each layer keeps its own metrics in a struct of its own and registers it here when the program is wired up. What is
//! counted by a label starts at 0 for every value of it, so that a first event is a rise and not a new line.

use prometheus::process_collector::ProcessCollector;
use prometheus::{IntGauge, Opts, Registry, TextEncoder};

/// A registry that holds `multiend_build_info` and the process's own figures (memory, CPU, open files).
pub fn registry() -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    let build = Opts::new("multiend_build_info", "1; the version stands in the label")
        .const_label("version", env!("CARGO_PKG_VERSION"));
    let build = IntGauge::with_opts(build)?;
    build.set(1);
    registry.register(Box::new(build))?;
    registry.register(Box::new(ProcessCollector::for_self()))?;
    Ok(registry)
}

/// All metrics in the text format of Prometheus.
pub fn render(registry: &Registry) -> Result<String, prometheus::Error> {
    TextEncoder::new().encode_to_string(&registry.gather())
}
