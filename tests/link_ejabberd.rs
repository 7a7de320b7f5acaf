//! The link on a real ejabberd: what differs from Prosody is the server's stream header, its errors, and that it takes
//! several connections of one component.
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

use jid::DomainPart;
use multiend::link::{Backoff, DownReason, Keepalive, Link, LinkConfig, LinkError, LinkHandle, LinkMetrics, LinkState};
use multiend::link::{RawStanza, StanzaHead};
use prometheus::Registry;
use support::ejabberd::Ejabberd;
use support::xmpp::{Client, error_condition};
use support::{COMPONENT, DOMAIN, SECRET};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(90);

fn start(server: &Ejabberd, name: &str, secret: &str) -> (LinkHandle, mpsc::Receiver<RawStanza>, CancellationToken) {
    let config = LinkConfig {
        backoff: Backoff { initial: Duration::from_millis(50), longest: Duration::from_millis(200) },
        keepalive: Keepalive { interval: Duration::from_millis(300), timeout: Duration::from_millis(3000) },
        ..LinkConfig::new(
            format!("127.0.0.1:{}", server.component_port()),
            DomainPart::new(name).unwrap().into_owned(),
            DomainPart::new(DOMAIN).unwrap().into_owned(),
            secret.into(),
        )
    };
    let (sender, inbound) = mpsc::channel(100);
    let shutdown = CancellationToken::new();
    let metrics = LinkMetrics::register(&Registry::new()).unwrap();
    (Link::start(config, metrics, sender, shutdown.clone()), inbound, shutdown)
}

async fn wait(state: &mut watch::Receiver<LinkState>, wanted: impl Fn(&LinkState) -> bool) -> LinkState {
    timeout(DEADLINE, state.wait_for(wanted)).await.expect("the state in time").unwrap().clone()
}

#[tokio::test]
async fn the_link_works_on_ejabberd() {
    let mut server = Ejabberd::builder().users(&["mallory"]).multiend().start();
    let (wrong, ..) = start(&server, COMPONENT, "wrong");
    let error = timeout(DEADLINE, wrong.finished).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, LinkError::WrongSecret { .. }));
    // It does not tell an unknown name from a wrong secret; the message does for it.
    let (unknown, ..) = start(&server, "unknown.example.org", SECRET);
    let error = timeout(DEADLINE, unknown.finished).await.unwrap().unwrap().unwrap_err();
    assert!(error.to_string().contains("`component.name`"), "{error}");

    let (mut link, mut inbound, shutdown) = start(&server, COMPONENT, SECRET);
    wait(&mut link.state, |state| *state == LinkState::Up).await;
    let mut mallory = Client::connect(server.c2s_port(), DOMAIN, "mallory", "x").await;
    mallory.online().await;
    // At 6,000 it is ejabberd that ends the client's stream.
    let nested = format!("{}{}", "<a>".repeat(100), "</a>".repeat(100));
    mallory.send_raw(&format!("<message to='{COMPONENT}' id='bad'>{nested}</message>")).await;
    let error = mallory.wait_for("an error", |stanza| stanza.attr("id") == Some("bad")).await;
    assert_eq!(error_condition(&error), Some("policy-violation"), "{error:?}");
    mallory.send_raw(&format!("<message to='{COMPONENT}' id='next'/>")).await;
    let next = timeout(DEADLINE, inbound.recv()).await.unwrap().unwrap();
    assert_eq!(StanzaHead::read(&next.bytes).id.as_deref(), Some("next"));

    server.stop();
    let down = wait(&mut link.state, |state| matches!(state, LinkState::Down { .. })).await;
    let LinkState::Down { reason } = down else { panic!("{down:?}") };
    assert!(matches!(reason, DownReason::SystemShutdown | DownReason::ClosedByServer), "{reason}");
    server.restart();
    wait(&mut link.state, |state| *state == LinkState::Up).await;
    shutdown.cancel();
    link.drained.cancel();
    assert_eq!(timeout(DEADLINE, link.finished).await.unwrap().unwrap(), Ok(()));
}
