//! Forgetting who was given which prekey, once no repeat of the question would be answered with it (DESIGN, directory
//! invariant 2). Who asks is anybody, so what is remembered of them must not grow for ever. Tombstones stay: an issued
//! prekey is never unissued (invariant 3).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::purge::PurgeSettings;
use crate::model::{Clock, Timestamp};
use crate::store::{ClaimStore, StoreError};

/// Forgets claims older than `repeat_window` until `stop` is cancelled. A failure is logged, and the next run tries again.
pub async fn run<S: ClaimStore + ?Sized>(
    store: Arc<S>,
    clock: Arc<dyn Clock>,
    repeat_window: Duration,
    settings: PurgeSettings,
    stop: CancellationToken,
) {
    loop {
        let before = clock.now().minus(repeat_window);
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
