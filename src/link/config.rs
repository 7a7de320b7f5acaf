//! What the link needs to know.

use std::time::Duration;

use jid::DomainPart;
use secrecy::SecretString;

use super::backoff::Backoff;
use super::keepalive::Keepalive;
use super::limits::Limits;

/// The settings of a link. Everything but the first four has a safe default.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The server's component port, `host:port`. Names are resolved at every attempt.
    pub server: String,
    /// The component's own domain.
    pub component: DomainPart,
    /// A domain of the server itself, which is pinged; any that it hosts will do.
    pub server_domain: DomainPart,
    /// The secret shared with the server, `component.secret`.
    pub secret: SecretString,
    /// Bounds on inbound stanzas.
    pub limits: Limits,
    /// When a silent server counts as dead.
    pub keepalive: Keepalive,
    /// How long to wait between attempts.
    pub backoff: Backoff,
    /// Longest wait for the TCP connection, and again for the handshake.
    pub connect_timeout: Duration,
    /// Stanzas that may wait to be sent before [`Outbox::send`](super::Outbox::send) waits.
    pub outbox_capacity: usize,
    /// Bytes of them.
    pub outbox_bytes: u32,
    /// On shutdown, longest wait for accepted work to be finished and sent.
    pub drain_timeout: Duration,
}

impl LinkConfig {
    /// The settings that have no default, and the defaults of the others.
    pub fn new(server: String, component: DomainPart, server_domain: DomainPart, secret: SecretString) -> Self {
        Self {
            server,
            component,
            server_domain,
            secret,
            limits: Limits::default(),
            keepalive: Keepalive::default(),
            backoff: Backoff::default(),
            connect_timeout: Duration::from_secs(10),
            outbox_capacity: 1024,
            outbox_bytes: 32 * 1024 * 1024,
            drain_timeout: Duration::from_secs(10),
        }
    }
}
