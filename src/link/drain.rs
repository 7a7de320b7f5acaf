//! Graceful shutdown: what was accepted is finished and sent, within a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::outbox::Queue;

/// How far the shutdown has come.
#[derive(Debug)]
pub(super) struct Drain {
    shutdown: CancellationToken,
    drained: CancellationToken,
    longest: Duration,
    deadline: Option<Instant>,
    no_more: bool,
    expired: bool,
}

impl Drain {
    /// `shutdown` begins it, `drained` says that nothing more will be put into any outbox.
    pub fn new(shutdown: CancellationToken, drained: CancellationToken, longest: Duration) -> Self {
        Self { shutdown, drained, longest, deadline: None, no_more: false, expired: false }
    }

    /// Whether a shutdown was asked for, noticed yet or not.
    pub fn is_wanted(&self) -> bool {
        self.shutdown.is_cancelled()
    }

    /// Whether it has begun: nothing more is taken in.
    pub fn has_begun(&self) -> bool {
        self.deadline.is_some()
    }

    /// Waits for the next thing to happen to it. May be abandoned at any time.
    pub async fn next_step(&mut self) {
        let Some(deadline) = self.deadline else {
            self.shutdown.cancelled().await;
            let now = Instant::now();
            self.deadline = Some(now.checked_add(self.longest).unwrap_or(now));
            return;
        };
        tokio::select! {
            () = self.drained.cancelled(), if !self.no_more => self.no_more = true,
            () = sleep_until(deadline) => self.expired = true,
        }
    }

    /// Whether all is sent or it has taken too long.
    pub fn is_over(&self, queue: &Queue) -> bool {
        self.has_begun() && (self.expired || queue.is_finished(self.no_more))
    }
}
