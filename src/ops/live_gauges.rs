//! Gauges that are read when they are asked for: what stands in memory anyway, such as the length of a queue.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts};

/// What is so now. It must not block, and not touch the database.
type Reading = Box<dyn Fn() -> f64 + Send + Sync>;

/// One family of gauges that differ in at most one label.
pub struct LiveGauges {
    gauges: GaugeVec,
    series: Vec<(Option<&'static str>, Reading)>,
}

impl LiveGauges {
    /// A family without series.
    pub fn new(name: &str, help: &str, label: &str) -> Result<Self, prometheus::Error> {
        Ok(Self { gauges: GaugeVec::new(Opts::new(name, help), &[label])?, series: Vec::new() })
    }

    /// Adds a series by the value of its label.
    #[must_use]
    pub fn with(mut self, value: &'static str, read: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        self.series.push((Some(value), Box::new(read)));
        self
    }

    /// A gauge without a label.
    pub fn single(
        name: &str,
        help: &str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Result<Self, prometheus::Error> {
        let series: Vec<(_, Reading)> = vec![(None, Box::new(read))];
        Ok(Self { gauges: GaugeVec::new(Opts::new(name, help), &[])?, series })
    }
}

impl Collector for LiveGauges {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (value, read) in &self.series {
            self.gauges.with_label_values(value.as_slice()).set(read());
        }
        self.gauges.collect()
    }
}
