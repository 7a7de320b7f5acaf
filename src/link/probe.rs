//! Looks whether the server would take us, without taking anybody's place: opens a stream and goes no further than the
//! server's greeting. The secret is not tried: a server that lets one component in only once would refuse, and another
//! would begin to send us stanzas that nobody answers.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::config::LinkConfig;
use super::connect::{dial, write};
use super::framer::{Event, Framer};
use super::handshake::stream_header;
use super::state::DownReason;
use super::stream_error::StreamError;

/// How long after its greeting a server may take to say that it does not know us.
const SECOND_THOUGHTS: Duration = Duration::from_millis(500);

/// Whether the server answers at its component port and knows a component of our name, as far as it says so before it was
/// given the secret.
pub async fn probe(config: &LinkConfig) -> Result<(), DownReason> {
    let mut socket = dial(config).await?;
    write(&mut socket, &stream_header(&config.component)).await?;
    let mut framer = Framer::new(config.limits);
    let mut greeted = false;
    let mut chunk = vec![0_u8; 4096];
    loop {
        match framer.next_event()? {
            Some(Event::Open(_)) => greeted = true,
            Some(Event::StreamElement(element)) => {
                if let Some(error) = StreamError::read(&element.bytes) {
                    return Err(DownReason::of_stream_error(error, false));
                }
            }
            Some(Event::Close) => return Err(DownReason::ClosedByServer),
            Some(Event::Element(_) | Event::Refused(_)) => {}
            None => {
                let patience = if greeted { SECOND_THOUGHTS } else { config.connect_timeout };
                match timeout(patience, socket.read(&mut chunk)).await {
                    Err(_) if greeted => break,
                    Err(_) => return Err(DownReason::HandshakeTimeout(config.connect_timeout)),
                    Ok(Ok(0)) => return Err(DownReason::ClosedByServer),
                    Ok(Ok(count)) => framer.feed(chunk.get(..count).unwrap_or_default()),
                    Ok(Err(error)) => return Err(DownReason::of_io(&error)),
                }
            }
        }
    }
    // It has seen enough as well.
    write(&mut socket, "</stream:stream>").await
}
