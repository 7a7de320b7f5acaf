//! What a stanza may cost: large ones, ones in pieces, and more than anybody takes.

use std::time::Duration;

use bytes::Bytes;
use multiend::link::{Keepalive, LinkState, StanzaHead};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::server::{HEADER, Peer, Server, Setup, config, soon};

#[tokio::test]
async fn a_ten_megabyte_stanza_costs_one_error_reply() {
    let server = Server::new().await;
    let mut link = Setup::to(&server);
    let mut peer = server.accept().await;
    peer.write("<message from='mallory@example.org/x' to='alice\\40example.org@multiend.example.org' id='big'>").await;
    for _ in 0..160 {
        peer.write(&"<a/>".repeat(16_384)).await;
    }
    peer.write("</message><message id='next'/>").await;
    let reply = peer.stanza().await;
    let head = StanzaHead::read(reply.as_bytes());
    assert_eq!(head.to.as_deref(), Some("mallory@example.org/x"));
    assert_eq!(head.from.as_deref(), Some("alice\\40example.org@multiend.example.org"));
    assert_eq!((head.id.as_deref(), head.stanza_type.as_deref()), (Some("big"), Some("error")));
    assert!(reply.contains("<policy-violation"), "{reply}");
    assert_eq!(link.received().await, "<message id='next'/>");
    assert_eq!(link.metric("multiend_link_refused_total", "elements"), 1.0);
    assert_eq!(link.metric("multiend_link_refused_total", "depth"), 0.0);
    assert_eq!(link.metric("multiend_link_stanzas_in_total", "message"), 1.0);
    assert_eq!(link.metric("multiend_link_stanzas_out_total", "message"), 1.0);
    assert!(link.metric("multiend_link_bytes_in_total", "") > 10_000_000.0);
    assert_eq!(link.metric("multiend_link_up", ""), 1.0);
    assert_eq!(link.warnings(), Vec::<String>::new());
}

#[tokio::test]
async fn bytes_may_come_one_by_one() {
    let server = Server::new().await;
    let mut link = Setup::to(&server);
    let mut peer = server.accept_unproven().await;
    let one_by_one = async |peer: &mut Peer, text: &str| {
        for byte in text.as_bytes() {
            peer.socket.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    one_by_one(&mut peer, HEADER).await;
    peer.stanza().await;
    let stanzas =
        ["<message to='ü>'><body>&lt;€<![CDATA[<x>]]></body></message>", "<iq type='get' id='1'/>", "<presence/>"];
    one_by_one(&mut peer, &format!("<handshake></handshake>\n {} {}{}", stanzas[0], stanzas[1], stanzas[2])).await;
    for stanza in stanzas {
        assert_eq!(link.received().await, stanza);
    }
}

#[tokio::test]
async fn a_full_channel_stops_the_reading_but_does_not_cost_the_link() {
    let server = Server::new().await;
    let mut settings = config(server.address());
    settings.keepalive = Keepalive { interval: Duration::from_millis(50), timeout: Duration::from_millis(50) };
    let mut link = Setup::start(settings, 2);
    let Peer { mut socket, .. } = server.accept().await;
    link.up().await;
    // Writes until the link reads no more, which shows as a write that does not end; far longer than the keepalive.
    let filler = "y".repeat(10_000);
    let mut text = String::new();
    let mut count = 0;
    let mut at = 0;
    loop {
        if at == text.len() {
            text = format!("<message id='{count}'><body>{filler}</body></message>");
            (count, at) = (count + 1, 0);
        }
        match timeout(Duration::from_secs(1), socket.write(&text.as_bytes()[at..])).await {
            Ok(written) => at += written.unwrap(),
            Err(_) => break,
        }
        assert!(count < 10_000, "100 MB were taken in without anybody reading");
    }
    assert_eq!(*link.handle.state.borrow(), LinkState::Up, "{:?}", link.warnings());
    // Sending still works.
    link.handle.outbox.send(Bytes::from_static(b"<message id='out'/>")).await.unwrap();
    let mut out = [0; 4096];
    let length = soon("what is sent", socket.read(&mut out)).await.unwrap();
    assert!(std::str::from_utf8(&out[..length]).unwrap().contains("<message id='out'/>"));
    // And once somebody reads, everything is there.
    let rest = tokio::spawn(async move {
        socket.write_all(&text.as_bytes()[at..]).await.unwrap();
        socket
    });
    for n in 0..count {
        assert!(link.received().await.starts_with(&format!("<message id='{n}'>")));
    }
    assert_eq!(link.warnings(), Vec::<String>::new());
    rest.await.unwrap();
}
