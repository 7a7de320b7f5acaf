//! An unmodified slixmpp on the pubsub of an alias, beside a real Prosody: what its plugins ask for and understand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

#[path = "slixmpp/python.rs"]
mod python;
mod support;

use support::multiend::Multiend;
use support::omemo::TestDevice;
use support::prosody::Prosody;

#[test]
fn slixmpp_finds_its_way_through_the_pubsub_of_an_alias() {
    let prosody = Prosody::builder().users(&["alice"]).multiend().start();
    let multiend = Multiend::builder(prosody.component_port()).start();
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("bundle.xml");
    std::fs::write(&bundle, TestDevice { id: 1001, seed: 1 }.bundle(1..=99)).unwrap();
    let output = python::output(
        python::script("pubsub.py")
            .arg(prosody.c2s_port().to_string())
            .args(["alice@example.org", "alice", r"alice\40example.org@multiend.example.org"])
            .arg(&bundle),
    );
    assert!(output.contains("ok"));
    assert!(multiend.metric("multiend_link_reconnects_total") < 0.5);
}
