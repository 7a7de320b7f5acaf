//! What a client needs to know before it connects.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use xmpp_parsers::jid::BareJid;

use crate::door::Door;
use crate::protocol::Protocols;

/// Settings of one device of one account.
#[derive(Clone)]
pub struct Settings {
    /// The account.
    pub account: BareJid,
    /// The resource to bind; one that stays the same lets a server tell the device by its full JID.
    pub resource: String,
    /// The account's password.
    pub password: String,
    /// Where the server listens for clients. The connection is not encrypted: for loopback only.
    pub server: SocketAddr,
    /// How directory and archive are reached.
    pub door: Door,
    /// The protocols in which it is published and writes. Whoever reads both is written to in the preferred one.
    ///
    /// A device that is given another protocol later keeps its id and identity. One that wrote in another protocol before
    /// goes on being published and reading in it.
    pub protocols: Protocols,
    /// Where the device's state is kept; made at the first start. One file belongs to one running client.
    pub state_file: PathBuf,
    /// The limits on waiting.
    pub patience: Patience,
}

/// How long to wait for the other side, and when to ask again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long one request or one message may go unanswered before it is sent again.
    pub answer: Duration,
    /// How long to go on asking, sending again or reconnecting before a call fails.
    pub overall: Duration,
    /// The longest pause between two attempts to connect.
    pub reconnect: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { answer: Duration::from_secs(5), overall: Duration::from_secs(60), reconnect: Duration::from_secs(10) }
    }
}

impl Settings {
    /// Settings with the default [`Protocols`] and [`Patience`].
    pub fn new(
        account: BareJid,
        resource: impl Into<String>,
        password: impl Into<String>,
        server: SocketAddr,
        door: Door,
        state_file: impl Into<PathBuf>,
    ) -> Self {
        Self {
            account,
            resource: resource.into(),
            password: password.into(),
            server,
            door,
            protocols: Protocols::default(),
            state_file: state_file.into(),
            patience: Patience::default(),
        }
    }
}

impl fmt::Debug for Settings {
    /// Leaves the password out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("account", &self.account)
            .field("resource", &self.resource)
            .field("server", &self.server)
            .field("door", &self.door)
            .field("protocols", &self.protocols)
            .field("state_file", &self.state_file)
            .finish_non_exhaustive()
    }
}
