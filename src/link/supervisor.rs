//! One connection after the other, until a shutdown or an error that no further attempt could mend.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::RawStanza;
use super::backoff::Delays;
use super::config::LinkConfig;
use super::connect::connect;
use super::drain::Drain;
use super::metrics::LinkMetrics;
use super::outbox::Queue;
use super::session::Session;
use super::state::{DownReason, LinkError, LinkState};

/// A connection that lasted this long has worked: the next delay is the shortest again. One that the server accepts and
/// drops at once has not.
const STABLE: Duration = Duration::from_secs(10);

/// What outlives a connection.
pub(super) struct Supervisor {
    config: Arc<LinkConfig>,
    metrics: LinkMetrics,
    /// `None` once no more is taken in.
    inbound: Option<mpsc::Sender<RawStanza>>,
    queue: Queue,
    state: watch::Sender<LinkState>,
    drain: Drain,
    delays: Delays,
    was_up: bool,
}

impl Supervisor {
    pub fn new(
        config: LinkConfig,
        metrics: LinkMetrics,
        inbound: mpsc::Sender<RawStanza>,
        queue: Queue,
        state: watch::Sender<LinkState>,
        drain: Drain,
    ) -> Self {
        let delays = Delays::new(config.backoff);
        let config = Arc::new(config);
        Self { config, metrics, inbound: Some(inbound), queue, state, drain, delays, was_up: false }
    }

    pub async fn run(mut self) -> Result<(), LinkError> {
        let result = loop {
            self.state.send_replace(LinkState::Connecting);
            let reason = self.attempt().await;
            self.metrics.set_up(false);
            self.state.send_replace(LinkState::Down { reason: reason.clone() });
            if let Some(result) = self.end(&reason) {
                break result;
            }
            let delay = match reason {
                // Whoever took our place would lose it again if we came back soon, and so on.
                DownReason::Replaced => self.delays.longest(),
                _ => self.delays.next(),
            };
            tracing::warn!(
                server = self.config.server,
                component = self.config.component.as_str(),
                retry_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                "the link is down: {reason}"
            );
            if self.unless_over(sleep(delay)).await.is_none() {
                self.state.send_replace(LinkState::Down { reason: DownReason::ShutDown });
                break self.end(&DownReason::ShutDown).unwrap_or(Ok(()));
            }
        };
        self.queue.close();
        result
    }

    /// Connects, and stays connected as long as it goes.
    async fn attempt(&mut self) -> DownReason {
        let config = Arc::clone(&self.config);
        let stream = match self.unless_over(connect(&config)).await {
            None => return DownReason::ShutDown,
            Some(Err(reason)) => return reason,
            Some(Ok(stream)) => stream,
        };
        tracing::info!(server = config.server, component = config.component.as_str(), "the link is up");
        if std::mem::replace(&mut self.was_up, true) {
            self.metrics.reconnected();
        }
        self.metrics.set_up(true);
        self.state.send_replace(LinkState::Up);
        let since = Instant::now();
        let Self { metrics, drain, inbound, queue, .. } = self;
        let reason = Session::new(&config, metrics, drain, inbound, queue, stream).run().await;
        if since.elapsed() >= STABLE {
            self.delays.reset();
        }
        reason
    }

    /// What the link ends with, if this reason ends it.
    fn end(&self, reason: &DownReason) -> Option<Result<(), LinkError>> {
        let error = match reason {
            DownReason::ShutDown => {
                match self.queue.unwritten() {
                    0 => tracing::info!("the link is closed; everything that it was given was sent"),
                    unsent => tracing::warn!(unsent, "the link is closed; not everything could be sent in time"),
                }
                return Some(Ok(()));
            }
            DownReason::WrongSecret => LinkError::WrongSecret {
                server: self.config.server.clone(),
                component: self.config.component.as_str().to_owned(),
            },
            DownReason::Abandoned => LinkError::Abandoned,
            _ => return None,
        };
        // Whoever waits for the end says so, once.
        tracing::debug!("the link has ended: {error}");
        Some(Err(error))
    }

    /// Waits for something while there is no connection; `None` if a shutdown is over before that.
    async fn unless_over<T>(&mut self, until: impl Future<Output = T>) -> Option<T> {
        let mut until = pin!(until);
        loop {
            if self.drain.is_over(&self.queue) {
                return None;
            }
            tokio::select! {
                value = &mut until => return Some(value),
                () = self.drain.next_step() => self.inbound = None,
                // Only so does the queue learn that nobody is left who could send.
                () = self.queue.fill(), if self.drain.has_begun() => {}
            }
        }
    }
}
