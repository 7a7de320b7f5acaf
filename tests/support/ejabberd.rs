//! A private ejabberd, set up as an ordinary deployment: internal accounts, carbons, stream management, PEP, blocking.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::ports::{free_port, is_open};
use super::process::{Process, Program};
use super::{COMPONENT, DOMAIN, SECRET};

const START_DEADLINE: Duration = Duration::from_secs(120);
const STOP_DEADLINE: Duration = Duration::from_secs(60);
const MODULES: &str = "  mod_adhoc: {}
  mod_blocking: {}
  mod_caps: {}
  mod_carboncopy: {}
  mod_client_state: {}
  mod_disco: {}
  mod_last: {}
  mod_offline: {}
  mod_ping: {}
  mod_privacy: {}
  mod_private: {}
  mod_pubsub:
    plugins: [flat, pep]
    force_node_config:
      storage:bookmarks: {access_model: whitelist}
  mod_roster: {versioning: true}
  mod_stream_mgmt: {resend_on_timeout: if_offline}
  mod_vcard: {}
";

/// How an ejabberd is to be.
pub struct Builder {
    domain: String,
    users: Vec<(String, String)>,
    strangers: Vec<(String, String)>,
    components: Vec<(String, String)>,
    modules: String,
    left_out: Vec<String>,
    top: String,
    service: String,
    load_paths: Vec<PathBuf>,
    federation: Option<(u16, u16)>,
}

impl Builder {
    /// Takes other servers on a port of loopback, without TLS, and expects all others at another. They are looked up as the
    /// machine looks up names, so the other's is `localhost`.
    pub fn federates(mut self, port: u16, other_port: u16) -> Self {
        self.federation = Some((port, other_port));
        self
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
        self.component(COMPONENT, SECRET)
    }

    /// Adds a component.
    pub fn component(mut self, jid: &str, secret: &str) -> Self {
        self.components.push((jid.into(), secret.into()));
        self
    }

    /// Adds a module: lines of YAML that begin with two spaces and its name.
    pub fn module(mut self, lines: &str) -> Self {
        self.modules.push_str(lines);
        self.modules.push('\n');
        self
    }

    /// Leaves out one of the modules that are there otherwise.
    pub fn without_module(mut self, name: &str) -> Self {
        self.left_out.push(format!("  {name}:"));
        self
    }

    /// Adds lines of YAML at the top level.
    pub fn top(mut self, lines: &str) -> Self {
        self.top.push_str(lines);
        self.top.push('\n');
        self
    }

    /// Adds lines of YAML, indented by four, to the listener for components, as `    check_from: false`.
    pub fn service(mut self, lines: &str) -> Self {
        self.service.push_str(lines);
        self.service.push('\n');
        self
    }

    /// Adds a directory of compiled modules.
    pub fn load_path(mut self, path: &Path) -> Self {
        self.load_paths.push(path.to_owned());
        self
    }

    /// Writes the configuration, starts the server, and makes the accounts; returns when it takes connections.
    pub fn start(self) -> Ejabberd {
        let dir = tempfile::Builder::new().prefix("multiend-ejabberd-").tempdir().expect("a temporary directory");
        let mut ejabberd = Ejabberd {
            server: None,
            dir,
            domain: self.domain.clone(),
            accounts: self.accounts(),
            load_paths: self.load_paths.clone(),
            c2s_port: free_port(),
            component_port: free_port(),
        };
        fs::write(ejabberd.config_path(), self.config(&ejabberd)).expect("a file");
        ejabberd.restart();
        ejabberd
    }

    /// Domain, name and password of everybody.
    fn accounts(&self) -> Vec<[String; 3]> {
        let users = self.users.iter().map(|(name, password)| [self.domain.clone(), name.clone(), password.clone()]);
        let strangers = self.strangers.iter().map(|(name, domain)| [domain.clone(), name.clone(), name.clone()]);
        users.chain(strangers).collect()
    }

    fn config(&self, ejabberd: &Ejabberd) -> String {
        let domains: BTreeSet<&str> =
            self.strangers.iter().map(|(_, domain)| domain.as_str()).chain([self.domain.as_str()]).collect();
        let domains = domains.into_iter().collect::<Vec<_>>().join(", ");
        let mut hosts = String::new();
        for (jid, secret) in &self.components {
            let _ = write!(hosts, "\n      {jid}: {{password: {secret:?}}}");
        }
        let service = if self.components.is_empty() {
            String::new()
        } else {
            format!(
                "  -
    port: {}
    ip: 127.0.0.1
    module: ejabberd_service
    access: all
    shaper_rule: none
    hosts:{hosts}
{}",
                ejabberd.component_port, self.service
            )
        };
        format!(
            "hosts: [{domains}]
loglevel: info
log_rotate_size: infinity
auth_method: internal
auth_password_format: plain
disable_sasl_mechanisms: [digest-md5]
{s2s}listen:
  -
    port: {c2s}
    ip: 127.0.0.1
    module: ejabberd_c2s
    access: all
    shaper: none
{service}{s2s_listener}{top}
modules:
{stock}{dialback}{modules}",
            stock = MODULES
                .split_inclusive('\n')
                .filter(|line| !self.left_out.iter().any(|name| line.starts_with(name)))
                .collect::<String>(),
            c2s = ejabberd.c2s_port,
            top = self.top,
            s2s = match &self.federation {
                Some((_, port)) => format!("s2s_use_starttls: false\noutgoing_s2s_port: {port}\n"),
                None => "s2s_access: none\n".into(),
            },
            s2s_listener = match &self.federation {
                Some((port, _)) =>
                    format!("  -\n    port: {port}\n    ip: 127.0.0.1\n    module: ejabberd_s2s_in\n    shaper: none\n"),
                None => String::new(),
            },
            dialback = if self.federation.is_some() { "  mod_s2s_dialback: {}\n" } else { "" },
            modules = self.modules,
        )
    }
}

/// A running ejabberd.
pub struct Ejabberd {
    server: Option<Process>,
    dir: TempDir,
    domain: String,
    accounts: Vec<[String; 3]>,
    load_paths: Vec<PathBuf>,
    c2s_port: u16,
    component_port: u16,
}

impl Ejabberd {
    /// Begins one for [`DOMAIN`] without users and components.
    pub fn builder() -> Builder {
        Builder {
            domain: DOMAIN.into(),
            users: vec![],
            strangers: vec![],
            components: vec![],
            modules: String::new(),
            left_out: vec![],
            top: String::new(),
            service: String::new(),
            load_paths: vec![],
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

    /// Its configuration file, which a test may change before [`Ejabberd::restart`].
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("ejabberd.yml")
    }

    /// Puts lines that a document shows below `listen:` and `modules:`, as they stand but for the port of components, and
    /// starts it again.
    pub fn restart_with(&mut self, listen: &str, modules: &str) {
        let listen = listen.replace("5347", &self.component_port.to_string());
        let config = fs::read_to_string(self.config_path()).expect("the file");
        let config = config.replacen("listen:\n", &format!("listen:\n{listen}"), 1).replacen(
            "modules:\n",
            &format!("modules:\n{modules}"),
            1,
        );
        fs::write(self.config_path(), config).expect("a file");
        self.restart();
    }

    /// Its log.
    pub fn log_path(&self) -> PathBuf {
        self.dir.path().join("ejabberd.log")
    }

    /// The directory of its data.
    pub fn data_path(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    /// Starts it again on the same data and ports, after a stop in good order if it runs.
    pub fn restart(&mut self) {
        self.stop();
        let ready = self.dir.path().join("ready");
        let _ = fs::remove_file(&ready);
        // Debian's ejabberdctl insists on its own user. What it does besides is this; without a node name there is no
        // distribution port and no epmd either.
        let mut program = Program::new("erl", &self.dir.path().join("output.log"))
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env("ERL_LIBS", ejabberd_libraries())
            .env("EJABBERD_CONFIG_PATH", self.config_path())
            .env("EJABBERD_LOG_PATH", self.log_path())
            .env("EJABBERD_PID_PATH", self.dir.path().join("ejabberd.pid"))
            .env("ERL_CRASH_DUMP_BYTES", "0")
            // It shares the machine: no spinning while it waits.
            .args(["+K", "true", "+P", "250000", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none", "-noinput"]);
        for path in &self.load_paths {
            program = program.arg("-pa").arg(path);
        }
        let mut after_start = String::new();
        for [domain, name, password] in &self.accounts {
            let _ = write!(after_start, "ejabberd_auth:try_register(<<{name:?}>>,<<{domain:?}>>,<<{password:?}>>),");
        }
        let _ = write!(after_start, "ok=file:write_file({ready:?},<<>>).");
        let spool = format!("{:?}", self.dir.path().join("spool"));
        let mut server = program.args(["-mnesia", "dir", &spool, "-s", "ejabberd", "-eval", &after_start]).start();
        let (c2s, component) = (self.c2s_port, self.component_port);
        let has_components = fs::read_to_string(self.config_path()).expect("the file").contains("ejabberd_service");
        server.wait_ready(START_DEADLINE, || ready.exists() && is_open(c2s) && (!has_components || is_open(component)));
        self.server = Some(server);
    }

    /// Stops it in good order: the Erlang machine ends its applications on SIGTERM.
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

/// Debian keeps ejabberd and its libraries below /usr/lib/ARCHITECTURE. `EJABBERD_LIBS` names first where another one lies.
fn ejabberd_libraries() -> PathBuf {
    if let Some(first) = std::env::var("EJABBERD_LIBS").ok().as_deref().and_then(|libs| libs.split(' ').next()) {
        return first.into();
    }
    fs::read_dir("/usr/lib")
        .expect("/usr/lib")
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| {
            fs::read_dir(path).is_ok_and(|mut inner| {
                inner.any(|e| e.is_ok_and(|e| e.file_name().to_string_lossy().starts_with("ejabberd-")))
            })
        })
        .expect("ejabberd is installed (scripts/install-needs)")
}
