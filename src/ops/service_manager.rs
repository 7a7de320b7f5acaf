//! What the service manager (systemd, sd_notify(3)) is told: that the program is ready, what it is doing, that it lives,
//! that it reads its configuration again, that it stops. Without a service manager nothing of this happens.
//!
//! Ready means that the database is open and everything runs. It does not mean that the server is there: multiend waits
//! for it as long as need be, and a service manager that killed it for that would mend nothing. What is missing stands in
//! the status line.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::link::LinkState;

/// Says that everything runs.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Says that the configuration is read again. To be followed by [`ready`].
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the service manager is not told of the reload"),
    }
}

/// Says that the program stops because it was told to.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping: finishing what was accepted")]);
}

/// Keeps the status line right, and says now and then that the program lives if that is asked for (`WatchdogSec=`), until
/// `stop` is cancelled; then it only says that it lives, until this is dropped: stopping may take a while.
pub async fn report(mut link: watch::Receiver<LinkState>, stop: CancellationToken) {
    let watchdog = async {
        match sd_notify::watchdog_enabled() {
            // Twice as often as asked for, as sd_watchdog_enabled(3) wants it.
            Some(limit) => beat(limit.checked_div(2).unwrap_or_default()).await,
            None => std::future::pending().await,
        }
    };
    let status = async {
        loop {
            let line = status(&link.borrow_and_update());
            tell(&[NotifyState::Status(&line)]);
            tokio::select! {
                () = stop.cancelled() => break,
                changed = link.changed() => if changed.is_err() { break },
            }
        }
        stop.cancelled().await;
        stopping();
        std::future::pending::<()>().await;
    };
    tokio::join!(watchdog, status);
}

async fn beat(every: Duration) {
    let mut ticks = interval(every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn status(link: &LinkState) -> String {
    match link {
        LinkState::Up => "connected to the server".to_owned(),
        LinkState::Connecting => "connecting to the server".to_owned(),
        LinkState::Down { reason } => format!("waiting for the server: {reason}"),
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
