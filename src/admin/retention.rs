//! `multiend admin retention`: what has expired and is still there, and, when told so, its removal at once. A running server
//! does the same by itself every `archive.purge_interval`; both may go on side by side.

use std::fmt;

use serde::Serialize;

use super::long_work::{OnProgress, Progress};
use super::table::Table;
use crate::model::Clock;
use crate::store::{ArchiveStore, Purged, StoreError};

/// What is due, or what was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetentionRun {
    /// Whether nothing was removed: it was only looked at.
    pub dry_run: bool,
    /// Whether all that was due is done.
    pub complete: bool,
    /// Copies that have expired and are still there.
    pub due: u64,
    /// Since when the oldest of them, in UTC.
    pub oldest: Option<String>,
    /// Copies whose message was removed; in the middle of an archive a placeholder stays.
    pub expired: u64,
    /// Placeholders removed at the oldest end of archives.
    pub trimmed: u64,
    /// Messages removed because no copy needs them any more.
    pub bodies: u64,
}

impl fmt::Display for RetentionRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["figure", "value"]);
        table.row([&"expired copies still there", &self.due]);
        table.row([&"the oldest since", &self.oldest.as_deref().unwrap_or("-")]);
        if !self.dry_run {
            table.row([&"copies removed", &self.expired]);
            table.row([&"placeholders removed", &self.trimmed]);
            table.row([&"messages removed", &self.bodies]);
        }
        table.fmt(f)?;
        match (self.dry_run, self.complete) {
            (true, _) => writeln!(f, "nothing was removed; --run does it"),
            (false, true) => Ok(()),
            (false, false) => writeln!(f, "stopped; the same command goes on from here"),
        }
    }
}

/// What has expired and is still there.
pub async fn dry_run<S: ArchiveStore + ?Sized>(store: &S, clock: &dyn Clock) -> Result<RetentionRun, StoreError> {
    let (due, oldest) = store.purge_backlog(clock.now()).await?;
    let oldest = oldest.map(|oldest| oldest.to_xmpp());
    Ok(RetentionRun { dry_run: true, complete: false, due, oldest, expired: 0, trimmed: 0, bodies: 0 })
}

/// Removes it, `batch` copies in one transaction.
pub async fn run<S: ArchiveStore + ?Sized>(
    store: &S,
    clock: &dyn Clock,
    batch: u32,
    mut progress: impl OnProgress,
) -> Result<RetentionRun, StoreError> {
    let now = clock.now();
    let all = dry_run(store, clock).await?.due;
    let mut run =
        RetentionRun { dry_run: false, complete: false, due: 0, oldest: None, expired: 0, trimmed: 0, bodies: 0 };
    loop {
        let step = store.purge(now, batch.max(1)).await?;
        if step == Purged::default() {
            run.complete = true;
            break;
        }
        run.expired = run.expired.saturating_add(step.expired);
        run.trimmed = run.trimmed.saturating_add(step.trimmed);
        run.bodies = run.bodies.saturating_add(step.bodies);
        if progress(Progress { done: run.expired, of: Some(all), what: "copies" }).is_break() {
            break;
        }
    }
    let left = dry_run(store, clock).await?;
    (run.due, run.oldest) = (left.due, left.oldest);
    Ok(run)
}
