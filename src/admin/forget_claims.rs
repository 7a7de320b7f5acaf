//! Forgetting who was given which prekey, once no repeat of the question could be answered with it (DESIGN, directory
//! invariant 2). Tombstones stay: an issued prekey is never unissued (invariant 3).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::model::Clock;
use crate::store::{DirectoryStore, StoreError};

/// Claims forgotten in one transaction.
const BATCH: u32 = 1_000;
/// How often to look. What is forgotten late costs only space.
const INTERVAL: Duration = Duration::from_secs(3_600);

/// Forgets claims older than `repeat_window` until `stop` is cancelled. A failure is logged, and the next run tries again.
pub async fn run<S: DirectoryStore + ?Sized>(
    store: Arc<S>,
    clock: Arc<dyn Clock>,
    repeat_window: Duration,
    stop: CancellationToken,
) {
    loop {
        if let Err(error) = forget(store.as_ref(), clock.as_ref(), repeat_window, &stop).await {
            tracing::warn!(%error, "forgetting old claims failed; the next run tries again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn forget<S: DirectoryStore + ?Sized>(
    store: &S,
    clock: &dyn Clock,
    repeat_window: Duration,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    let before = clock.now().minus(repeat_window);
    while !stop.is_cancelled() && store.forget_claims(before, BATCH).await? > 0 {
        tokio::task::yield_now().await;
    }
    Ok(())
}
