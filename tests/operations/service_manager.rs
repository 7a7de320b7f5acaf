//! What a service manager is told (sd_notify(3)), by a socket that stands for systemd's.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::support::multiend::Multiend;
use crate::support::ports::free_port;

/// The manager's end: one line for each thing that it was told, in order.
struct Manager {
    socket: UnixDatagram,
    told: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Manager {
    fn new() -> (Self, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        (Self { socket, told: Vec::new(), _dir: dir }, path.display().to_string())
    }

    /// Waits until it is told this, after what it has been told so far.
    fn wait_for(&mut self, line: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let known = self.told.len();
        while !self.told[known..].iter().any(|told| told.starts_with(line)) {
            assert!(Instant::now() < deadline, "was never told {line:?}, but {:?}", self.told);
            let mut buffer = [0; 4096];
            if let Ok(length) = self.socket.recv(&mut buffer) {
                let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
                self.told.extend(text.lines().map(str::to_owned));
            }
        }
    }
}

#[test]
fn a_service_manager_is_told_ready_status_alive_reloading_and_stopping() {
    let (mut manager, socket) = Manager::new();
    // Nobody listens on the component port: the program is ready all the same, and says what it waits for.
    let mut multiend =
        Multiend::builder(free_port()).env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "200000").prepare();
    multiend.spawn();
    manager.wait_for("READY=1");
    manager.wait_for("STATUS=waiting for the server: ");
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    multiend.process().signal("HUP");
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    assert!(manager.told.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{:?}", manager.told);
    multiend.process().signal("TERM");
    manager.wait_for("STOPPING=1");
    assert!(multiend.wait_exit().success(), "{}", multiend.log());
}

#[test]
fn without_a_watchdog_nobody_is_told_that_the_program_lives() {
    let (mut manager, socket) = Manager::new();
    let mut multiend = Multiend::builder(free_port()).env("NOTIFY_SOCKET", &socket).prepare();
    multiend.spawn();
    manager.wait_for("READY=1");
    multiend.process().signal("TERM");
    manager.wait_for("STOPPING=1");
    assert!(!manager.told.iter().any(|line| line.contains("WATCHDOG")), "{:?}", manager.told);
    assert!(multiend.wait_exit().success(), "{}", multiend.log());
}
