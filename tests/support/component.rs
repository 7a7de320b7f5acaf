//! A component (XEP-0114) that does what a test tells it to, and otherwise nothing: it answers only what it is told to.

use minidom::Element;
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ports::loopback;
use super::xmpp::{DEADLINE, Splitter, parse};

/// One stanza, as an element and as the bytes that came.
pub struct Stanza {
    /// What it says.
    pub element: Element,
    /// How long it was.
    pub bytes: usize,
}

/// A connected component.
pub struct Component {
    stream: TcpStream,
    splitter: Splitter,
    jid: String,
}

impl Component {
    /// Connects and proves that it knows the secret.
    pub async fn connect(port: u16, jid: &str, secret: &str) -> Self {
        let stream = TcpStream::connect(loopback(port)).await.expect("the server takes components");
        stream.set_nodelay(true).expect("a socket option");
        let mut component = Self { stream, splitter: Splitter::default(), jid: jid.to_owned() };
        component
            .send(&format!(
                "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
                 xmlns:stream='http://etherx.jabber.org/streams' to='{jid}'>"
            ))
            .await;
        let header = component.text().await;
        let (_, id) = header.split_once(" id=").expect("the stream has an id");
        let quote = id.chars().next().expect("a quote");
        let id = id[1..].split(quote).next().expect("an id");
        component.send(&format!("<handshake>{}</handshake>", hex::encode(Sha1::digest(format!("{id}{secret}"))))).await;
        let answer = component.text().await;
        assert!(answer.starts_with("<handshake"), "{answer}");
        component
    }

    /// The next stanza for which `matches` holds; what comes before it stays unanswered.
    pub async fn wait_for(&mut self, what: &str, matches: impl Fn(&Element) -> bool) -> Stanza {
        let search = async {
            loop {
                let text = self.text().await;
                let element = parse(&text);
                if matches(&element) {
                    return Stanza { element, bytes: text.len() };
                }
            }
        };
        timeout(DEADLINE, search).await.unwrap_or_else(|_| panic!("the component waited in vain for {what}"))
    }

    /// Answers an IQ with a result.
    pub async fn answer(&mut self, request: &Element, payload: &str) {
        self.reply(request, "result", payload).await;
    }

    /// Answers an IQ with an error.
    pub async fn refuse(&mut self, request: &Element, kind: &str, condition: &str) {
        let ns = "urn:ietf:params:xml:ns:xmpp-stanzas";
        self.reply(request, "error", &format!("<error type='{kind}'><{condition} xmlns='{ns}'/></error>")).await;
    }

    async fn reply(&mut self, request: &Element, kind: &str, payload: &str) {
        let of = |name| request.attr(name).expect("an IQ has it").to_owned();
        let (id, to) = (of("id"), of("from"));
        self.send(&format!("<iq type='{kind}' id='{id}' from='{}' to='{to}'>{payload}</iq>", self.jid)).await;
    }

    /// Writes text as it is.
    pub async fn send(&mut self, xml: &str) {
        self.stream.write_all(xml.as_bytes()).await.expect("the server reads");
    }

    async fn text(&mut self) -> String {
        loop {
            if let Some(text) = self.splitter.next() {
                return text;
            }
            let mut chunk = vec![0; 64 * 1024];
            let count =
                timeout(DEADLINE * 2, self.stream.read(&mut chunk)).await.expect("something comes").unwrap_or(0);
            assert!(count > 0, "the server has ended the stream of the component");
            self.splitter.extend(&chunk[..count]);
        }
    }
}
