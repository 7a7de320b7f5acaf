//! From nothing to an accepted stream: TCP, stream header, handshake (XEP-0114 §3).

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::config::LinkConfig;
use super::framer::{Event, Framer};
use super::handshake::{handshake, is_accepted, stream_header};
use super::state::DownReason;
use super::stream_error::StreamError;

/// An accepted stream. The framer may hold stanzas already.
pub(super) struct Stream {
    pub socket: TcpStream,
    pub framer: Framer,
}

/// Makes one attempt, bounded in time.
pub(super) async fn connect(config: &LinkConfig) -> Result<Stream, DownReason> {
    let socket = dial(config).await?;
    timeout(config.connect_timeout, negotiate(config, socket))
        .await
        .unwrap_or(Err(DownReason::HandshakeTimeout(config.connect_timeout)))
}

/// Makes the TCP connection.
pub(super) async fn dial(config: &LinkConfig) -> Result<TcpStream, DownReason> {
    let socket = match timeout(config.connect_timeout, TcpStream::connect(&config.server)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return Err(DownReason::Unreachable(format!("{}: {error}", config.server))),
        Err(_) => {
            let within = config.connect_timeout;
            return Err(DownReason::Unreachable(format!("{}: no answer within {within:?}", config.server)));
        }
    };
    // Writes are collected here already; the kernel need not wait for more.
    socket.set_nodelay(true).map_err(|error| DownReason::of_io(&error))?;
    Ok(socket)
}

async fn negotiate(config: &LinkConfig, mut socket: TcpStream) -> Result<Stream, DownReason> {
    let mut framer = Framer::new(config.limits);
    write(&mut socket, &stream_header(&config.component)).await?;
    let mut chunk = vec![0_u8; 4096];
    loop {
        match framer.next_event()? {
            Some(Event::Open(header)) => {
                let id = header.id().unwrap_or_default();
                write(&mut socket, &handshake(id, &config.secret)).await?;
            }
            Some(Event::Element(element)) if is_accepted(&element.bytes) => return Ok(Stream { socket, framer }),
            Some(Event::StreamElement(element)) => {
                if let Some(error) = StreamError::read(&element.bytes) {
                    return Err(DownReason::of_stream_error(error, false));
                }
            }
            Some(Event::Close) => return Err(DownReason::ClosedByServer),
            // Nothing else has a meaning before the server has accepted us.
            Some(Event::Element(_) | Event::Refused(_)) => {}
            None => match socket.read(&mut chunk).await {
                Ok(0) => return Err(DownReason::ClosedByServer),
                Ok(count) => framer.feed(chunk.get(..count).unwrap_or_default()),
                Err(error) => return Err(DownReason::of_io(&error)),
            },
        }
    }
}

pub(super) async fn write(socket: &mut TcpStream, text: &str) -> Result<(), DownReason> {
    socket.write_all(text.as_bytes()).await.map_err(|error| DownReason::of_io(&error))
}
