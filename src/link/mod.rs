//! The XEP-0114 connection to the server: connected again whenever it breaks, and never broken by what others send.
//!
//! [`Link::start`] makes one task that connects, proves the secret, hands up every inbound stanza as the bytes that came,
//! and writes what is put into the [`Outbox`]. What no stanza can do is end the stream: one that breaks a limit is
//! refused by the [`framer`] without being held, its sender gets an error, and a metric counts it.
//!
//! The link never looks into a stanza further than its start tag (and, to answer one that it refuses, that of the payload),
//! and never logs one.
//!
//! Where to find what: [`framer`] cuts the stream into stanzas on top of the `lexer`, `characters` and `namespaces`;
//! `connect` and `handshake` begin a stream, `session` runs it, `supervisor` makes the next one after a `backoff`;
//! `keepalive` finds out that a server is dead; `outbox` and `drain` see to it that what was accepted is sent.

mod backoff;
mod characters;
mod config;
mod connect;
mod drain;
mod error_reply;
mod event;
mod fault;
pub mod framer;
mod handshake;
mod keepalive;
mod lexer;
mod limits;
mod metrics;
mod namespaces;
mod outbox;
mod probe;
mod reference;
mod session;
mod stanza_head;
mod state;
mod stream_error;
mod supervisor;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use backoff::Backoff;
pub use config::LinkConfig;
pub use fault::Fault;
pub use keepalive::Keepalive;
pub use limits::{Limits, RefusalReason};
pub use metrics::LinkMetrics;
pub use outbox::{LONGEST_STANZA, Outbox, SendError};
pub use probe::probe;
pub use stanza_head::{StanzaHead, StanzaKind};
pub use state::{DownReason, LinkError, LinkState};
pub use stream_error::StreamError;

use drain::Drain;
use supervisor::Supervisor;

/// One inbound stanza: well-formed XML within the [`Limits`], with every prefix declared on it. Where it declares no
/// default namespace, it is in the stream's, `jabber:component:accept`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawStanza {
    /// The whole element, from its `<` to its last `>`, as it came.
    pub bytes: Bytes,
    /// Message, presence or IQ.
    pub kind: StanzaKind,
}

/// The connection to the server.
pub struct Link;

impl Link {
    /// Starts the link on the current tokio runtime and returns at once.
    ///
    /// Inbound stanzas go to `inbound` in the order in which they came; while it is full, nothing is read from the
    /// server. When `shutdown` is cancelled, the link drops `inbound` (so that the receiver ends once it has taken what
    /// is in it), answers what still comes with an error, and goes on sending until every [`Outbox`] is dropped or
    /// [`LinkHandle::drained`] is cancelled, at most for [`LinkConfig::drain_timeout`]; then it closes the stream.
    pub fn start(
        config: LinkConfig,
        metrics: LinkMetrics,
        inbound: mpsc::Sender<RawStanza>,
        shutdown: CancellationToken,
    ) -> LinkHandle {
        let (outbox, queue) = outbox::outbox(config.outbox_capacity, config.outbox_bytes);
        let (state_sender, state) = watch::channel(LinkState::Connecting);
        let drained = CancellationToken::new();
        let drain = Drain::new(shutdown, drained.clone(), config.drain_timeout);
        let supervisor = Supervisor::new(config, metrics, inbound, queue, state_sender, drain);
        LinkHandle { outbox, state, drained, finished: tokio::spawn(supervisor.run()) }
    }
}

/// A running link.
#[derive(Debug)]
pub struct LinkHandle {
    /// Where to put stanzas for the server. To end a shutdown early, drop this one too.
    pub outbox: Outbox,
    /// How the link is.
    pub state: watch::Receiver<LinkState>,
    /// Cancel it during a shutdown to say that nothing more will be sent, although clones of the outbox are still about.
    pub drained: CancellationToken,
    /// Ends after a shutdown, or with the error that no further attempt could mend.
    pub finished: JoinHandle<Result<(), LinkError>>,
}
