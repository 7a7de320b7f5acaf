//! A private Prosody, set up as an ordinary deployment: internal accounts, carbons, stream management, PEP, blocking.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::ports::{free_port, is_open};
use super::process::{Process, Program, is_root, poll};
use super::{COMPONENT, DOMAIN, SECRET, repository};

const START_DEADLINE: Duration = Duration::from_secs(90);
const STOP_DEADLINE: Duration = Duration::from_secs(60);
/// What Debian's configuration enables, and what people add who use several devices.
const MODULES: &[&str] = &[
    "blocklist",
    "carbons",
    "csi_simple",
    "disco",
    "pep",
    "ping",
    "private",
    "roster",
    "saslauth",
    "smacks",
    "time",
    "uptime",
    "vcard4",
    "vcard_legacy",
    "version",
];

/// How a Prosody is to be.
pub struct Builder {
    domain: String,
    users: Vec<(String, String)>,
    strangers: Vec<(String, String)>,
    components: Vec<(String, String, String)>,
    modules: Vec<String>,
    plugin_paths: Vec<PathBuf>,
    global: String,
    host: String,
    federation: Option<(u16, Vec<(String, u16)>)>,
}

impl Builder {
    /// Takes other servers on a port of loopback, and finds those of `others` at theirs, without DNS and without TLS.
    pub fn federates(mut self, port: u16, others: &[(&str, u16)]) -> Self {
        let others = others.iter().map(|(domain, port)| ((*domain).to_owned(), *port)).collect();
        self.federation = Some((port, others));
        let modules = repository().join("tests/support/prosody_modules");
        self.plugin_path(&modules).module("fixed_addresses").module("dialback")
    }

    /// Serves another domain than [`DOMAIN`].
    pub fn domain(mut self, domain: &str) -> Self {
        self.domain = domain.into();
        self
    }

    /// Adds an account.
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.push((name.into(), password.into()));
        self
    }

    /// Adds accounts whose passwords are their names.
    pub fn users(mut self, names: &[&str]) -> Self {
        self.users.extend(names.iter().map(|name| (name.to_string(), name.to_string())));
        self
    }

    /// Adds an account, whose password is its name, on another domain of the same server: a stranger for a component that
    /// does not serve that domain.
    pub fn stranger(mut self, name: &str, domain: &str) -> Self {
        self.strangers.push((name.into(), domain.into()));
        self
    }

    /// Adds the usual component: [`COMPONENT`] with [`SECRET`].
    pub fn multiend(self) -> Self {
        self.component(COMPONENT, SECRET, "")
    }

    /// Adds a component, with more lines for its section.
    pub fn component(mut self, jid: &str, secret: &str, extra: &str) -> Self {
        self.components.push((jid.into(), secret.into(), extra.into()));
        self
    }

    /// Enables one more module, as `mam`.
    pub fn module(mut self, name: &str) -> Self {
        self.modules.push(name.into());
        self
    }

    /// Adds a directory of modules.
    pub fn plugin_path(mut self, path: &Path) -> Self {
        self.plugin_paths.push(path.to_owned());
        self
    }

    /// Adds lines to the global section.
    pub fn global(mut self, lines: &str) -> Self {
        self.global.push_str(lines);
        self.global.push('\n');
        self
    }

    /// Adds lines to the section of the domain.
    pub fn host(mut self, lines: &str) -> Self {
        self.host.push_str(lines);
        self.host.push('\n');
        self
    }

    /// Writes the configuration and the accounts and starts the server; returns when it takes connections.
    pub fn start(self) -> Prosody {
        let dir = tempfile::Builder::new().prefix("multiend-prosody-").tempdir().expect("a temporary directory");
        for sub in ["data", "certs"] {
            fs::create_dir(dir.path().join(sub)).expect("a directory");
        }
        let mut prosody = Prosody {
            server: None,
            dir,
            domain: self.domain.clone(),
            c2s_port: free_port(),
            component_port: free_port(),
        };
        fs::write(prosody.config_path(), self.config(&prosody)).expect("a file");
        for (name, password) in &self.users {
            prosody.add_user(name, password);
        }
        for (name, domain) in &self.strangers {
            prosody.add_account(domain, name, name);
        }
        prosody.restart();
        prosody
    }

    fn config(&self, prosody: &Prosody) -> String {
        let dir = prosody.dir.path().display();
        let quoted = |names: &mut dyn Iterator<Item = String>| {
            names.map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
        };
        let modules = quoted(&mut MODULES.iter().map(ToString::to_string).chain(self.modules.iter().cloned()));
        let plugin_paths = quoted(&mut self.plugin_paths.iter().map(|path| path.display().to_string()));
        let mut text = format!(
            r#"pidfile = "{dir}/prosody.pid"
data_path = "{dir}/data"
certificates = "{dir}/certs"
plugin_paths = {{ {plugin_paths} }}
log = {{ {{ levels = {{ min = "info" }}, to = "file", filename = "{log}" }} }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {c2s} }}
component_interfaces = {{ "127.0.0.1" }}
component_ports = {{ {component} }}
s2s_interfaces = {{ "127.0.0.1" }}
s2s_ports = {{ {s2s} }}
s2s_require_encryption = false
http_ports = {{}}
https_ports = {{}}
c2s_direct_tls_ports = {{}}
s2s_direct_tls_ports = {{}}
authentication = "internal_plain"
storage = "internal"
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
modules_enabled = {{ {modules} }}
modules_disabled = {{ "admin_shell"{no_s2s} }}
fixed_addresses = {{ {addresses} }}
"#,
            log = prosody.log_path().display(),
            c2s = prosody.c2s_port,
            component = prosody.component_port,
            s2s = self.federation.as_ref().map(|(port, _)| port.to_string()).unwrap_or_default(),
            no_s2s = if self.federation.is_some() { "" } else { ", \"s2s\"" },
            addresses = self.federation.iter().flat_map(|(_, others)| others).fold(String::new(), |mut text, other| {
                let _ = write!(text, "[{:?}] = {}; ", other.0, other.1);
                text
            }),
        );
        if is_root() {
            text.push_str("run_as_root = true\nprosody_user = \"root\"\nprosody_group = \"root\"\n");
        }
        let _ = write!(text, "{}\nVirtualHost \"{}\"\n{}\n", self.global, self.domain, self.host);
        let others: BTreeSet<&str> = self.strangers.iter().map(|(_, domain)| domain.as_str()).collect();
        for domain in others {
            let _ = writeln!(text, "VirtualHost \"{domain}\"");
        }
        for (jid, secret, extra) in &self.components {
            let _ = write!(text, "Component \"{jid}\"\ncomponent_secret = \"{secret}\"\n{extra}\n");
        }
        text
    }
}

/// A running Prosody.
pub struct Prosody {
    server: Option<Process>,
    dir: TempDir,
    domain: String,
    c2s_port: u16,
    component_port: u16,
}

impl Prosody {
    /// Begins one for [`DOMAIN`] without users and components.
    pub fn builder() -> Builder {
        Builder {
            domain: DOMAIN.into(),
            users: vec![],
            strangers: vec![],
            components: vec![],
            modules: vec![],
            plugin_paths: vec![],
            global: String::new(),
            host: String::new(),
            federation: None,
        }
    }

    /// The port for clients.
    pub fn c2s_port(&self) -> u16 {
        self.c2s_port
    }

    /// The port for components.
    pub fn component_port(&self) -> u16 {
        self.component_port
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("it runs").pid()
    }

    /// The domain that it serves.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Its configuration file, which a test may change before [`Prosody::restart`].
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("prosody.cfg.lua")
    }

    /// Its log.
    pub fn log_path(&self) -> PathBuf {
        self.dir.path().join("prosody.log")
    }

    /// The directory of its data.
    pub fn data_path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Adds an account: the file that `prosodyctl register` would write, in a thousandth of the time.
    pub fn add_user(&self, name: &str, password: &str) {
        self.add_account(&self.domain, name, password);
    }

    fn add_account(&self, domain: &str, name: &str, password: &str) {
        let accounts = self.data_path().join(domain.replace('.', "%2e").replace('-', "%2d")).join("accounts");
        fs::create_dir_all(&accounts).expect("a directory");
        let file = accounts.join(format!("{name}.dat"));
        fs::write(file, format!("return {{\n\t[\"password\"] = {password:?};\n}};\n")).expect("a file");
    }

    /// Starts it again on the same data and ports, after a stop in good order if it runs.
    pub fn restart(&mut self) {
        self.stop();
        // What it had started when it was killed, such as the plugin's `sync`, has its ports for a moment longer. Whoever
        // connects to them then reaches nobody.
        let (c2s, component) = (self.c2s_port, self.component_port);
        poll("free ports", STOP_DEADLINE, || (!is_open(c2s) && !is_open(component)).then_some(()));
        let mut server = Program::new("prosody", &self.dir.path().join("output.log"))
            .arg("--config")
            .arg(self.config_path())
            .arg("-F")
            .start();
        let has_components = fs::read_to_string(self.config_path()).expect("the file").contains("\nComponent \"");
        server.wait_ready(START_DEADLINE, || is_open(c2s) && (!has_components || is_open(component)));
        self.server = Some(server);
    }

    /// Stops it in good order.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.signal("TERM");
            server.wait(STOP_DEADLINE);
        }
    }

    /// Kills it.
    pub fn kill9(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill9();
        }
    }

    /// Sends it a signal by name: `STOP` and `CONT` make a server that hangs.
    pub fn signal(&mut self, name: &str) {
        self.server.as_mut().expect("it runs").signal(name);
    }
}
