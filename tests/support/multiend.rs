//! The built program, as an operator runs it: a configuration file and a process.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use tempfile::TempDir;

use super::ports::{free_port, loopback};
use super::process::{Process, Program};
use super::{COMPONENT, DOMAIN, SECRET};

const START_DEADLINE: Duration = Duration::from_secs(90);
const STOP_DEADLINE: Duration = Duration::from_secs(60);
const HTTP_TIMEOUT: Duration = Duration::from_secs(20);

/// How a multiend is to be.
pub struct Builder {
    component_port: u16,
    component: String,
    secret: String,
    domains: Vec<String>,
    database: Option<String>,
    extra: String,
    environment: Vec<(String, String)>,
}

impl Builder {
    /// Connects as another component than [`COMPONENT`] with [`SECRET`].
    pub fn component(mut self, jid: &str, secret: &str) -> Self {
        self.component = jid.into();
        self.secret = secret.into();
        self
    }

    /// Serves other domains than [`DOMAIN`].
    pub fn domains(mut self, domains: &[&str]) -> Self {
        self.domains = domains.iter().map(ToString::to_string).collect();
        self
    }

    /// Uses a database by its URL; without this, SQLite in its own data directory.
    pub fn database(mut self, url: &str) -> Self {
        self.database = Some(url.into());
        self
    }

    /// Adds lines to the configuration: whole tables, as `[archive]\npage_max = 10`.
    pub fn extra(mut self, toml: &str) -> Self {
        self.extra.push_str(toml);
        self.extra.push('\n');
        self
    }

    /// Sets an environment variable, as `MULTIEND_LOG__LEVEL`.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.into(), value.into()));
        self
    }

    /// Migrates the database, starts the program, and returns when `/readyz` says so.
    pub fn start(self) -> Multiend {
        let mut multiend = self.prepare();
        multiend.migrate();
        multiend.restart();
        multiend
    }

    /// Writes the configuration without starting anything.
    pub fn prepare(self) -> Multiend {
        let dir = tempfile::Builder::new().prefix("multiend-").tempdir().expect("a temporary directory");
        let http_port = free_port();
        let multiend = Multiend { process: None, dir, http_port, environment: self.environment.clone() };
        fs::create_dir(multiend.data_dir()).expect("a directory");
        fs::write(multiend.config_path(), self.config(&multiend)).expect("a file");
        multiend
    }

    fn config(&self, multiend: &Multiend) -> String {
        let mut text = format!("data_dir = {:?}\n", multiend.data_dir());
        if let Some(url) = &self.database {
            let _ = writeln!(text, "database = {url:?}");
        }
        let _ = write!(
            text,
            "domains = {:?}\n\n[component]\nserver = \"127.0.0.1:{}\"\nname = {:?}\nsecret = {:?}\n\n\
             [http]\nlisten = \"127.0.0.1:{}\"\n\n{}",
            self.domains, self.component_port, self.component, self.secret, multiend.http_port, self.extra
        );
        text
    }
}

/// The program with its configuration, data and log. Dropping it kills the program.
pub struct Multiend {
    process: Option<Process>,
    dir: TempDir,
    http_port: u16,
    environment: Vec<(String, String)>,
}

impl Multiend {
    /// Begins one for the component port of a server.
    pub fn builder(component_port: u16) -> Builder {
        Builder {
            component_port,
            component: COMPONENT.into(),
            secret: SECRET.into(),
            domains: vec![DOMAIN.into()],
            database: None,
            extra: String::new(),
            environment: vec![("MULTIEND_LOG__LEVEL".into(), "debug".into())],
        }
    }

    /// Starts it with a configuration that a document shows, as it stands. What differs on a test machine comes from the
    /// environment: its directory and the ports.
    pub fn documented(config: &str, component_port: u16) -> Self {
        let multiend = Self::builder(component_port).prepare();
        let (data_dir, http_port) = (multiend.data_dir(), multiend.http_port());
        let mut multiend = multiend
            .with_env("MULTIEND_DATA_DIR", data_dir.to_str().expect("UTF-8"))
            .with_env("MULTIEND_COMPONENT__SERVER", &format!("127.0.0.1:{component_port}"))
            .with_env("MULTIEND_HTTP__LISTEN", &format!("127.0.0.1:{http_port}"));
        fs::write(multiend.config_path(), config).expect("a file");
        multiend.restart();
        multiend
    }

    /// Sets an environment variable for the next start.
    pub fn with_env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.into(), value.into()));
        self
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").pid()
    }

    /// The port of its `/metrics`, `/healthz` and `/readyz`.
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// Runs a subcommand to its end, as `["admin", "stats"]`: its status and its standard output and error.
    pub fn command(&self, args: &[&str]) -> (ExitStatus, String, String) {
        let output = std::process::Command::new(binary())
            .args(args)
            .arg("--config")
            .arg(self.config_path())
            .env_clear()
            .envs(self.environment.iter().cloned())
            .output()
            .expect("the program runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status, text(&output.stdout), text(&output.stderr))
    }

    /// `multiend migrate`.
    pub fn migrate(&self) {
        let (status, _, errors) = self.command(&["migrate"]);
        assert!(status.success(), "multiend migrate: {status}\n{errors}");
    }

    /// Starts `multiend serve` (again), after SIGTERM if it runs, and returns when it is ready.
    pub fn restart(&mut self) {
        self.spawn();
        let http_port = self.http_port;
        let process = self.process.as_mut().expect("it has just been started");
        process.wait_ready(START_DEADLINE, || http_get(http_port, "/readyz").is_some_and(|(status, _)| status == 200));
    }

    /// Starts `multiend serve` and does not wait for it.
    pub fn spawn(&mut self) {
        if self.process.is_some() {
            self.terminate();
        }
        let mut program = Program::new(binary(), &self.log_path()).arg("serve").arg("--config").arg(self.config_path());
        // A variable of the person who runs the tests must not override what a test has set.
        program = program.env_clear();
        for (key, value) in &self.environment {
            program = program.env(key, value);
        }
        self.process = Some(program.start());
    }

    /// Kills it.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
    }

    /// Asks it to stop with SIGTERM and waits for its end.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("it runs");
        process.signal("TERM");
        process.wait(STOP_DEADLINE)
    }

    /// Waits until it ends by itself.
    pub fn wait_exit(&mut self) -> ExitStatus {
        self.process.take().expect("it was started").wait(STOP_DEADLINE)
    }

    /// The process, to send signals to or to look at.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it runs")
    }

    /// Its configuration file, which a test may change before [`Multiend::restart`].
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("multiend.toml")
    }

    /// Its data directory: the SQLite database, if it uses that.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What it has logged so far, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// GET on its HTTP port: status and body; `None` if nobody answers.
    pub fn http(&self, path: &str) -> Option<(u16, String)> {
        http_get(self.http_port, path)
    }

    /// The value of a metric, named with its labels as they are printed: `multiend_x_total{kind="fresh"}`.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.http("/metrics").expect("it answers");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no metric {name} in\n{text}")).parse().expect("a number")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("multiend.log")
    }
}

/// The path of the built program. An example is not told of it by Cargo and finds it one directory up.
pub fn binary() -> PathBuf {
    match option_env!("CARGO_BIN_EXE_multiend") {
        Some(path) => PathBuf::from(path),
        None => {
            let example = std::env::current_exe().expect("the example's path");
            example.ancestors().nth(2).expect("examples lie in a directory of their own").join("multiend")
        }
    }
}

/// A plain GET on a loopback port: status and body; `None` if nobody answers.
pub fn http_get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(loopback(port)).ok()?;
    stream.set_read_timeout(Some(HTTP_TIMEOUT)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
