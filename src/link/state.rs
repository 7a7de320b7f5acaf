//! How the link is, and why it is not up.

use std::time::Duration;

use super::fault::Fault;
use super::stream_error::StreamError;

/// How the link is at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Connecting, or in the handshake.
    Connecting,
    /// Accepted by the server.
    Up,
    /// Waiting to try again, or ended.
    Down {
        /// Why.
        reason: DownReason,
    },
}

/// Why the link is down. The text of each is the log line that an operator reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownReason {
    /// No TCP connection came about.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server took the connection but did not finish the handshake in time.
    #[error("the server did not answer the handshake within {0:?}; is this its component port?")]
    HandshakeTimeout(Duration),
    /// The server did not accept the handshake.
    #[error("the server does not accept the value of `component.secret`")]
    WrongSecret,
    /// `<host-unknown/>`: the server has no such component.
    #[error(
        "the server knows no component of this name; add it to the server's configuration or correct `component.name`"
    )]
    HostUnknown,
    /// `<conflict/>` in the handshake: somebody else is connected under our name.
    #[error(
        "the server says that this component is connected already; is another instance running under the same name?"
    )]
    AlreadyConnected,
    /// `<conflict/>` later: somebody else has taken our place.
    #[error(
        "another connection of the same component has taken our place; two instances need two names on this server"
    )]
    Replaced,
    /// `<system-shutdown/>`.
    #[error("the server is shutting down")]
    SystemShutdown,
    /// Any other stream error.
    #[error("the server ended the stream with the error {0}")]
    StreamError(StreamError),
    /// The server closed the stream or the connection without an error.
    #[error("the server closed the connection")]
    ClosedByServer,
    /// The network failed.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Nothing came from the server, not even after a ping.
    #[error("the server has gone silent and does not answer a ping; the connection counts as dead")]
    Silent,
    /// The server's bytes cannot be read.
    #[error("the server's stream cannot be read: {0}")]
    Fault(#[from] Fault),
    /// We have ended it, on request.
    #[error("shut down")]
    ShutDown,
    /// Nobody takes what is received.
    #[error("nothing takes what the link receives")]
    Abandoned,
}

impl DownReason {
    pub(super) fn of_stream_error(error: StreamError, was_up: bool) -> Self {
        match error.condition.as_str() {
            "conflict" if was_up => Self::Replaced,
            "conflict" => Self::AlreadyConnected,
            "system-shutdown" => Self::SystemShutdown,
            "host-unknown" | "host-gone" => Self::HostUnknown,
            "not-authorized" if !was_up => Self::WrongSecret,
            _ => Self::StreamError(error),
        }
    }

    pub(super) fn of_io(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::ClosedByServer,
            _ => Self::Broken(error.to_string()),
        }
    }
}

/// Why the link has ended for good without being asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Trying again would not help, and servers may lock out who does.
    #[error(
        "the XMPP server at {server} does not accept the secret of component {component}: \
         make `component.secret` the same as the secret in the server's configuration \
         (ejabberd says so too if it knows no component of this name: look at `component.name` as well)"
    )]
    WrongSecret {
        /// The server's address.
        server: String,
        /// The component's name.
        component: String,
    },
    /// The receiver of inbound stanzas is gone.
    #[error("the link has ended because nothing takes what it receives")]
    Abandoned,
}
