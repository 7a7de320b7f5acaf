//! SIGTERM in the middle of traffic: what was accepted is finished and acknowledged, what was not comes back as an error,
//! and the program ends in good order. Without a database it ends all the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use support::multiend::Multiend;
use support::omemo::{TestDevice, publish};
use support::postgres::{Fsync, Postgres};
use support::process::poll;
use support::prosody::Prosody;
use support::xmpp::Client;
use support::{COMPONENT, DOMAIN};

const ALICE: &str = r"alice\40example.org@multiend.example.org";
const BOB: &str = r"bob\40example.org@multiend.example.org";
const MESSAGES: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_finishes_what_was_accepted_and_refuses_the_rest() {
    let prosody = Prosody::builder().users(&["alice", "bob"]).multiend().start();
    let mut multiend = Multiend::builder(prosody.component_port()).start();
    let mut alice = Client::connect(prosody.c2s_port(), DOMAIN, "alice", "phone").await;
    let mut bob = Client::connect(prosody.c2s_port(), DOMAIN, "bob", "phone").await;
    let bundle = TestDevice { id: 1, seed: 1 }.bundle(1..=3);
    bob.request("set", Some(BOB), &publish("urn:xmpp:omemo:2:bundles", "1", &bundle)).await;

    let all: String = (0..MESSAGES)
        .map(|n| {
            format!(
                "<message type='chat' to='{BOB}' id='m{n}'><body>b</body><request xmlns='urn:multiend:0'/></message>"
            )
        })
        .collect();
    alice.send_raw(&all).await;
    let first = alice.wait_for("the first acknowledgement", |stanza| acknowledged(stanza).is_some()).await;
    let status = multiend.terminate();
    assert!(status.success(), "{status}\n{}", multiend.log());
    assert!(multiend.log().contains("stopped"));

    // All answers are there when the server's own answer is. Some messages may have none: what is under way when a
    // stream closes, nobody can answer for (XEP-0114 has no acknowledgements); a sender sends those again.
    let mut stored = BTreeSet::from([acknowledged(&first).unwrap()]);
    let mut refused = BTreeSet::new();
    for stanza in alice.everything_until_pong(DOMAIN).await {
        match acknowledged(&stanza) {
            Some(id) => assert!(stored.insert(id), "acknowledged twice"),
            None if stanza.attr("type") == Some("error") => {
                refused.insert(stanza.attr("id").unwrap().to_owned());
            }
            None => {}
        }
    }
    assert!(stored.is_disjoint(&refused));

    multiend.restart();
    let (mut archived, mut after) = (BTreeSet::new(), String::new());
    loop {
        let rsm = format!("<set xmlns='http://jabber.org/protocol/rsm'><max>50</max>{after}</set>");
        let fin = alice.request("set", Some(ALICE), &format!("<query xmlns='urn:xmpp:mam:2'>{rsm}</query>")).await;
        archived.extend(alice.everything_until_pong(COMPONENT).await.iter().filter_map(|stanza| {
            let forwarded = stanza.get_child("result", "urn:xmpp:mam:2")?.children().next()?;
            let message = forwarded.children().find(|child| child.name() == "message")?;
            message.attr("id").map(str::to_owned)
        }));
        let fin = String::from(&fin);
        if fin.contains("complete") {
            break;
        }
        let last = fin.split("<last>").nth(1).unwrap().split('<').next().unwrap();
        after = format!("<after>{last}</after>");
    }
    assert_eq!(archived, stored, "what is stored is what was acknowledged");
    println!("{} stored and acknowledged, {} refused", stored.len(), refused.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_does_not_wait_for_a_database_that_is_away() {
    let prosody = Prosody::builder().users(&["alice"]).multiend().start();
    let mut postgres = Postgres::start(Fsync::Off);
    let database = postgres.fresh_database().await;
    let builder = Multiend::builder(prosody.component_port()).database(&database);
    let mut multiend = builder.env("MULTIEND_COMPONENT__DRAIN_TIMEOUT", "2s").start();
    let mut alice = Client::connect(prosody.c2s_port(), DOMAIN, "alice", "phone").await;
    alice.online().await;
    let to_herself = |id| format!("<message to='{ALICE}' id='{id}'><body>hello</body></message>");
    alice.send_raw(&to_herself("stored")).await;
    alice.wait_for("her message", |stanza| stanza.attr("id") == Some("stored")).await;
    postgres.kill9();
    alice.send_raw(&to_herself("accepted")).await;
    let queued = || multiend.metric("multiend_archive_queue_messages") == 1.0;
    poll("a message that cannot be stored", Duration::from_secs(60), || queued().then_some(()));
    assert!(multiend.terminate().success(), "{}", multiend.log());
    assert!(multiend.log().contains("not everything accepted could be stored"), "{}", multiend.log());
}

fn acknowledged(stanza: &minidom::Element) -> Option<String> {
    stanza.get_child("archived", "urn:multiend:0")?.attr("for").map(str::to_owned)
}
