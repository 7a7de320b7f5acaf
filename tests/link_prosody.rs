//! The link on a real Prosody, with an ordinary client at the other end who sends what took other components down.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use jid::DomainPart;
use multiend::link::{
    Backoff, DownReason, Keepalive, Link, LinkConfig, LinkError, LinkHandle, LinkMetrics, LinkState, RawStanza,
    StanzaHead, StanzaKind,
};
use prometheus::Registry;
use support::prosody::Prosody;
use support::xmpp::{Client, error_condition};
use support::{COMPONENT, DOMAIN, SECRET};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(90);

struct Component {
    handle: LinkHandle,
    inbound: mpsc::Receiver<RawStanza>,
    shutdown: CancellationToken,
}

impl Component {
    fn start(prosody: &Prosody, name: &str, secret: &str) -> Self {
        let config = LinkConfig {
            backoff: Backoff { initial: Duration::from_millis(50), longest: Duration::from_millis(200) },
            keepalive: Keepalive { interval: Duration::from_millis(500), timeout: Duration::from_millis(1500) },
            ..LinkConfig::new(
                format!("127.0.0.1:{}", prosody.component_port()),
                DomainPart::new(name).unwrap().into_owned(),
                DomainPart::new(DOMAIN).unwrap().into_owned(),
                secret.into(),
            )
        };
        let metrics = LinkMetrics::register(&Registry::new()).unwrap();
        let (sender, inbound) = mpsc::channel(100);
        let shutdown = CancellationToken::new();
        Self { handle: Link::start(config, metrics, sender, shutdown.clone()), inbound, shutdown }
    }

    async fn state(&mut self, what: &str, wanted: impl Fn(&LinkState) -> bool) {
        timeout(DEADLINE, self.handle.state.wait_for(wanted))
            .await
            .unwrap_or_else(|_| panic!("not seen: {what}"))
            .unwrap();
    }

    async fn up(&mut self) {
        self.state("up", |state| *state == LinkState::Up).await;
    }

    async fn down(&mut self, wanted: DownReason) {
        let wanted = LinkState::Down { reason: wanted };
        self.state(&format!("{wanted:?}"), |state| *state == wanted).await;
    }

    async fn received(&mut self) -> RawStanza {
        timeout(DEADLINE, self.inbound.recv()).await.expect("a stanza in time").expect("a stanza")
    }

    async fn send(&self, text: String) {
        self.handle.outbox.send(Bytes::from(text)).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_client_sends_costs_it_an_error_and_never_the_stream() {
    let prosody = Prosody::builder().users(&["mallory"]).multiend().start();
    let mut component = Component::start(&prosody, COMPONENT, SECRET);
    component.up().await;
    let mut mallory = Client::connect(prosody.c2s_port(), DOMAIN, "mallory", "x").await;
    mallory.online().await;
    let to = format!("alice\\40{DOMAIN}@{COMPONENT}");
    let nested = format!("{}{}", "<a>".repeat(6_000), "</a>".repeat(6_000));
    let long = "x".repeat(64 * 1024);
    let many: String = (0..40).map(|n| format!(" a{n}='1'")).collect();

    let refused = [
        format!("<message to='{to}' id='bad' type='chat'>{nested}</message>"),
        format!("<iq to='{COMPONENT}' id='bad' type='get'>{nested}</iq>"),
        format!("<message to='{to}' id='bad'><body long='{long}'/></message>"),
        format!("<message long='{long}' to='{to}' id='bad'/>"),
        format!("<message to='{to}' id='bad'><body{many}/></message>"),
        format!("<message to='{to}' id='bad'>{}</message>", "<a/>".repeat(20_000)),
        format!("<iq to='{COMPONENT}' id='bad' type='set'><q xmlns='urn:q'>{nested}</q></iq>"),
    ];
    for (round, bad) in refused.iter().enumerate() {
        mallory.send_raw(bad).await;
        let [error] = replies(&mut mallory, &mut component, round).await.try_into().expect("one error reply");
        assert_eq!((error.attr("type"), error.attr("id")), (Some("error"), Some("bad")), "{round}: {error:?}");
        assert!(error.attr("from").unwrap().ends_with(COMPONENT));
        assert_eq!(error_condition(&error), Some("policy-violation"), "{round}: {error:?}");
    }
    // An overlong id is not echoed: the error comes without one. Presence and errors are not answered at all.
    mallory.send_raw(&format!("<message to='{to}' id='{long}'/>")).await;
    let [error] = replies(&mut mallory, &mut component, 100).await.try_into().expect("one error reply");
    assert_eq!((error.attr("type"), error.attr("id")), (Some("error"), None));
    mallory.send_raw(&format!("<message to='{to}' id='bad' type='error'>{nested}</message>")).await;
    mallory.send_raw(&format!("<presence to='{to}'>{nested}</presence>")).await;
    assert_eq!(replies(&mut mallory, &mut component, 101).await, vec![]);

    // What breaks no limit comes through as it is; what it means is for others to say.
    mallory.send_raw(&format!("<message to='{to}'><thread>1</thread><thread>2</thread></message>")).await;
    let text = String::from_utf8(component.received().await.bytes.to_vec()).unwrap();
    assert!(text.contains("<thread>1</thread><thread>2</thread>"), "{text}");
    mallory.send_raw(&format!("<message to='{to}' type='bogus'><body>&lt;</body></message>")).await;
    let stanza = component.received().await;
    assert_eq!(StanzaHead::read(&stanza.bytes).stanza_type.as_deref(), Some("bogus"));
    // An IQ of an unknown type is answered by Prosody itself.
    mallory.send_raw(&format!("<iq to='{COMPONENT}' id='bad' type='bogus'><q xmlns='urn:q'/></iq>")).await;
    let [error] = replies(&mut mallory, &mut component, 102).await.try_into().expect("one error reply");
    assert_eq!(error_condition(&error), Some("bad-request"));

    assert_eq!(*component.handle.state.borrow(), LinkState::Up);
    assert!(!component.handle.state.has_changed().unwrap(), "the link was down in between");
    component.shutdown.cancel();
    component.handle.drained.cancel();
    assert_eq!(timeout(DEADLINE, component.handle.finished).await.unwrap().unwrap(), Ok(()));
}

/// What the client got until an ordinary message went to the component and its answer came back: the next stanza works.
async fn replies(client: &mut Client, component: &mut Component, round: usize) -> Vec<minidom::Element> {
    client.send_raw(&format!("<message to='{COMPONENT}' id='next-{round}'><body>hello</body></message>")).await;
    let next = component.received().await;
    assert_eq!(next.kind, StanzaKind::Message);
    let head = StanzaHead::read(&next.bytes);
    assert_eq!(head.id, Some(format!("next-{round}")), "what was refused did not come through");
    let answer = format!("<message from='{COMPONENT}' to='{}' id='answer-{round}'/>", head.from.unwrap());
    component.send(answer).await;
    let mut replies = Vec::new();
    loop {
        let stanza = client.next_stanza().await;
        if stanza.attr("id") == Some(&format!("answer-{round}")) {
            return replies;
        }
        replies.push(stanza);
    }
}

#[tokio::test]
async fn wrong_secret_unknown_name_and_conflict_are_understood() {
    let prosody = Prosody::builder().multiend().start();
    let wrong = Component::start(&prosody, COMPONENT, "wrong");
    let error = timeout(DEADLINE, wrong.handle.finished).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, LinkError::WrongSecret { .. }));

    let mut unknown = Component::start(&prosody, "unknown.example.org", SECRET);
    unknown.down(DownReason::HostUnknown).await;

    let mut first = Component::start(&prosody, COMPONENT, SECRET);
    first.up().await;
    let mut second = Component::start(&prosody, COMPONENT, SECRET);
    second.down(DownReason::AlreadyConnected).await;
    first.shutdown.cancel();
    drop(first.handle.outbox);
    assert_eq!(timeout(DEADLINE, first.handle.finished).await.unwrap().unwrap(), Ok(()));
    second.up().await;
}

#[tokio::test]
async fn the_newer_of_two_connections_may_win() {
    let prosody = Prosody::builder().component(COMPONENT, SECRET, "component_conflict_resolve = \"kick_old\"").start();
    let mut first = Component::start(&prosody, COMPONENT, SECRET);
    first.up().await;
    let mut second = Component::start(&prosody, COMPONENT, SECRET);
    first.down(DownReason::Replaced).await;
    second.up().await;
}

#[tokio::test]
async fn a_server_that_stops_hangs_or_dies_is_found_again() {
    let mut prosody = Prosody::builder().multiend().start();
    let mut component = Component::start(&prosody, COMPONENT, SECRET);
    component.up().await;
    prosody.signal("STOP");
    component.down(DownReason::Silent).await;
    prosody.signal("CONT");
    component.up().await;
    prosody.kill9();
    component.state("down", |state| matches!(state, LinkState::Down { .. })).await;
    component.send(format!("<message from='{COMPONENT}' to='{COMPONENT}' id='queued'/>")).await;
    prosody.restart();
    // To itself, through the new server.
    assert_eq!(StanzaHead::read(&component.received().await.bytes).id.as_deref(), Some("queued"));
    // Prosody 0.12 closes a component's connection without <system-shutdown/>.
    prosody.stop();
    component.state("down", |state| matches!(state, LinkState::Down { .. })).await;
    prosody.restart();
    component.up().await;
}
