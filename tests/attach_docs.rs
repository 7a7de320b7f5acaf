//! The snippets of `docs/operations.md` and `README.md` that attach multiend to a server, run as they stand: only ports and
//! directories are replaced.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use support::DOMAIN;
use support::document::snippet;
use support::ejabberd::Ejabberd;
use support::multiend::Multiend;
use support::prosody::Prosody;
use support::xmpp::Client;

const OPERATIONS: &str = include_str!("../docs/operations.md");
const README: &str = include_str!("../README.md");
const DEVICE_LIST: &str = "eu.siacs.conversations.axolotl.devicelist";

/// The code block after `<!-- attach: NAME -->`, the same in both documents.
fn attaching(name: &str) -> &'static str {
    let [operations, readme] = [OPERATIONS, README].map(|document| snippet(document, &format!("attach: {name}")));
    assert_eq!(readme, operations, "{name}: what README.md says must be what docs/operations.md says");
    operations
}

/// What the documentation promises of alice's and bob's aliases.
async fn the_aliases_work(c2s_port: u16) {
    let mut alice = Client::connect(c2s_port, DOMAIN, "alice", "phone").await;
    let mut bob = Client::connect(c2s_port, DOMAIN, "bob", "laptop").await;
    alice.online().await;
    bob.online().await;
    let (alias_of_alice, alias_of_bob) =
        (r"alice\40example.org@multiend.example.org", r"bob\40example.org@multiend.example.org");

    let list = "<list xmlns='eu.siacs.conversations.axolotl'><device id='4711'/></list>";
    let publish = format!(
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{DEVICE_LIST}'><item id='current'>{list}</item>\
         </publish></pubsub>"
    );
    let answer = alice.request("set", Some(alias_of_alice), &publish).await;
    assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
    let items = format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='{DEVICE_LIST}'/></pubsub>");
    let answer = bob.request("get", Some(alias_of_alice), &items).await;
    assert!(String::from(&answer).contains("4711"), "{answer:?}");

    // Bob's account becomes known when his own server vouches for it, here by a request of his own.
    let answer = bob.request("set", Some(alias_of_bob), &publish).await;
    assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
    alice.send_raw(&format!("<message to='{alias_of_bob}' type='chat' id='m1'><body>hello</body></message>")).await;
    let message = bob.wait_for("the message", |e| e.name() == "message" && e.has_child("body", "jabber:client")).await;
    assert_eq!(message.attr("from").unwrap().split('/').next(), Some(alias_of_alice), "{message:?}");

    for (client, alias) in [(&mut alice, alias_of_alice), (&mut bob, alias_of_bob)] {
        let answer = client.request("set", Some(alias), "<query xmlns='urn:xmpp:mam:2' queryid='q'/>").await;
        assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
        let result = client.wait_for("the archived message", |e| e.has_child("result", "urn:xmpp:mam:2")).await;
        assert!(String::from(&result).contains("hello"), "{result:?}");
    }
}

#[tokio::test]
async fn the_prosody_snippet_works_on_a_fresh_prosody() {
    let mut prosody = Prosody::builder().users(&["alice", "bob"]).start();
    let mut config = std::fs::read_to_string(prosody.config_path()).unwrap();
    config.push_str(attaching("prosody.cfg.lua"));
    std::fs::write(prosody.config_path(), config).unwrap();
    prosody.restart();
    let _multiend = Multiend::documented(attaching("multiend.toml"), prosody.component_port());
    the_aliases_work(prosody.c2s_port()).await;
}

#[tokio::test]
async fn the_ejabberd_snippet_works_on_a_fresh_ejabberd() {
    let mut ejabberd = Ejabberd::builder().users(&["alice", "bob"]).start();
    ejabberd.restart_with(attaching("ejabberd.yml"), "");
    let _multiend = Multiend::documented(attaching("multiend.toml"), ejabberd.component_port());
    the_aliases_work(ejabberd.c2s_port()).await;
}
