//! What a user who means harm, or has bad luck, may do to others through the alias door of a real Prosody: nothing.
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
use support::multiend::Multiend;
use support::omemo::{TestDevice, items, items_of, publish};
use support::prosody::Prosody;
use support::xmpp::{Client, error_condition};

const ALICE: &str = r"alice\40example.org@multiend.example.org";
const BUNDLES: &str = "urn:xmpp:omemo:2:bundles";

struct Setup {
    prosody: Prosody,
    multiend: Multiend,
}

fn setup() -> Setup {
    let prosody = Prosody::builder().users(&["alice", "bob", "carol"]).multiend().start();
    let multiend = Multiend::builder(prosody.component_port()).start();
    Setup { prosody, multiend }
}

impl Setup {
    async fn client(&self, user: &str, resource: &str) -> Client {
        let mut client = Client::connect(self.prosody.c2s_port(), DOMAIN, user, resource).await;
        client.online().await;
        client
    }
}

/// A bundle of `device` that is valid, and longer than it need be by `padding` bytes.
fn padded_bundle(device: TestDevice, padding: usize) -> String {
    let padding = format!("<padding xmlns='urn:example:padding'>{}</padding></bundle>", "x".repeat(padding));
    device.bundle(1..=3).replace("</bundle>", &padding)
}

#[tokio::test]
async fn an_answer_too_long_for_the_server_does_not_end_the_stream() {
    let setup = setup();
    let mut alice = setup.client("alice", "phone").await;
    let device = |id| TestDevice { id, seed: u8::try_from(id).unwrap() };
    let too_big = alice.request("set", Some(ALICE), &publish(BUNDLES, "1", &padded_bundle(device(1), 70_000))).await;
    assert_eq!(error_condition(&too_big), Some("not-acceptable"));
    for id in 1..=10 {
        let bundle = padded_bundle(device(id), 60_000);
        let answer = alice.request("set", Some(ALICE), &publish(BUNDLES, &id.to_string(), &bundle)).await;
        assert_eq!(answer.attr("type"), Some("result"));
    }
    let all = alice.request("get", Some(ALICE), &items(BUNDLES, &[])).await;
    assert_eq!(error_condition(&all), Some("not-acceptable"));
    let some = alice.request("get", Some(ALICE), &items(BUNDLES, &["1", "2", "3"])).await;
    assert_eq!(items_of(&some).len(), 3);
    assert!(setup.multiend.metric("multiend_link_reconnects_total") < 0.5);
}
