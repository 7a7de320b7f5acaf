//! A private PostgreSQL.

use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;

use super::ports::free_port;
use super::process::{Process, Program, is_root, poll, poll_async, remove_at_exit, send_signal};

/// The user that the server runs as when the tests run as root, which PostgreSQL refuses.
const SERVER_USER: &str = "postgres";
const START_DEADLINE: Duration = Duration::from_secs(90);

/// How much a server cares about a crash of the machine. A crash of the server itself loses nothing in either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// As in production.
    On,
    /// Faster.
    Off,
}

/// A private server, on a unix socket and a loopback port; both without password.
pub struct Postgres {
    server: Option<Process>,
    dir: TempDir,
    port: u16,
    fsync: Fsync,
    settings: &'static [&'static str],
}

impl Postgres {
    /// The instance that the tests of this binary share, with `fsync` off. Use [`Postgres::fresh_database`] on it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| {
            let postgres = Self::start(Fsync::Off);
            let pid = postgres.server.as_ref().expect("it has just been started").pid();
            remove_at_exit(postgres.dir.path(), pid);
            postgres
        })
    }

    /// An instance of its own, for a test that stops or kills it.
    pub fn start(fsync: Fsync) -> Self {
        Self::start_with(fsync, &[])
    }

    /// The same with settings, as `shared_buffers=1GB`.
    pub fn start_with(fsync: Fsync, settings: &'static [&'static str]) -> Self {
        let dir = tempfile::Builder::new().prefix("multiend-pg-").tempdir().expect("a temporary directory");
        if is_root() {
            let (uid, gid) = user_ids(SERVER_USER);
            chown(dir.path(), Some(uid), Some(gid)).expect("root can give a directory away");
        }
        let mut postgres = Self { server: None, dir, port: free_port(), fsync, settings };
        postgres
            .program("initdb")
            .arg("-D")
            .arg(postgres.dir.path().join("data"))
            .args(["-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"])
            .run();
        postgres.restart();
        postgres
    }

    /// Creates an empty database and returns its URL, over the unix socket.
    pub async fn fresh_database(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut admin = PgConnection::connect(&self.url("postgres")).await.expect("the server takes connections");
        sqlx::query(AssertSqlSafe(format!("create database {name}")))
            .execute(&mut admin)
            .await
            .expect("create database");
        admin.close().await.expect("close");
        self.url(&name)
    }

    /// The URL of a database over the unix socket.
    pub fn url(&self, database: &str) -> String {
        let socket = self.dir.path().to_str().expect("a UTF-8 path").replace('/', "%2F");
        format!("postgres://postgres@localhost:{}/{database}?host={socket}", self.port)
    }

    /// The URL of a database over the loopback port.
    pub fn tcp_url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The process id of the server, while it runs.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("it runs").pid()
    }

    /// The loopback port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server and all its backends at once, as a crash would, and waits until all are gone: a new server
    /// refuses to start while a backend of the old one still holds the shared memory.
    pub fn kill9(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let pid = server.pid();
        // Stopped first, so that it starts no backend between the look at its children and its end.
        server.signal("STOP");
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let backends: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().expect("a process id")).collect();
        server.kill9();
        for &backend in &backends {
            send_signal(backend, "KILL");
        }
        for backend in backends {
            poll(&format!("the end of backend {backend}"), START_DEADLINE, || has_ended(backend).then_some(()));
        }
    }

    /// Stops it in good order, if it runs, and breaks all connections.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.signal("INT");
            server.wait(START_DEADLINE);
        }
    }

    /// Starts it again on the same data and port, after a stop in good order if it runs.
    pub fn restart(&mut self) {
        self.stop();
        let onoff = if self.fsync == Fsync::On { "on" } else { "off" };
        let mut server = self
            .program("postgres")
            .arg("-D")
            .arg(self.dir.path().join("data"))
            .arg("-k")
            .arg(self.dir.path())
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"])
            .args(["-c", &format!("fsync={onoff}"), "-c", &format!("full_page_writes={onoff}")])
            .args(self.settings.iter().flat_map(|setting| ["-c", setting]))
            .start();
        // The line "ready" appears in this file when, and only when, connections are taken (pg_ctl looks there too).
        let pid_file = self.dir.path().join("data/postmaster.pid");
        let pid = server.pid().to_string();
        server.wait_ready(START_DEADLINE, || {
            let text = std::fs::read_to_string(&pid_file).unwrap_or_default();
            text.lines().next() == Some(&pid) && text.lines().nth(7).map(str::trim) == Some("ready")
        });
        self.server = Some(server);
    }

    /// Waits until the server takes connections to a database.
    pub async fn wait_connectable(&self, database: &str) {
        let url = self.url(database);
        poll_async("a connection to PostgreSQL", START_DEADLINE, async || {
            PgConnection::connect(&url).await.ok().map(drop)
        })
        .await;
    }

    fn program(&self, name: &str) -> Program {
        // SIGQUIT is "immediate shutdown": unlike SIGKILL it leaves no shared memory behind.
        let path = newest_binaries().join(name);
        Program::new_as(path, &self.dir.path().join("log"), "QUIT", SERVER_USER).current_dir(self.dir.path())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.signal("QUIT");
            server.wait(START_DEADLINE);
        }
    }
}

/// Where Debian keeps the server programs of the newest PostgreSQL installed.
pub fn newest_binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed (scripts/install-needs)");
    let newest = versions
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin/initdb")).exists())
        .max()
        .expect("PostgreSQL is installed (scripts/install-needs)");
    PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"))
}

/// Whether a process holds nothing any more: it is gone, or only its parent has not asked for its status yet.
fn has_ended(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status")).map_or(true, |status| {
        status.lines().any(|line| line.starts_with("State:\tZ") || line.starts_with("State:\tX"))
    })
}

fn user_ids(user: &str) -> (u32, u32) {
    let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let fields: Vec<&str> = passwd
        .lines()
        .map(|line| line.split(':').collect())
        .find(|f: &Vec<&str>| f[0] == user)
        .expect("the user exists");
    (fields[2].parse().expect("a user id"), fields[3].parse().expect("a group id"))
}
