//! The link against a server that does what no good server does: huge stanzas, bytes in single pieces, stream errors,
//! silence, and connections that break.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use jid::DomainPart;
use multiend::link::framer::{Event, Framer};
use multiend::link::{
    Backoff, DownReason, Keepalive, Limits, Link, LinkConfig, LinkError, LinkHandle, LinkMetrics, LinkState, RawStanza,
    StanzaHead,
};
use prometheus::Registry;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const COMPONENT: &str = "multiend.example.org";
const DEADLINE: Duration = Duration::from_secs(20);
const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
    xmlns:stream='http://etherx.jabber.org/streams' from='multiend.example.org' id='id&amp;1'>";

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A listening server.
struct Server(TcpListener);

impl Server {
    async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    /// Takes a connection up to the component's handshake.
    async fn accept_unproven(&self) -> Peer {
        let (socket, _) = soon("a connection", self.0.accept()).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let mut peer = Peer { socket, framer: Framer::new(Limits::default()), ended: false };
        let Event::Open(header) = peer.event().await else { panic!("no header") };
        assert_eq!(
            (header.attribute("to"), header.attribute("xmlns")),
            (Some(COMPONENT), Some("jabber:component:accept"))
        );
        peer
    }

    /// Takes a connection and accepts its handshake.
    async fn accept(&self) -> Peer {
        let mut peer = self.accept_unproven().await;
        peer.write(HEADER).await;
        let proof = hex::encode(Sha1::digest(b"id&1secret"));
        assert_eq!(peer.stanza().await, format!("<handshake>{proof}</handshake>"));
        peer.write("<handshake/>").await;
        peer
    }
}

/// The server's end of one connection.
struct Peer {
    socket: TcpStream,
    framer: Framer,
    ended: bool,
}

impl Peer {
    async fn write(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.unwrap();
    }

    async fn stream_error(&mut self, condition: &str) {
        self.write(&format!(
            "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
        ))
        .await;
    }

    /// The next event from the component; `Close` also for a connection that ends.
    async fn event(&mut self) -> Event {
        loop {
            if let Some(event) = self.framer.next_event().unwrap() {
                return event;
            }
            let mut chunk = [0; 4096];
            match soon("bytes from the component", self.socket.read(&mut chunk)).await {
                Ok(0) | Err(_) => {
                    self.ended = true;
                    return Event::Close;
                }
                Ok(count) => self.framer.feed(&chunk[..count]),
            }
        }
    }

    async fn stanza(&mut self) -> String {
        match self.event().await {
            Event::Element(element) => String::from_utf8(element.bytes.to_vec()).unwrap(),
            other => panic!("{other:?} instead of a stanza"),
        }
    }
}

/// A link to a server, and everything around it.
struct Setup {
    handle: LinkHandle,
    inbound: mpsc::Receiver<RawStanza>,
    shutdown: CancellationToken,
    registry: Registry,
    log: Log,
    _subscriber: tracing::subscriber::DefaultGuard,
}

fn config(address: String) -> LinkConfig {
    LinkConfig {
        backoff: Backoff { initial: Duration::from_millis(20), longest: Duration::from_millis(200) },
        ..LinkConfig::new(
            address,
            DomainPart::new(COMPONENT).unwrap().into_owned(),
            DomainPart::new("example.org").unwrap().into_owned(),
            "secret".into(),
        )
    }
}

impl Setup {
    fn start(config: LinkConfig, inbound_capacity: usize) -> Self {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
        let _subscriber = tracing::subscriber::set_default(subscriber);
        let registry = Registry::new();
        let metrics = LinkMetrics::register(&registry).unwrap();
        let (sender, inbound) = mpsc::channel(inbound_capacity);
        let shutdown = CancellationToken::new();
        let handle = Link::start(config, metrics, sender, shutdown.clone());
        Self { handle, inbound, shutdown, registry, log, _subscriber }
    }

    fn to(server: &Server) -> Self {
        Self::start(config(server.address()), 100)
    }

    async fn state(&mut self, what: &str, wanted: impl Fn(&LinkState) -> bool) -> LinkState {
        soon(what, self.handle.state.wait_for(wanted)).await.unwrap().clone()
    }

    async fn up(&mut self) {
        self.state("the link to be up", |state| *state == LinkState::Up).await;
    }

    async fn down(&mut self) -> DownReason {
        match self.state("the link to be down", |state| matches!(state, LinkState::Down { .. })).await {
            LinkState::Down { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    async fn received(&mut self) -> String {
        let stanza = soon("a stanza", self.inbound.recv()).await.unwrap();
        String::from_utf8(stanza.bytes.to_vec()).unwrap()
    }

    fn metric(&self, name: &str, label: &str) -> f64 {
        let family = self.registry.gather().into_iter().find(|family| family.name() == name).unwrap();
        let metric = family
            .get_metric()
            .iter()
            .find(|metric| metric.get_label().iter().all(|pair| pair.value() == label))
            .unwrap_or_else(|| panic!("{name} has no {label}"));
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }

    /// The log lines at or above `WARN`.
    fn warnings(&self) -> Vec<String> {
        let log = String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap();
        log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).map(str::to_owned).collect()
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Write::write(&mut *self.0.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

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
