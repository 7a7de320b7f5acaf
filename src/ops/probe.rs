//! Asks a running multiend how it is, at its own `/readyz`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for all of the answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const LONGEST: u64 = 64 * 1024;

#[derive(Deserialize)]
struct Answer {
    ready: bool,
    unready: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    part: String,
    reason: String,
}

/// `ready`, or why not, or that nobody answers there.
pub async fn service(listen: SocketAddr) -> String {
    match timeout(DEADLINE, ask(listen)).await {
        Ok(Ok(answer)) if answer.ready => "ready".to_owned(),
        Ok(Ok(answer)) => {
            let parts: Vec<String> =
                answer.unready.iter().map(|part| format!("{}: {}", part.part, part.reason)).collect();
            format!("not ready: {}", parts.join("; "))
        }
        Ok(Err(_)) | Err(_) => format!("nobody answers at {listen}"),
    }
}

async fn ask(listen: SocketAddr) -> std::io::Result<Answer> {
    // Who listens everywhere is asked here.
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let mut stream = TcpStream::connect((ip, listen.port())).await?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
    let mut text = String::new();
    stream.take(LONGEST).read_to_string(&mut text).await?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(serde_json::from_str(body)?)
}
