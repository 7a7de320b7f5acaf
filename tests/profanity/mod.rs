//! A device on Profanity, a client for terminals with legacy OMEMO: it runs in a tmux of its own and is typed to. What it
//! has read is in the chat logs that it keeps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::DOMAIN;
use crate::support::process::{Process, Program, poll};

/// How long it may take for anything.
const DEADLINE: Duration = Duration::from_secs(90);

/// How often it is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// Its settings: what it reads it writes into a log, and it trusts every device.
const PREFERENCES: &str = "[logging]\nchlog=true\n[omemo]\nlog=on\npolicy=automatic\ntrustmode=blind\n\
                           [ui]\nsplash=false\nbeep=false\n[notifications]\nmessage=off\n";

/// One device of one user. Its directory outlives its sessions.
pub struct Profanity {
    user: String,
    directory: TempDir,
    tmux: Option<Process>,
}

impl Profanity {
    /// A device of `user`, whose password is its name. It is not online yet.
    pub fn new(c2s_port: u16, user: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("multiend-profanity-").tempdir().expect("a directory");
        for kind in ["config", "data"] {
            fs::create_dir_all(directory.path().join(kind).join("profanity")).expect("a directory");
        }
        let jid = format!("{user}@{DOMAIN}");
        let account = format!(
            "[{jid}]\nenabled=true\njid={jid}\nserver=127.0.0.1\nport={c2s_port}\nresource=profanity\npassword={user}\n\
             tls.policy=disable\n"
        );
        let preferences = format!("{PREFERENCES}[connection]\naccount={jid}\nautoping=0\nmam=true\n");
        fs::write(directory.path().join("data/profanity/accounts"), account).expect("a file");
        fs::write(directory.path().join("config/profanity/profrc"), preferences).expect("a file");
        Self { user: user.to_owned(), directory, tmux: None }
    }

    /// Starts it; returns when it is online.
    pub fn comes_online(&mut self) {
        let home = self.directory.path();
        // A server of its own, in the foreground: it ends with the test.
        let log = home.join("tmux.log");
        let mut tmux = Program::new("tmux", &log)
            .current_dir(home)
            .arg("-S")
            .arg(self.socket())
            .args(["-f", "/dev/null", "-D"])
            .start();
        let socket = self.socket();
        tmux.wait_ready(DEADLINE, || socket.exists());
        self.tmux = Some(tmux);
        let variable = |name: &str, path: &Path| format!("{name}={}", path.display());
        self.command(&[
            "new-session",
            "-d",
            "-x",
            "200",
            "-y",
            "150", // What a server can do is a long list.
            "env",
            &variable("HOME", home),
            &variable("XDG_CONFIG_HOME", &home.join("config")),
            &variable("XDG_DATA_HOME", &home.join("data")),
            "TERM=screen",
            "LANG=C.UTF-8",
            "profanity",
        ]);
        self.sees("logged in successfully");
        // It asks the server what it can do, and of no archive before it has heard. Asked once more, it hears it later.
        self.types("/disco info");
        self.sees("urn:xmpp:ping");
    }

    /// Quits, as a user does.
    pub fn goes_away(&mut self) {
        self.types("/quit");
        // tmux ends with its last session unless it is in the foreground; then only the session ends.
        poll("the end of Profanity", DEADLINE, || self.screen().is_none().then_some(()));
        self.tmux = None;
        let _ = fs::remove_file(self.socket());
    }

    /// Types a line.
    pub fn types(&self, line: &str) {
        self.command(&["send-keys", "-l", line]);
        self.command(&["send-keys", "Enter"]);
    }

    /// Makes its keys and publishes them; returns when its list is out.
    pub fn makes_keys(&self) {
        self.types("/omemo gen");
        self.sees("materials generated");
    }

    /// Begins to speak OMEMO with somebody; returns when it has a session with each of these devices.
    pub fn meets(&self, other: &str, devices: &[u64]) {
        self.types(&format!("/msg {other}@{DOMAIN}"));
        self.types("/omemo start");
        let sessions = self.data("omemo").join("sessions.txt");
        poll("sessions with all devices", DEADLINE, || {
            let text = fs::read_to_string(&sessions).unwrap_or_default();
            devices.iter().all(|device| text.contains(&format!("{device}="))).then_some(())
        });
    }

    /// Says something to whom it has met last.
    pub fn says(&self, text: &str) {
        self.types(text);
    }

    /// Returns when it has read a text in the conversation with somebody. How often, then?
    pub fn has_read(&self, other: &str, text: &str) -> usize {
        let start = Instant::now();
        loop {
            let count = self.conversation(other).lines().filter(|line| line.ends_with(text)).count();
            if count > 0 {
                return count;
            }
            let screen = || self.screen().unwrap_or_default();
            assert!(start.elapsed() < DEADLINE, "{} does not read {text:?} but\n{}", self.user, screen());
            std::thread::sleep(PAUSE);
        }
    }

    /// Its log of the conversation with somebody.
    fn conversation(&self, other: &str) -> String {
        let directory = self.data("chatlogs").join(format!("{other}_at_{DOMAIN}"));
        let days = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        days.map(|day| fs::read_to_string(day.path()).unwrap_or_default()).collect()
    }

    /// Returns when something stands on its screen.
    pub fn sees(&self, text: &str) {
        let mut last = String::new();
        let start = Instant::now();
        while !last.contains(text) {
            assert!(start.elapsed() < DEADLINE, "{} does not see {text:?} but\n{last}", self.user);
            last = self.screen().unwrap_or_default();
            std::thread::sleep(PAUSE);
        }
    }

    fn screen(&self) -> Option<String> {
        let output = self.tmux(&["capture-pane", "-p"]).output().expect("tmux runs");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self, args: &[&str]) {
        let output = self.tmux(args).output().expect("tmux runs");
        assert!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn tmux(&self, args: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        // Profanity leaves files where it is started.
        command.current_dir(self.directory.path()).arg("-S").arg(self.socket()).args(args);
        command
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    fn data(&self, kind: &str) -> PathBuf {
        self.directory.path().join("data/profanity").join(kind).join(format!("{}_at_{DOMAIN}", self.user))
    }
}

impl Drop for Profanity {
    fn drop(&mut self) {
        if self.tmux.is_some() {
            let _ = self.tmux(&["kill-server"]).output();
        }
    }
}
