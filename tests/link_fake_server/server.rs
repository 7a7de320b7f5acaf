//! The server's side of the link, and a link with all that is around it.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jid::DomainPart;
use multiend::link::framer::{Event, Framer};
use multiend::link::{Backoff, DownReason, Limits, Link, LinkConfig, LinkHandle, LinkMetrics, LinkState, RawStanza};
use prometheus::Registry;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(crate) const COMPONENT: &str = "multiend.example.org";
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
    xmlns:stream='http://etherx.jabber.org/streams' from='multiend.example.org' id='id&amp;1'>";

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A listening server.
pub(crate) struct Server(pub(crate) TcpListener);

impl Server {
    pub(crate) async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    /// Takes a connection up to the component's handshake.
    pub(crate) async fn accept_unproven(&self) -> Peer {
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
    pub(crate) async fn accept(&self) -> Peer {
        let mut peer = self.accept_unproven().await;
        peer.write(HEADER).await;
        let proof = hex::encode(Sha1::digest(b"id&1secret"));
        assert_eq!(peer.stanza().await, format!("<handshake>{proof}</handshake>"));
        peer.write("<handshake/>").await;
        peer
    }
}

/// The server's end of one connection.
pub(crate) struct Peer {
    pub(crate) socket: TcpStream,
    pub(crate) framer: Framer,
    pub(crate) ended: bool,
}

impl Peer {
    pub(crate) async fn write(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.unwrap();
    }

    pub(crate) async fn stream_error(&mut self, condition: &str) {
        self.write(&format!(
            "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
        ))
        .await;
    }

    /// The next event from the component; `Close` also for a connection that ends.
    pub(crate) async fn event(&mut self) -> Event {
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

    pub(crate) async fn stanza(&mut self) -> String {
        match self.event().await {
            Event::Element(element) => String::from_utf8(element.bytes.to_vec()).unwrap(),
            other => panic!("{other:?} instead of a stanza"),
        }
    }
}

/// A link to a server, and everything around it.
pub(crate) struct Setup {
    pub(crate) handle: LinkHandle,
    pub(crate) inbound: mpsc::Receiver<RawStanza>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) registry: Registry,
    pub(crate) log: Log,
    _subscriber: tracing::subscriber::DefaultGuard,
}

pub(crate) fn config(address: String) -> LinkConfig {
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
    pub(crate) fn start(config: LinkConfig, inbound_capacity: usize) -> Self {
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

    pub(crate) fn to(server: &Server) -> Self {
        Self::start(config(server.address()), 100)
    }

    pub(crate) async fn state(&mut self, what: &str, wanted: impl Fn(&LinkState) -> bool) -> LinkState {
        soon(what, self.handle.state.wait_for(wanted)).await.unwrap().clone()
    }

    pub(crate) async fn up(&mut self) {
        self.state("the link to be up", |state| *state == LinkState::Up).await;
    }

    pub(crate) async fn down(&mut self) -> DownReason {
        match self.state("the link to be down", |state| matches!(state, LinkState::Down { .. })).await {
            LinkState::Down { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn received(&mut self) -> String {
        let stanza = soon("a stanza", self.inbound.recv()).await.unwrap();
        String::from_utf8(stanza.bytes.to_vec()).unwrap()
    }

    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let family = self.registry.gather().into_iter().find(|family| family.name() == name).unwrap();
        let metric = family
            .get_metric()
            .iter()
            .find(|metric| metric.get_label().iter().all(|pair| pair.value() == label))
            .unwrap_or_else(|| panic!("{name} has no {label}"));
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }

    /// The log lines at or above `WARN`.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let log = String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap();
        log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).map(str::to_owned).collect()
    }
}

#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

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
