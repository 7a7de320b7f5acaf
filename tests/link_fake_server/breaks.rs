//! Servers that refuse, fall silent or go away, and what the link makes of each.

use std::time::Duration;

use bytes::Bytes;
use multiend::link::framer::Event;
use multiend::link::{DownReason, Keepalive, LinkError, LinkState, StanzaHead};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::server::{COMPONENT, HEADER, Server, Setup, config, soon};

#[tokio::test]
async fn a_wrong_secret_ends_the_link_and_names_the_setting() {
    let server = Server::new().await;
    let mut link = Setup::to(&server);
    let mut peer = server.accept_unproven().await;
    peer.write(HEADER).await;
    peer.stanza().await;
    peer.stream_error("not-authorized").await;
    let error = soon("the end", &mut link.handle.finished).await.unwrap().unwrap_err();
    assert!(matches!(error, LinkError::WrongSecret { .. }));
    assert!(error.to_string().contains("`component.secret`") && error.to_string().contains(COMPONENT), "{error}");
    assert_eq!(link.down().await, DownReason::WrongSecret);
    // The program says it once, when it ends with this error.
    assert!(link.warnings().is_empty(), "{:?}", link.warnings());
    assert!(link.handle.outbox.send(Bytes::from_static(b"<iq/>")).await.is_err());
}

#[tokio::test]
async fn stream_errors_are_told_apart_and_tried_again() {
    let server = Server::new().await;
    let mut link = Setup::to(&server);
    let stream_error = |condition: &str| {
        DownReason::StreamError(multiend::link::StreamError { condition: condition.to_owned(), text: None })
    };
    let in_handshake = [
        ("conflict", DownReason::AlreadyConnected, "connected already"),
        ("host-unknown", DownReason::HostUnknown, "`component.name`"),
        ("internal-server-error", stream_error("internal-server-error"), "internal-server-error"),
    ];
    let when_up = [
        ("conflict", DownReason::Replaced, "taken our place"),
        ("system-shutdown", DownReason::SystemShutdown, "the server is shutting down"),
        ("not-authorized", stream_error("not-authorized"), "not-authorized"),
    ];
    for (round, (condition, reason, line)) in in_handshake.into_iter().chain(when_up).enumerate() {
        let mut peer = match round {
            0..3 => server.accept_unproven().await,
            _ => server.accept().await,
        };
        if round < 3 {
            peer.write(HEADER).await;
        } else {
            link.up().await;
        }
        peer.stream_error(condition).await;
        assert_eq!(link.down().await, reason);
        let warnings = link.warnings();
        assert_eq!(warnings.len(), round + 1, "one line each: {warnings:?}");
        assert!(warnings[round].contains(line) && warnings[round].contains("retry_in_ms"), "{}", warnings[round]);
        link.state("the next attempt", |state| !matches!(state, LinkState::Down { .. })).await;
    }
    let _peer = server.accept().await;
    link.up().await;
    assert_eq!(link.metric("multiend_link_reconnects_total", ""), 3.0);
}

#[tokio::test]
async fn an_unreachable_server_is_tried_until_it_is_there() {
    let server = Server::new().await;
    let address = server.address();
    drop(server);
    let mut link = Setup::start(config(address.clone()), 100);
    let DownReason::Unreachable(why) = link.down().await else { panic!("it was reached") };
    assert!(why.contains(&address), "{why}");
    assert!(link.warnings()[0].contains("cannot be reached"), "{:?}", link.warnings());
    let server = Server(TcpListener::bind(address).await.unwrap());
    let _peer = server.accept().await;
    link.up().await;
}

#[tokio::test]
async fn a_server_that_does_not_speak_xmpp_is_named_so_and_tried_again() {
    let server = Server::new().await;
    let mut settings = config(server.address());
    settings.connect_timeout = Duration::from_millis(200);
    let mut link = Setup::start(settings, 100);
    let mut peer = server.accept_unproven().await;
    peer.write("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert!(matches!(link.down().await, DownReason::Fault(_)));
    let _mute = server.accept_unproven().await;
    link.state("the timeout", |state| matches!(state, LinkState::Down { reason: DownReason::HandshakeTimeout(_) }))
        .await;
    let _peer = server.accept().await;
    link.up().await;
}

#[tokio::test]
async fn a_silent_server_is_pinged_and_then_left() {
    let server = Server::new().await;
    let mut settings = config(server.address());
    settings.keepalive = Keepalive { interval: Duration::from_millis(100), timeout: Duration::from_millis(1000) };
    let mut link = Setup::start(settings, 100);
    let mut peer = server.accept().await;
    link.up().await;
    // An answer keeps the link alive, and is nobody else's business; so does an error, and so does any byte.
    for answer in ["result", "error"] {
        let ping = peer.stanza().await;
        assert!(ping.contains("<ping xmlns='urn:xmpp:ping'/>"), "{ping}");
        let head = StanzaHead::read(ping.as_bytes());
        assert_eq!((head.from.as_deref(), head.to.as_deref()), (Some(COMPONENT), Some("example.org")));
        let id = head.id.unwrap();
        peer.write(&format!("<iq type='{answer}' from='example.org' to='{COMPONENT}' id='{id}'/>")).await;
    }
    peer.stanza().await;
    peer.write(" ").await;
    peer.stanza().await;
    peer.write("<iq type='get' id='after'/>").await;
    assert_eq!(link.received().await, "<iq type='get' id='after'/>");
    // Now it is silent.
    assert_eq!(link.down().await, DownReason::Silent);
    assert!(link.warnings()[0].contains("silent"), "{:?}", link.warnings());
    let _peer = server.accept().await;
    link.up().await;
}

#[tokio::test]
async fn a_link_that_slept_itself_does_not_blame_the_server() {
    let server = Server::new().await;
    let mut settings = config(server.address());
    settings.keepalive = Keepalive { interval: Duration::from_millis(50), timeout: Duration::from_millis(100) };
    let mut link = Setup::start(settings, 100);
    let mut peer = server.accept().await;
    for n in 0..10 {
        peer.stanza().await;
        // The answer is there at once, but the only thread of this test sleeps beyond the timeout.
        peer.write(&format!("<message id='{n}'/>")).await;
        std::thread::sleep(Duration::from_millis(150));
        assert_eq!(link.received().await, format!("<message id='{n}'/>"));
    }
    assert_eq!(link.warnings(), Vec::<String>::new());
}

#[tokio::test]
async fn what_was_queued_while_the_link_was_down_is_sent_in_order_when_it_is_up() {
    let server = Server::new().await;
    let mut link = Setup::to(&server);
    let peer = server.accept().await;
    link.up().await;
    drop(peer);
    link.state("the break", |state| *state != LinkState::Up).await;
    let messages: Vec<_> = (0..200).map(|n| format!("<message id='{n}'/>")).collect();
    for message in &messages {
        link.handle.outbox.send(Bytes::from(message.clone())).await.unwrap();
    }
    let mut peer = server.accept().await;
    for message in &messages {
        assert_eq!(&peer.stanza().await, message);
    }
    assert_eq!(link.metric("multiend_link_stanzas_out_total", "message"), 200.0);
}

#[tokio::test]
async fn a_stanza_cut_by_a_break_is_sent_again_whole() {
    let server = Server::new().await;
    let mut link = Setup::to(&server);
    let mut peer = server.accept().await;
    link.up().await;
    // More than the sockets' buffers hold, so that the break comes in the middle of one.
    const COUNT: usize = 40;
    let body = "x".repeat(500_000);
    for n in 0..COUNT {
        let message = format!("<message id='{n}'><body>{body}</body></message>");
        link.handle.outbox.send(Bytes::from(message)).await.unwrap();
    }
    let mut some = [0; 1000];
    soon("the beginning", peer.socket.read_exact(&mut some)).await.unwrap();
    drop(peer);
    let mut peer = server.accept().await;
    // What the first connection took whole may be lost with it; the one that it took in part comes first, from its beginning.
    let id = |stanza: &str| -> usize { stanza.split('\'').nth(1).unwrap().parse().unwrap() };
    let first = id(&peer.stanza().await);
    assert!(first < COUNT - 1, "the break did not come in the middle");
    for n in first + 1..COUNT {
        assert_eq!(id(&peer.stanza().await), n);
    }
}

#[tokio::test]
async fn a_stream_that_cannot_be_read_is_ended_with_the_reason_and_made_anew() {
    let server = Server::new().await;
    let mut link = Setup::to(&server);
    let mut peer = server.accept().await;
    link.up().await;
    peer.write("<message/><!-- a comment -->").await;
    let Event::StreamElement(error) = peer.event().await else { panic!("no stream error") };
    assert!(String::from_utf8_lossy(&error.bytes).contains("<restricted-xml"));
    assert_eq!(peer.event().await, Event::Close);
    assert_eq!(link.received().await, "<message/>");
    let _peer = server.accept().await;
    link.up().await;
    assert_eq!(link.warnings().len(), 1);
}
