//! How full the queues between the parts are, and the pool of connections: where work piles up is where it is slow.

use prometheus::Registry;

use super::live_gauges::LiveGauges;
use crate::store::SharedStore;

/// A queue: its name in the metrics, and what it takes at most.
type Queue = (&'static str, usize, Box<dyn Fn() -> usize + Send + Sync>);

/// The queues of the program, until they are registered.
#[derive(Default)]
pub struct Queues(Vec<Queue>);

impl Queues {
    /// Adds a queue that takes at most `limit`. `length` is asked when somebody looks.
    #[must_use]
    pub fn with(
        mut self,
        name: &'static str,
        limit: usize,
        length: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Self {
        self.0.push((name, limit, Box::new(length)));
        self
    }

    /// Makes them visible.
    pub fn register(self, registry: &Registry) -> Result<(), prometheus::Error> {
        let mut lengths = LiveGauges::new("multiend_queue_length", "What waits in a queue between two parts", "queue")?;
        let mut limits =
            LiveGauges::new("multiend_queue_limit", "What a queue takes before who fills it waits", "queue")?;
        for (name, limit, length) in self.0 {
            lengths = lengths.with(name, move || float(length()));
            limits = limits.with(name, move || float(limit));
        }
        registry.register(Box::new(lengths))?;
        registry.register(Box::new(limits))
    }
}

/// Makes the connections to the database visible.
pub fn register_connections(registry: &Registry, store: &SharedStore) -> Result<(), prometheus::Error> {
    let (busy, idle, most) = (store.clone(), store.clone(), store.clone());
    let connections = LiveGauges::new(
        "multiend_store_pool_connections",
        "Connections to the database: busy, idle, and how many there may be",
        "state",
    )?
    .with("busy", move || {
        let connections = busy.connections();
        f64::from(connections.open.saturating_sub(connections.idle))
    })
    .with("idle", move || f64::from(idle.connections().idle))
    .with("limit", move || f64::from(most.connections().most));
    registry.register(Box::new(connections))
}

fn float(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}
