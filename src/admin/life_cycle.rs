//! The life cycle of devices, while the service runs (DESIGN, directory invariant 8): writes down their signs of life every
//! few seconds, and looks now and then at what is due.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::directory::Directory;
use crate::store::StoreError;

/// How often signs of life are written. The longer, the more of them are one write; a quarantined device that shows itself
/// waits as long.
const FLUSH: Duration = Duration::from_secs(5);

/// Works until `stop` is cancelled. A failure is logged, and the next run tries again.
pub async fn run(directory: Arc<Directory>, every: Duration, stop: CancellationToken) {
    let mut flush = interval(FLUSH);
    let mut look = interval(every);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = flush.tick() => report("writing signs of life", directory.flush_signs_of_life().await),
            // What was seen before must count.
            _ = look.tick() => {
                report("writing signs of life", directory.flush_signs_of_life().await);
                report("the life cycle of devices", directory.run_life_cycle(|| stop.is_cancelled()).await.map(drop));
            }
        }
    }
    report("writing signs of life", directory.flush_signs_of_life().await);
}

fn report(what: &str, result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "{what} failed; the next run tries again");
    }
}
