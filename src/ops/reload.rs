//! Reading the configuration again on SIGHUP. What can change while the program runs takes effect for all work that begins
//! after it; for what cannot, the log names the keys. A configuration that is wrong changes nothing.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::logging::LogControl;
use super::service_manager;
use crate::config::{Config, ConfigError, Given, Loaded};

/// Reads the configuration from where it was read at the start.
type Read = Arc<dyn Fn() -> Result<Loaded, ConfigError> + Send + Sync>;

/// What a reload needs.
pub struct Reload {
    hangups: Signal,
    read: Read,
    log: LogControl,
    /// What the program was started with: keys that need a restart are compared with it, however often this runs.
    started: Given,
}

impl Reload {
    /// Takes over SIGHUP, which from now on does not end the program any more.
    pub fn new(
        started: Given,
        log: LogControl,
        read: impl Fn() -> Result<Loaded, ConfigError> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Ok(Self { hangups: signal(SignalKind::hangup())?, read: Arc::new(read), log, started })
    }

    /// Reads the configuration at each SIGHUP, and hands it to `apply`, until `stop` is cancelled.
    pub async fn run(mut self, apply: impl Fn(&Config), stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                hangup = self.hangups.recv() => if hangup.is_none() { return },
            }
            service_manager::reloading();
            self.read_again(&apply).await;
            service_manager::ready();
        }
    }

    async fn read_again(&self, apply: &impl Fn(&Config)) {
        let read = Arc::clone(&self.read);
        let loaded = match tokio::task::spawn_blocking(move || read()).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(error)) => {
                tracing::error!("the configuration is wrong, everything stays as it was: {error}");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "the configuration cannot be read");
                return;
            }
        };
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        apply(&loaded.config);
        if let Err(error) = self.log.set_level(&loaded.config.log.level) {
            tracing::error!(%error, "log.level stays as it was");
        }
        let differing = self.started.differing(&loaded.given);
        let (taken, left): (Vec<String>, Vec<String>) = differing.into_iter().partition(|key| Given::is_reloaded(key));
        tracing::info!(differs_from_start = taken.join(", "), "the configuration has been read again");
        if !left.is_empty() {
            tracing::warn!(keys = left.join(", "), "these have changed and need a restart to take effect");
        }
    }
}
