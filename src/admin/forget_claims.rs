//! Forgetting who was given a last resort, and whose allowance is full again (DESIGN, directory invariants 2 and 9). Who
//! asks is anybody, so what is remembered of them must not grow for ever. Tombstones stay, with whom they were issued to:
//! an issued prekey is never unissued (invariant 3).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::purge::PurgeSettings;
use crate::model::{Clock, Setting, Timestamp};
use crate::store::{ClaimStore, StoreError};

/// Forgets claims older than `remembered`, which is at least the repeat window, until `stop` is cancelled. A failure is
/// logged, and the next run tries again.
pub async fn run<S: ClaimStore + ?Sized>(
    store: Arc<S>,
    clock: Arc<dyn Clock>,
    remembered: Setting<Duration>,
    settings: PurgeSettings,
    stop: CancellationToken,
) {
    loop {
        let before = clock.now().minus(remembered.get());
        if let Err(error) = forget(store.as_ref(), before, settings.batch.max(1), &stop).await {
            tracing::warn!(%error, "forgetting old claims failed; the next run tries again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(settings.interval) => {}
        }
    }
}

async fn forget<S: ClaimStore + ?Sized>(
    store: &S,
    before: Timestamp,
    batch: u32,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    while !stop.is_cancelled() && store.forget_claims(before, batch).await? > 0 {
        tokio::task::yield_now().await;
    }
    Ok(())
}
