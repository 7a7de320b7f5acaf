//! Looking through all archives for what leaves them before it expires (DESIGN, archive invariant 5): one owner after the
//! other, so that nobody waits for it, and at most one run an interval.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::archive::ArchiveMetrics;
use crate::archive::retire::{Limits, Retired, retire};
use crate::model::Clock;
use crate::store::{SharedStore, StoreError};

/// Owners read at once.
const OWNERS: u32 = 200;

/// Takes out what the limits do not keep, every `interval`, until `stop` is cancelled. Does nothing if they keep everything.
pub async fn run(
    store: SharedStore,
    clock: Arc<dyn Clock>,
    limits: Limits,
    interval: Duration,
    metrics: ArchiveMetrics,
    stop: CancellationToken,
) {
    if limits.is_empty() {
        return;
    }
    loop {
        if let Err(error) = retire_all(&store, clock.as_ref(), &limits, &metrics, &stop).await {
            metrics.purge_failed();
            tracing::warn!(%error, "taking messages out of archives failed; the next run tries again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
    }
}

/// Goes through all archives once, or until `stop` is cancelled.
pub async fn retire_all(
    store: &SharedStore,
    clock: &dyn Clock,
    limits: &Limits,
    metrics: &ArchiveMetrics,
    stop: &CancellationToken,
) -> Result<Retired, StoreError> {
    let mut total = Retired::default();
    let mut after = None;
    loop {
        let owners = store.owner_records(after.as_ref(), OWNERS).await?;
        let Some(last) = owners.last().map(|record| record.owner.clone()) else { break };
        for record in owners {
            if stop.is_cancelled() {
                return Ok(total);
            }
            let retired = retire(store, &record.owner, limits, clock.now()).await?;
            metrics.retired(retired);
            total.surplus = total.surplus.saturating_add(retired.surplus);
            total.read = total.read.saturating_add(retired.read);
        }
        after = Some(last);
    }
    if total != Retired::default() {
        tracing::info!(surplus = total.surplus, read = total.read, "took messages out of archives");
    }
    Ok(total)
}
