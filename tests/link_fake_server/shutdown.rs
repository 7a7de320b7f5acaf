//! How a link ends.

use std::time::Duration;

use bytes::Bytes;
use multiend::link::framer::Event;
use multiend::link::{DownReason, LinkHandle, StanzaHead};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::server::{COMPONENT, DEADLINE, Server, Setup, config, soon};

#[tokio::test]
async fn a_shutdown_finishes_what_was_accepted() {
    let server = Server::new().await;
    let mut link = Setup::to(&server);
    let mut peer = server.accept().await;
    peer.write("<iq type='get' id='1' from='a@b'/><iq type='get' id='2' from='a@b'/>").await;
    let first = link.received().await;
    link.shutdown.cancel();
    // What comes from now on is refused, so that its sender knows.
    let refused = loop {
        peer.write(&format!("<iq type='get' id='late' from='a@b' to='{COMPONENT}'/>")).await;
        if let Ok(event) = timeout(Duration::from_millis(50), peer.event()).await {
            break event;
        }
    };
    let Event::Element(refused) = refused else { panic!("{refused:?}") };
    let refused = String::from_utf8(refused.bytes.to_vec()).unwrap();
    assert!(refused.contains("<recipient-unavailable") && refused.contains("type='wait'"), "{refused}");
    // What was accepted before is still there to be worked on, and its answers are sent.
    let mut accepted = vec![first];
    while let Some(stanza) = soon("the end of what was accepted", link.inbound.recv()).await {
        accepted.push(String::from_utf8(stanza.bytes.to_vec()).unwrap());
    }
    assert!(accepted.len() >= 2);
    link.handle.outbox.send(Bytes::from_static(b"<iq type='result' id='1' to='a@b'/>")).await.unwrap();
    link.handle.outbox.send(Bytes::from_static(b"<iq type='result' id='2' to='a@b'/>")).await.unwrap();
    let LinkHandle { outbox, finished, .. } = link.handle;
    drop(outbox);
    let mut answers = Vec::new();
    loop {
        match peer.event().await {
            Event::Element(element) => answers.push(StanzaHead::read(&element.bytes)),
            Event::Close => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(!peer.ended, "the stream is closed before the connection");
    answers.retain(|head| head.stanza_type.as_deref() == Some("result"));
    assert_eq!(answers.iter().map(|head| head.id.as_deref().unwrap()).collect::<Vec<_>>(), ["1", "2"]);
    peer.write("</stream:stream>").await;
    drop(peer);
    assert_eq!(soon("the end", finished).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever_and_not_for_idle_outboxes() {
    for say_so in [false, true] {
        let server = Server::new().await;
        let mut settings = config(server.address());
        settings.drain_timeout = if say_so { DEADLINE * 2 } else { Duration::from_millis(100) };
        let mut link = Setup::start(settings, 10);
        let mut peer = server.accept().await;
        link.up().await;
        let idle = link.handle.outbox.clone();
        link.handle.outbox.send(Bytes::from_static(b"<message/>")).await.unwrap();
        link.shutdown.cancel();
        if say_so {
            link.handle.drained.cancel();
        }
        assert_eq!(peer.stanza().await, "<message/>");
        assert_eq!(peer.event().await, Event::Close);
        drop(peer);
        assert_eq!(soon("the end", &mut link.handle.finished).await.unwrap(), Ok(()));
        assert!(idle.send(Bytes::from_static(b"<message/>")).await.is_err());
        assert_eq!(link.down().await, DownReason::ShutDown);
    }
}

#[tokio::test]
async fn a_shutdown_without_a_connection_makes_one_if_something_is_left_to_send() {
    let server = Server::new().await;
    let address = server.address();
    drop(server);
    let mut link = Setup::start(config(address.clone()), 10);
    link.handle.outbox.send(Bytes::from_static(b"<message/>")).await.unwrap();
    link.down().await;
    link.shutdown.cancel();
    let LinkHandle { outbox, finished, .. } = link.handle;
    drop(outbox);
    let server = Server(TcpListener::bind(address).await.unwrap());
    let mut peer = server.accept().await;
    assert_eq!(peer.stanza().await, "<message/>");
    assert_eq!(peer.event().await, Event::Close);
    drop(peer);
    assert_eq!(soon("the end", finished).await.unwrap(), Ok(()));
}
