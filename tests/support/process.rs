//! Child processes that never outlive the test binary, and polling with a deadline.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How often [`poll`] looks.
const POLL_INTERVAL: Duration = Duration::from_millis(15);

/// Calls `probe` until it gives something; panics with `what` after `deadline`.
pub fn poll<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain: {what}");
        thread::sleep(POLL_INTERVAL);
    }
}

/// The same for an asynchronous probe.
pub async fn poll_async<T>(what: &str, deadline: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain: {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Whether the tests run as root. Files under /proc belong to the effective user of their process.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// From now on programs are started so that they live on when this one ends, for a demonstration that leaves its servers
/// running. They are in sessions of their own, which no closed terminal ends.
pub fn outlive_this_program() {
    OUTLIVE.store(true, Ordering::Relaxed);
}

static OUTLIVE: AtomicBool = AtomicBool::new(false);

/// A program to start with its own log file.
pub struct Program {
    command: Command,
    name: String,
    log: PathBuf,
}

impl Program {
    /// `program`, as the same user. `log` takes its standard output and error, after what it holds already.
    pub fn new(program: impl AsRef<OsStr>, log: &Path) -> Self {
        Self::build(program.as_ref(), log, "KILL", None)
    }

    /// `program` as another user if the tests run as root. It gets `death_signal` when the test binary ends.
    pub fn new_as(program: impl AsRef<OsStr>, log: &Path, death_signal: &str, user: &str) -> Self {
        Self::build(program.as_ref(), log, death_signal, is_root().then_some(user))
    }

    fn build(program: &OsStr, log: &Path, death_signal: &str, user: Option<&str>) -> Self {
        let outlive = OUTLIVE.load(Ordering::Relaxed);
        let mut command = Command::new(if outlive { "setsid" } else { "setpriv" });
        if outlive {
            command.arg("setpriv");
        }
        command.arg("--pdeathsig").arg(if outlive { "clear" } else { death_signal });
        if let Some(user) = user {
            command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
        }
        command.arg("--").arg(program);
        let name = Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned();
        Self { command, name, log: log.to_owned() }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Removes all environment variables.
    pub fn env_clear(mut self) -> Self {
        self.command.env_clear();
        self
    }

    /// Sets the working directory.
    pub fn current_dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Starts it.
    pub fn start(mut self) -> Process {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("the log can be opened");
        let errors = log.try_clone().expect("a file can be cloned");
        self.command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = launch(self.command).unwrap_or_else(|e| panic!("cannot start {}: {e}", self.name));
        Process { child, name: self.name, log: self.log }
    }

    /// Runs it to its end; panics with its log if it fails.
    pub fn run(self) {
        let mut process = self.start();
        let status = process.wait(Duration::from_secs(60));
        assert!(status.success(), "{} failed: {status}\n{}", process.name, process.log_text());
    }
}

/// A running program. Dropping it kills it.
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Sends a signal by name, as `TERM`.
    pub fn signal(&mut self, name: &str) {
        if self.is_running() {
            send_signal(self.pid(), name);
        }
    }

    /// Waits for its end.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let child = &mut self.child;
        poll(&format!("the end of {}", self.name), deadline, || child.try_wait().expect("a child can be waited for"))
    }

    /// SIGKILL, then waits for its end.
    pub fn kill9(&mut self) {
        self.child.kill().expect("an own child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Polls `is_ready`; panics with the log if the program ends first or the deadline passes.
    pub fn wait_ready(&mut self, deadline: Duration, mut is_ready: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_ready() {
            let running = self.is_running();
            if !running || start.elapsed() > deadline {
                let how = if running { "is not ready" } else { "ended" };
                panic!("{} {how} after {:?}; its log:\n{}", self.name, start.elapsed(), self.log_text());
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// What it has written so far.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by name through the shell's `kill`, which every machine has.
pub fn send_signal(pid: u32, name: &str) {
    let _ = Command::new("sh").arg("-c").arg("kill -\"$0\" \"$1\" 2>/dev/null").arg(name).arg(pid.to_string()).status();
}

/// Removes a directory when the test binary has ended, however it ends: for what statics hold, which are never dropped.
/// `pid` is waited for first.
pub fn remove_at_exit(dir: &Path, pid: u32) {
    // The shell waits for its input to end, which happens when this process, the only writer, is gone.
    let script = "trap '' INT TERM HUP; cat >/dev/null; n=0
        while [ -e \"/proc/$1/exe\" ] && [ $n -lt 100 ]; do n=$((n+1)); sleep 0.05; done; rm -rf -- \"$0\"";
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(dir).arg(pid.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    std::mem::forget(launch(command).expect("sh starts"));
}

/// Spawns from one thread that lives as long as the test binary. The parent-death signal comes when the *thread* that
/// spawned the child ends, and each test has its own thread: without this a shared server would die with its first test.
fn launch(command: Command) -> io::Result<Child> {
    type Order = (Command, Sender<io::Result<Child>>);
    static LAUNCHER: OnceLock<Sender<Order>> = OnceLock::new();
    let launcher = LAUNCHER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, answer) = channel();
    launcher.send((command, reply)).expect("the launcher lives");
    answer.recv().expect("the launcher answers")
}
