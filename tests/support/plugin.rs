//! A Prosody with our plugin and multiend behind it, as docs/prosody.md sets them up.

use std::path::PathBuf;

use super::multiend::Multiend;
use super::prosody::{Builder, Prosody};
use super::xmpp::Client;
use super::{COMPONENT, DOMAIN, SECRET, repository};

/// Where the plugins for Prosody are.
pub fn prosody_plugins() -> PathBuf {
    repository().join("plugins/prosody")
}

/// A Prosody with the plugin, for `users`.
pub fn prosody(users: &[&str]) -> Builder {
    Prosody::builder().users(users).plugin_path(&prosody_plugins()).module("multiend").component(COMPONENT, SECRET, "")
}

/// Both.
pub struct Setup {
    /// The server.
    pub prosody: Prosody,
    /// The component.
    pub multiend: Multiend,
}

impl Setup {
    /// Starts both for `users`.
    pub fn start(users: &[&str]) -> Self {
        Self::with(prosody(users), "")
    }

    /// Starts both, with more lines in the configuration of multiend.
    pub fn with(prosody: Builder, extra: &str) -> Self {
        let prosody = prosody.start();
        let multiend = Multiend::builder(prosody.component_port()).extra(extra).start();
        Self { prosody, multiend }
    }

    /// A session that is online.
    pub async fn client(&self, user: &str, resource: &str) -> Client {
        let mut client = Client::connect(self.prosody.c2s_port(), DOMAIN, user, resource).await;
        client.online().await;
        client
    }
}
