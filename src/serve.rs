//! The wiring: builds every layer from the configuration, bottom up, and runs until it is told to stop.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;

use crate::config::Config;
use crate::ops;
use crate::ops::readiness::Readiness;

/// Why the program cannot run, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody else listens there, or the address is not ours.
    #[error("http.listen: cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// The HTTP server, or the handling of signals.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Two metrics have the same name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<(), ServeError> {
    let stop = ops::shutdown::on_signal()?;
    let registry = ops::metrics::registry()?;
    let address = config.http.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| ServeError::Listen { address, error })?;
    let (_link, link_is_up) = watch::channel(false);
    let readiness = Readiness::default().state("component", link_is_up, |up| (!up).then(|| "not connected".to_owned()));
    info!(%address, "serving /metrics, /healthz and /readyz");
    ops::http::serve(listener, registry, readiness, stop.cancelled_owned()).await?;
    info!("stopped");
    Ok(())
}
