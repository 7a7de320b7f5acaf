//! How the program is asked to stop: SIGTERM or SIGINT.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Exit status of a program that a second SIGINT cut short, as shells have it.
const INTERRUPTED: i32 = 130;

/// A token that is cancelled by the first SIGTERM or SIGINT. A second one ends the program at once; what was acknowledged
/// is durable in any case.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let mut next = async || tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
        let name = next().await;
        info!(signal = name, "stopping: finishing what was accepted; a second signal ends the program at once");
        stop.cancel();
        let name = next().await;
        warn!(signal = name, "ending at once");
        std::process::exit(INTERRUPTED);
    });
    Ok(token)
}
