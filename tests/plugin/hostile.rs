//! What only a server may say, nobody else can.

use crate::support::archive::everything;
use crate::support::plugin::Server as _;
use crate::support::xmpp::{Client, error_condition};
use crate::support::{COMPONENT, DOMAIN};
use crate::{ALICE, BOB, Deployment, OMEMO, Setup, archived_until, send};

fn copies(owner: &str) -> String {
    format!(
        "<copies xmlns='urn:multiend:plugin:0'><copy owner='{owner}' direction='received' id='forged-1' \
         stamp='2026-01-31T12:00:00Z'><message xmlns='jabber:client' type='chat' id='forged' from='{BOB}/x' to='{owner}'>\
         <body>b</body></message></copy></copies>"
    )
}

fn wrapped(owner: &str, from: &str, relation: &str) -> String {
    format!(
        "<delegation xmlns='urn:xmpp:delegation:2' owner='{owner}' relation='{relation}'><forwarded xmlns='urn:xmpp:forward:0'>\
         <iq xmlns='jabber:client' type='set' id='q' from='{from}' to='{owner}'><query xmlns='urn:xmpp:mam:2'/></iq>\
         </forwarded></delegation>"
    )
}

#[tokio::test]
async fn a_user_cannot_speak_as_a_server() {
    let setup = Setup::start(&["alice", "mallory"]);
    let mut alice = setup.client("alice", "phone").await;
    let mut mallory = setup.client("mallory", "x").await;
    for to in [COMPONENT, r"alice\40example.org@multiend.example.org", "multiend.example.org/x"] {
        for payload in [
            copies(ALICE),
            copies("mallory@example.org"),
            wrapped(ALICE, "alice@example.org/phone", "self"),
            wrapped("mallory@example.org", "mallory@example.org/x", "self"),
        ] {
            let answer = mallory.request("set", Some(to), &payload).await;
            assert_eq!(error_condition(&answer), Some("forbidden"), "{to}: {payload}");
        }
        let list = "<list xmlns='urn:multiend:plugin:0' owner='alice@example.org' node='urn:xmpp:omemo:2:devices'/>";
        assert_eq!(error_condition(&mallory.request("get", Some(to), list).await), Some("forbidden"));
    }
    // Nor can it speak to the server as the component.
    let changed = "<changed xmlns='urn:multiend:plugin:0' owner='alice@example.org' node='urn:xmpp:omemo:2:devices'/>";
    assert_eq!(mallory.request("set", Some(DOMAIN), changed).await.attr("type"), Some("error"));
    assert!(everything(&mut alice).await.unwrap().is_empty());
    // Somebody else's archive is nobody's business, whatever is in the request.
    let theirs = mallory.request("set", Some(ALICE), "<query xmlns='urn:xmpp:mam:2'/>").await;
    assert_eq!(theirs.attr("type"), Some("error"));
}

#[tokio::test]
async fn a_copy_that_breaks_a_limit_does_not_hold_up_the_others() {
    let setup = Setup::start(&["alice", "bob"]);
    let (mut alice, mut bob) = (setup.client("alice", "phone").await, setup.client("bob", "phone").await);
    let deep = format!("<body>b</body>{}{}", "<x xmlns='urn:example:x'>".repeat(80), "</x>".repeat(80));
    let wide = format!("<body>b</body><x xmlns='urn:example:x'>{}</x>", "<y/>".repeat(17_000));
    for n in 0..30 {
        send(&mut alice, BOB, &format!("a{n}"), OMEMO).await;
        match n {
            7 => send(&mut alice, BOB, "deep", &deep).await,
            21 => send(&mut alice, BOB, "wide", &wide).await,
            _ => {}
        }
    }
    let expected: Vec<_> = (0..30).map(|n| format!("a{n}")).collect();
    for client in [&mut alice, &mut bob] {
        assert_eq!(archived_until(client, "a29").await, expected);
    }
    let aside = std::fs::read_to_string(setup.server.journal().join("refused.xml")).unwrap();
    assert_eq!(aside.lines().count(), 4, "kept for the operator, once for each archive");
    assert_eq!(setup.multiend.metric("multiend_link_reconnects_total"), 0.0);
}

#[tokio::test]
async fn a_domain_that_is_not_served_is_not_believed() {
    // The plugin is on for a domain that multiend does not know.
    let server = Deployment::new(&["alice"]).stranger("mallory", "elsewhere.example").components(&[COMPONENT]).start();
    let multiend = crate::support::multiend::Multiend::builder(server.component_port()).start();
    let mut mallory = Client::connect(server.c2s_port(), "elsewhere.example", "mallory", "x").await;
    let answer = mallory.request("set", None, "<query xmlns='urn:xmpp:mam:2'/>").await;
    assert_eq!(answer.attr("type"), Some("error"), "{answer:?}");
    let mut alice = Client::connect(server.c2s_port(), DOMAIN, "alice", "x").await;
    assert!(everything(&mut alice).await.is_ok());
    drop(multiend);
}
