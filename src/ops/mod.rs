//! What an operator sees of the running program: logs, metrics, health, and how it stops. No metric label and no answer
//! here ever holds a JID, a key, a secret or the text of a message.

pub mod census;
pub mod http;
pub mod live_gauges;
pub mod logging;
pub mod metrics;
pub mod probe;
pub mod queues;
pub mod readiness;
pub mod reload;
pub mod service_manager;
pub mod shutdown;
pub mod snapshot_histogram;
