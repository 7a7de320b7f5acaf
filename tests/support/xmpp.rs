//! An XMPP client on a raw socket. It shares no code with the product or its client on purpose: what it receives is what a
//! stranger's client would receive.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use base64::Engine as _;
use minidom::Element;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ports::loopback;

/// How long a stanza may take: long enough for a machine that is busy with all the other tests.
pub const DEADLINE: Duration = Duration::from_secs(60);
const READ_SIZE: usize = 64 * 1024;

/// A logged-in session.
pub struct Client {
    stream: TcpStream,
    splitter: Splitter,
    /// Came while something else was waited for; oldest first.
    inbox: VecDeque<Element>,
    jid: String,
    last_id: u32,
}

impl Client {
    /// Logs in an account whose password is its name, and binds `resource`. Sends no presence yet.
    pub async fn connect(c2s_port: u16, domain: &str, user: &str, resource: &str) -> Self {
        Self::login(c2s_port, domain, user, user, resource).await
    }

    /// Logs in with a password.
    pub async fn login(c2s_port: u16, domain: &str, user: &str, password: &str, resource: &str) -> Self {
        let stream = TcpStream::connect(loopback(c2s_port)).await.expect("the server takes connections");
        stream.set_nodelay(true).expect("a socket option");
        let mut client = Self {
            stream,
            splitter: Splitter::default(),
            inbox: VecDeque::new(),
            jid: format!("{user}@{domain}/{resource}"),
            last_id: 0,
        };
        client.open_stream(domain).await;
        let plain = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"));
        client
            .send_raw(&format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>"))
            .await;
        let answer = client.next_stanza().await;
        assert_eq!(answer.name(), "success", "login of {user}: {answer:?}");
        client.open_stream(domain).await;
        let bind = format!("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind>");
        let bound = client.request("set", None, &bind).await;
        assert_eq!(bound.attr("type"), Some("result"), "bind of {}: {bound:?}", client.jid);
        client
    }

    async fn open_stream(&mut self, domain: &str) {
        self.splitter = Splitter::default();
        self.send_raw(&format!(
            "<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams'>"
        ))
        .await;
        let header = self.next_raw().await.expect("a stream header");
        assert!(header.starts_with("<stream:stream"), "not a stream header: {header}");
        let features = self.next_stanza().await;
        assert_eq!(features.name(), "features");
    }

    /// The full JID.
    pub fn jid(&self) -> &str {
        &self.jid
    }

    /// The bare JID.
    pub fn bare(&self) -> &str {
        self.jid.split('/').next().expect("there is a first part")
    }

    /// Sends available presence and waits until the server has taken note.
    pub async fn online(&mut self) {
        self.send_raw("<presence/>").await;
        let own = self.jid.clone();
        self.wait_for("own presence", |e| e.name() == "presence" && e.attr("from") == Some(&own)).await;
    }

    /// Turns message carbons on (XEP-0280).
    pub async fn enable_carbons(&mut self) {
        let answer = self.request("set", None, "<enable xmlns='urn:xmpp:carbons:2'/>").await;
        assert_eq!(answer.attr("type"), Some("result"), "carbons: {answer:?}");
    }

    /// Writes text as it is.
    pub async fn send_raw(&mut self, xml: &str) {
        self.stream.write_all(xml.as_bytes()).await.expect("the server reads");
    }

    /// The next stanza: the oldest not yet taken. Panics after [`DEADLINE`] and at the end of the stream.
    pub async fn next_stanza(&mut self) -> Element {
        match self.inbox.pop_front() {
            Some(stanza) => stanza,
            None => self.receive().await,
        }
    }

    /// The next stanza for which `matches` holds. The others stay, in order.
    pub async fn wait_for(&mut self, what: &str, matches: impl Fn(&Element) -> bool) -> Element {
        if let Some(at) = self.inbox.iter().position(&matches) {
            return self.inbox.remove(at).expect("it is there");
        }
        let search = async {
            loop {
                let stanza = self.receive().await;
                if matches(&stanza) {
                    return stanza;
                }
                self.inbox.push_back(stanza);
            }
        };
        match timeout(DEADLINE, search).await {
            Ok(stanza) => stanza,
            Err(_) => panic!("{} waited in vain for {what}; it has {:?}", self.jid, self.inbox),
        }
    }

    /// Takes out the oldest stanza that has come and was not taken, for which `matches` holds. Waits for nothing.
    pub fn take(&mut self, matches: impl Fn(&Element) -> bool) -> Option<Element> {
        let at = self.inbox.iter().position(matches)?;
        self.inbox.remove(at)
    }

    /// Sends an IQ (`kind` is `get` or `set`) and returns the answer, be it result or error.
    pub async fn request(&mut self, kind: &str, to: Option<&str>, payload: &str) -> Element {
        let id = self.fresh_id();
        let to = to.map(|to| format!(" to='{to}'")).unwrap_or_default();
        self.iq(&format!("<iq type='{kind}' id='{id}'{to}>{payload}</iq>"), &id).await
    }

    /// Sends an IQ as it is and returns the answer with its id, be it result or error.
    pub async fn iq(&mut self, xml: &str, id: &str) -> Element {
        self.send_raw(xml).await;
        self.wait_for(&format!("the answer to iq {id}"), |e| {
            e.name() == "iq" && e.attr("id") == Some(id) && matches!(e.attr("type"), Some("result" | "error"))
        })
        .await
    }

    /// Pings `to` and returns everything that came before the answer and was not taken: whatever `to` had sent until
    /// then is here. This is how a test shows that something does *not* come.
    pub async fn everything_until_pong(&mut self, to: &str) -> Vec<Element> {
        self.request("get", Some(to), "<ping xmlns='urn:xmpp:ping'/>").await;
        self.inbox.drain(..).collect()
    }

    /// An id that this session has not used.
    pub fn fresh_id(&mut self) -> String {
        self.last_id += 1;
        format!("t{}", self.last_id)
    }

    /// The text of the next stanza, byte for byte; `None` at the end of the stream. Passes over the inbox: for tests that
    /// look at bytes, or wait for the end.
    pub async fn next_raw(&mut self) -> Option<String> {
        loop {
            if let Some(text) = self.splitter.next() {
                return (text != "</stream:stream>").then_some(text);
            }
            let mut chunk = vec![0; READ_SIZE];
            let read = timeout(DEADLINE, self.stream.read(&mut chunk));
            let count =
                read.await.unwrap_or_else(|_| panic!("nothing came for {} in {DEADLINE:?}", self.jid)).unwrap_or(0);
            if count == 0 {
                return None;
            }
            self.splitter.extend(&chunk[..count]);
        }
    }

    async fn receive(&mut self) -> Element {
        let text = self.next_raw().await.unwrap_or_else(|| panic!("the stream of {} ended", self.jid));
        parse(&text)
    }
}

/// Parses a stanza whose `jabber:client` and `stream` namespaces were declared by the stream header.
pub fn parse(text: &str) -> Element {
    let prefixes = BTreeMap::from([
        (None, "jabber:client".to_owned()),
        (Some("stream".to_owned()), "http://etherx.jabber.org/streams".to_owned()),
    ]);
    Element::from_reader_with_prefixes(text.as_bytes(), prefixes).unwrap_or_else(|e| panic!("not XML ({e}): {text}"))
}

/// The defined condition of an error stanza, as `item-not-found`.
pub fn error_condition(stanza: &Element) -> Option<&str> {
    let error = stanza.children().find(|child| child.name() == "error")?;
    error
        .children()
        .find(|child| child.ns() == "urn:ietf:params:xml:ns:xmpp-stanzas" && child.name() != "text")
        .map(Element::name)
}

/// Cuts a stream into stream header, stanzas and stream end. Knows only what a server sends: no comments, no CDATA.
#[derive(Default)]
pub(super) struct Splitter {
    buffer: Vec<u8>,
    at: usize,
    depth: usize,
    tag: Option<Tag>,
}

struct Tag {
    start: usize,
    quote: Option<u8>,
}

impl Splitter {
    /// Takes in what was read.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece that is complete.
    pub(super) fn next(&mut self) -> Option<String> {
        while let Some(&byte) = self.buffer.get(self.at) {
            self.at += 1;
            match &mut self.tag {
                None if byte == b'<' => self.tag = Some(Tag { start: self.at - 1, quote: None }),
                None => {}
                Some(tag) => match tag.quote {
                    Some(quote) if quote == byte => tag.quote = None,
                    Some(_) => {}
                    None if byte == b'"' || byte == b'\'' => tag.quote = Some(byte),
                    None if byte == b'>' => {
                        let start = tag.start;
                        self.tag = None;
                        if let Some(text) = self.end_of_tag(start) {
                            return Some(text);
                        }
                    }
                    None => {}
                },
            }
        }
        None
    }

    fn end_of_tag(&mut self, start: usize) -> Option<String> {
        let tag = &self.buffer[start..self.at];
        if tag.starts_with(b"<?") {
            self.buffer.drain(..self.at);
            self.at = 0;
            return None;
        }
        if tag.starts_with(b"</") {
            self.depth = self.depth.saturating_sub(1);
        } else if !tag.ends_with(b"/>") && !tag.starts_with(b"<stream:stream") {
            self.depth += 1;
        }
        if self.depth > 0 {
            return None;
        }
        let bytes: Vec<u8> = self.buffer.drain(..self.at).collect();
        self.at = 0;
        Some(String::from_utf8(bytes).expect("a server sends UTF-8").trim_start().to_owned())
    }
}

/// The one asks to see the other's presence, and is allowed to.
pub async fn befriend(asking: &mut Client, asked: &mut Client) {
    asking.send_raw(&format!("<presence type='subscribe' to='{}'/>", asked.bare())).await;
    asked.wait_for("the wish", |e| e.attr("type") == Some("subscribe")).await;
    asked.send_raw(&format!("<presence type='subscribed' to='{}'/>", asking.bare())).await;
    let of_asked = |e: &Element| e.attr("from").is_some_and(|from| from.starts_with(asked.bare()));
    asking.wait_for("the presence", |e| e.name() == "presence" && e.attr("type").is_none() && of_asked(e)).await;
}
