//! Removing what has expired (DESIGN, archive invariant 5). Readers no longer see it from the instant at which it expires;
//! the purge gives the space back, in transactions so short that nobody waits for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::archive::ArchiveMetrics;
use crate::model::Clock;
use crate::store::{ArchiveStore, Purged, StoreError};

/// The longest pause between two batches: a database that hangs is not purged more slowly for that.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How the purge goes about its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurgeSettings {
    /// Most copies of one transaction; at least 1.
    pub batch: u32,
    /// How long to wait once nothing is left, or after a failure.
    pub interval: Duration,
}

impl Default for PurgeSettings {
    fn default() -> Self {
        Self { batch: 500, interval: Duration::from_secs(60) }
    }
}

/// Purges until `stop` is cancelled. A failure is logged and counted, and the next run tries again.
pub async fn run<S: ArchiveStore + ?Sized>(
    store: Arc<S>,
    clock: Arc<dyn Clock>,
    settings: PurgeSettings,
    metrics: ArchiveMetrics,
    stop: CancellationToken,
) {
    loop {
        if let Err(error) = purge_all(store.as_ref(), clock.as_ref(), settings, &metrics, &stop).await {
            metrics.purge_failed();
            tracing::warn!(%error, "purging expired messages failed; the next run tries again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(settings.interval) => {}
        }
    }
}

/// Purges everything that has expired by now, batch by batch, or until `stop` is cancelled. Four fifths of the time it leaves
/// the database to others: what waits to be purged is hidden already, and what waits to be stored is not stored yet.
pub async fn purge_all<S: ArchiveStore + ?Sized>(
    store: &S,
    clock: &dyn Clock,
    settings: PurgeSettings,
    metrics: &ArchiveMetrics,
    stop: &CancellationToken,
) -> Result<Purged, StoreError> {
    let now = clock.now();
    let mut total = Purged::default();
    while !stop.is_cancelled() {
        let started = Instant::now();
        let step = store.purge(now, settings.batch.max(1)).await?;
        if step == Purged::default() {
            break;
        }
        metrics.purged(step);
        total.expired = total.expired.saturating_add(step.expired);
        total.trimmed = total.trimmed.saturating_add(step.trimmed);
        total.bodies = total.bodies.saturating_add(step.bodies);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(started.elapsed().saturating_mul(4).min(LONGEST_PAUSE)) => {}
        }
    }
    let (backlog, oldest) = store.purge_backlog(now).await?;
    metrics.purge_backlog(backlog, oldest, now);
    if total != Purged::default() {
        tracing::info!(expired = total.expired, trimmed = total.trimmed, bodies = total.bodies, "purged");
    }
    Ok(total)
}

#[cfg(test)]
mod tests;
