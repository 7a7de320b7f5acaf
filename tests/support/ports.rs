//! Loopback ports for servers.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{LazyLock, Mutex};

/// Below the range from which Linux takes the ports of outgoing connections (32768 and up): a port stays free between the
/// stop and the restart of its server.
const RANGE: std::ops::Range<u16> = 10_240..32_000;

/// A port on 127.0.0.1 that nobody listens on, never the same twice in one test binary.
pub fn free_port() -> u16 {
    static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    loop {
        let mut random = [0; 2];
        getrandom::fill(&mut random).expect("randomness");
        let port = RANGE.start + u16::from_le_bytes(random) % (RANGE.end - RANGE.start);
        if TcpListener::bind(loopback(port)).is_ok() && GIVEN.lock().expect("no test panics here").insert(port) {
            return port;
        }
    }
}

/// `127.0.0.1:port`.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Whether somebody accepts connections on the port.
pub fn is_open(port: u16) -> bool {
    std::net::TcpStream::connect(loopback(port)).is_ok()
}
