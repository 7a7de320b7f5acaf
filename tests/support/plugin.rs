//! A server with our plugin and multiend behind it, as docs/prosody.md and docs/ejabberd.md set them up. The same scenarios
//! run on both: what a test says of a server here is said in the words of either.

use std::fmt::Write as _;
use std::marker::PhantomData;
use std::path::PathBuf;

use super::ejabberd::{self, Ejabberd};
use super::multiend::Multiend;
use super::prosody::{self, Prosody};
use super::xmpp::Client;
use super::{COMPONENT, DOMAIN, SECRET, ejabberd_plugin, repository};

/// Where the plugins for Prosody are.
pub fn prosody_plugins() -> PathBuf {
    repository().join("plugins/prosody")
}

/// A Prosody with the plugin, for `users`.
pub fn prosody(users: &[&str]) -> prosody::Builder {
    Prosody::builder().users(users).plugin_path(&prosody_plugins()).module("multiend").component(COMPONENT, SECRET, "")
}

/// An ejabberd with the plugin, for `users`, and with more lines of YAML for it, indented by four.
pub fn ejabberd(users: &[&str], options: &str) -> ejabberd::Builder {
    let options = if options.is_empty() { " {}".to_owned() } else { format!("\n{options}") };
    Ejabberd::builder()
        .users(users)
        .load_path(ejabberd_plugin::compiled())
        .module(&format!("  mod_multiend:{options}"))
        .multiend()
}

/// Which server it is, where a test must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Prosody.
    Prosody,
    /// ejabberd.
    Ejabberd,
}

/// A server that has the plugin.
pub trait Server: Sized {
    /// Which.
    const KIND: Kind;
    /// What in its configuration loads the plugin, when that has no options.
    const LOADS_PLUGIN: &str;
    /// Starts it as a test wants it.
    fn deploy(deployment: &Deployment<Self>) -> Self;
    /// The port for clients.
    fn c2s_port(&self) -> u16;
    /// The port for components.
    fn component_port(&self) -> u16;
    /// Its process id, while it runs.
    fn pid(&self) -> u32;
    /// Its configuration file.
    fn config_path(&self) -> PathBuf;
    /// Its log.
    fn log_path(&self) -> PathBuf;
    /// Where the journal of [`DOMAIN`] is.
    fn journal(&self) -> PathBuf;
    /// Starts it again, after a stop in good order if it runs.
    fn restart(&mut self);
    /// Stops it in good order.
    fn stop(&mut self);
    /// Kills it.
    fn kill9(&mut self);
}

/// How a server with the plugin is to be.
pub struct Deployment<S> {
    users: Vec<String>,
    strangers: Vec<(String, String)>,
    options: Vec<(&'static str, String)>,
    components: Vec<String>,
    offline_storage: bool,
    rooms: bool,
    federation: Option<(u16, String, u16)>,
    server: PhantomData<S>,
}

impl<S: Server> Deployment<S> {
    /// For accounts of [`DOMAIN`] whose passwords are their names.
    pub fn new(users: &[&str]) -> Self {
        Self {
            users: users.iter().map(ToString::to_string).collect(),
            strangers: vec![],
            options: vec![],
            components: vec![],
            offline_storage: false,
            rooms: false,
            federation: None,
            server: PhantomData,
        }
    }

    /// Sets an option of the plugin, as `timeout` and `2`.
    pub fn option(mut self, name: &'static str, value: impl ToString) -> Self {
        self.options.push((name, value.to_string()));
        self
    }

    /// The component JIDs that the plugin knows, if not the default. The first is always [`COMPONENT`].
    pub fn components(mut self, jids: &[&str]) -> Self {
        self.components = jids.iter().map(ToString::to_string).collect();
        self
    }

    /// An account on another domain of the same server.
    pub fn stranger(mut self, name: &str, domain: &str) -> Self {
        self.strangers.push((name.into(), domain.into()));
        self
    }

    /// With offline storage besides the archive.
    pub fn offline_storage(mut self) -> Self {
        self.offline_storage = true;
        self
    }

    /// With rooms at `rooms.example.org`, which keep archives of their own.
    pub fn rooms(mut self) -> Self {
        self.rooms = true;
        self
    }

    /// Takes other servers on a port of loopback, and finds that of `other` at its own.
    pub fn federates(mut self, port: u16, other: &str, other_port: u16) -> Self {
        self.federation = Some((port, other.into(), other_port));
        self
    }

    /// Starts it.
    pub fn start(&self) -> S {
        S::deploy(self)
    }

    fn users(&self) -> Vec<&str> {
        self.users.iter().map(String::as_str).collect()
    }
}

/// A server and multiend.
pub struct Setup<S> {
    /// The server.
    pub server: S,
    /// The component.
    pub multiend: Multiend,
}

impl<S: Server> Setup<S> {
    /// Starts both for `users`.
    pub fn start(users: &[&str]) -> Self {
        Self::with(&Deployment::new(users), "")
    }

    /// Starts both, with more lines in the configuration of multiend.
    pub fn with(deployment: &Deployment<S>, extra: &str) -> Self {
        let server = deployment.start();
        let multiend = Multiend::builder(server.component_port()).extra(extra).start();
        Self { server, multiend }
    }

    /// A session that is online.
    pub async fn client(&self, user: &str, resource: &str) -> Client {
        let mut client = Client::connect(self.server.c2s_port(), DOMAIN, user, resource).await;
        client.online().await;
        client
    }
}

impl Server for Prosody {
    const KIND: Kind = Kind::Prosody;
    const LOADS_PLUGIN: &str = ", \"multiend\"";

    fn deploy(deployment: &Deployment<Self>) -> Self {
        let mut builder = prosody(&deployment.users());
        let mut options = String::new();
        for (name, value) in &deployment.options {
            let is_word = value.starts_with(|first: char| first.is_alphabetic());
            let value = if is_word { format!("{value:?}") } else { value.clone() };
            let _ = writeln!(options, "multiend_{name} = {value}");
        }
        builder = builder.host(&options);
        if !deployment.components.is_empty() {
            let jids = deployment.components.iter().map(|jid| format!("{jid:?}")).collect::<Vec<_>>().join(", ");
            builder = builder.global(&format!("multiend_components = {{ {jids} }}"));
        }
        for jid in deployment.components.iter().filter(|jid| *jid != COMPONENT) {
            builder = builder.component(jid, SECRET, "");
        }
        for (name, domain) in &deployment.strangers {
            builder = builder.stranger(name, domain);
        }
        if deployment.offline_storage {
            builder = builder.module("offline");
        }
        if deployment.rooms {
            let room = "Component \"rooms.example.org\" \"muc\"\nmodules_enabled = { \"muc_mam\" }\nmuc_room_locking = false\n";
            builder = builder.component("unused.example.org", SECRET, room);
        }
        if let Some((port, other, other_port)) = &deployment.federation {
            builder = builder.federates(*port, &[(other.as_str(), *other_port)]);
        }
        builder.start()
    }

    fn c2s_port(&self) -> u16 {
        self.c2s_port()
    }

    fn component_port(&self) -> u16 {
        self.component_port()
    }

    fn pid(&self) -> u32 {
        self.pid()
    }

    fn config_path(&self) -> PathBuf {
        self.config_path()
    }

    fn log_path(&self) -> PathBuf {
        self.log_path()
    }

    fn journal(&self) -> PathBuf {
        self.data_path().join("multiend").join(DOMAIN)
    }

    fn restart(&mut self) {
        self.restart();
    }

    fn stop(&mut self) {
        self.stop();
    }

    fn kill9(&mut self) {
        self.kill9();
    }
}

impl Server for Ejabberd {
    const KIND: Kind = Kind::Ejabberd;
    const LOADS_PLUGIN: &str = "  mod_multiend: {}\n";

    fn deploy(deployment: &Deployment<Self>) -> Self {
        let mut options = String::new();
        for (name, value) in &deployment.options {
            let _ = writeln!(options, "    {name}: {value}");
        }
        if !deployment.components.is_empty() {
            let _ = writeln!(options, "    components: [{}]", deployment.components.join(", "));
        }
        let mut builder = ejabberd(&deployment.users(), &options);
        for jid in deployment.components.iter().filter(|jid| *jid != COMPONENT) {
            builder = builder.component(jid, SECRET);
        }
        for (name, domain) in &deployment.strangers {
            builder = builder.stranger(name, domain);
        }
        if !deployment.offline_storage {
            builder = builder.without_module("mod_offline");
        }
        if deployment.rooms {
            builder = builder
                .module("  mod_mam: {default: always}")
                .module("  mod_muc: {hosts: [rooms.example.org], default_room_options: {mam: true}}");
        }
        if let Some((port, _, other_port)) = deployment.federation {
            builder = builder.federates(port, other_port);
        }
        builder.start()
    }

    fn c2s_port(&self) -> u16 {
        self.c2s_port()
    }

    fn component_port(&self) -> u16 {
        self.component_port()
    }

    fn pid(&self) -> u32 {
        self.pid()
    }

    fn config_path(&self) -> PathBuf {
        self.config_path()
    }

    fn log_path(&self) -> PathBuf {
        self.log_path()
    }

    fn journal(&self) -> PathBuf {
        self.data_path().join("multiend").join(DOMAIN)
    }

    fn restart(&mut self) {
        self.restart();
    }

    fn stop(&mut self) {
        self.stop();
    }

    fn kill9(&mut self) {
        self.kill9();
    }
}
