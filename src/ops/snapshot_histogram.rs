//! A histogram of how something is distributed now, rather than of what has happened since the start: each walk over the
//! database makes it anew. So it is looked at without `rate()`.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec, Registry};

/// The distribution that was found last. Clones share it.
#[derive(Clone)]
pub struct SnapshotHistogram {
    opts: HistogramOpts,
    labels: &'static [&'static str],
    /// The values that the labels take together.
    series: Vec<Vec<&'static str>>,
    /// What describes it: never observed.
    empty: HistogramVec,
    found: Arc<Mutex<HistogramVec>>,
}

impl SnapshotHistogram {
    /// An empty one with these bounds, registered. `series` are all values that the labels take together.
    pub fn register(
        registry: &Registry,
        opts: HistogramOpts,
        labels: &'static [&'static str],
        series: Vec<Vec<&'static str>>,
    ) -> Result<Self, prometheus::Error> {
        let empty = HistogramVec::new(opts.clone(), labels)?;
        let this = Self { opts, labels, series, found: Arc::new(Mutex::new(empty.clone())), empty };
        this.publish(this.begin()?);
        registry.register(Box::new(this.clone()))?;
        Ok(this)
    }

    /// A new distribution, which nobody sees yet.
    pub fn begin(&self) -> Result<HistogramVec, prometheus::Error> {
        let next = HistogramVec::new(self.opts.clone(), self.labels)?;
        for values in &self.series {
            next.with_label_values(values);
        }
        Ok(next)
    }

    /// Puts a distribution in the place of the last one.
    pub fn publish(&self, next: HistogramVec) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

impl Collector for SnapshotHistogram {
    fn desc(&self) -> Vec<&Desc> {
        self.empty.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_distribution_takes_the_place_of_the_last_and_half_of_one_is_never_seen() {
        let registry = Registry::new();
        let opts = HistogramOpts::new("stock", "x").buckets(vec![0.0, 10.0]);
        let histogram =
            SnapshotHistogram::register(&registry, opts, &["protocol"], vec![vec!["legacy"], vec!["omemo2"]]).unwrap();
        let shown = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(shown().contains("stock_count{protocol=\"legacy\"} 0"), "{}", shown());
        for devices in [3, 1] {
            let next = histogram.begin().unwrap();
            for stock in 0..devices {
                next.with_label_values(&["omemo2"]).observe(f64::from(stock));
            }
            assert!(!shown().contains(&format!("stock_count{{protocol=\"omemo2\"}} {devices}")), "{}", shown());
            histogram.publish(next);
            assert!(shown().contains(&format!("stock_count{{protocol=\"omemo2\"}} {devices}")), "{}", shown());
            assert!(shown().contains("stock_bucket{protocol=\"omemo2\",le=\"0\"} 1"), "{}", shown());
        }
        assert!(shown().contains("stock_count{protocol=\"legacy\"} 0"), "{}", shown());
    }
}
