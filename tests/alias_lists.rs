//! Device lists that cannot be clobbered, through the alias door of a real Prosody, in both protocols (DESIGN: directory
//! invariant 6).
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

use minidom::Element;
use support::DOMAIN;
use support::multiend::Multiend;
use support::omemo::{LEGACY, TestDevice, devices, ids_of, items, items_of, publish};
use support::prosody::Prosody;
use support::xmpp::{Client, error_condition};

const DEVICES: &str = "urn:xmpp:omemo:2:devices";
const BUNDLES: &str = "urn:xmpp:omemo:2:bundles";
const LEGACY_LIST: &str = "eu.siacs.conversations.axolotl.devicelist";
const LISTS: [&str; 2] = [DEVICES, LEGACY_LIST];
const ALICE: &str = r"alice\40example.org@multiend.example.org";

struct Setup {
    prosody: Prosody,
    _multiend: Multiend,
}

fn setup(extra: &str) -> Setup {
    let prosody = Prosody::builder().users(&["alice", "bob"]).multiend().start();
    let multiend = Multiend::builder(prosody.component_port()).extra(extra).start();
    Setup { prosody, _multiend: multiend }
}

impl Setup {
    async fn client(&self, user: &str, resource: &str) -> Client {
        let mut client = Client::connect(self.prosody.c2s_port(), DOMAIN, user, resource).await;
        client.online().await;
        client
    }
}

/// A list in the words of its node.
fn list(node: &str, ids: &[u32]) -> String {
    if node == DEVICES {
        return devices(ids);
    }
    let ids: String = ids.iter().map(|id| format!("<device id='{id}'/>")).collect();
    format!("<list xmlns='{LEGACY}'>{ids}</list>")
}

async fn announce(client: &mut Client, node: &str, ids: &[u32]) {
    let answer = client.request("set", Some(ALICE), &publish(node, "current", &list(node, ids))).await;
    assert_eq!(answer.attr("type"), Some("result"), "{}", String::from(&answer));
}

async fn read(client: &mut Client, node: &str) -> Element {
    let answer = client.request("get", Some(ALICE), &items(node, &[])).await;
    items_of(&answer).remove(0).1
}

/// The ids of the list, none where there is no list yet.
async fn seen(client: &mut Client, node: &str) -> Vec<u32> {
    let answer = client.request("get", Some(ALICE), &items(node, &[])).await;
    if answer.attr("type") == Some("error") { Vec::new() } else { ids_of(&items_of(&answer)[0].1) }
}

/// What is said of a refusal: its condition and its text.
async fn refused(client: &mut Client, payload: &str) -> (String, String) {
    let answer = client.request("set", Some(ALICE), payload).await;
    assert_eq!(answer.attr("type"), Some("error"), "{payload}");
    let error = answer.children().find(|child| child.name() == "error").unwrap();
    let text = error.children().find(|child| child.name() == "text").map(Element::text).unwrap_or_default();
    (error_condition(&answer).unwrap().to_owned(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_6_ten_first_announcements_at_once_all_survive_in_both_protocols() {
    let setup = setup("");
    let mut sessions = Vec::new();
    for number in 1..=10_u32 {
        sessions.push((number, setup.client("alice", &format!("r{number}")).await));
    }
    for node in LISTS {
        let mut announcing = tokio::task::JoinSet::new();
        for (number, mut client) in sessions {
            announcing.spawn(async move {
                // Half of them know only themselves; the others add themselves to what they have just read.
                let mut ids = if number % 2 == 0 { seen(&mut client, node).await } else { Vec::new() };
                ids.push(number);
                announce(&mut client, node, &ids).await;
                (number, client)
            });
        }
        sessions = announcing.join_all().await;
        let mut bob = setup.client("bob", node).await;
        let in_force = ids_of(&read(&mut bob, node).await);
        assert_eq!(in_force.iter().copied().collect::<BTreeSet<_>>(), (1..=10).collect(), "{node}");
        assert_eq!(in_force.len(), 10, "{node}");
    }
}

#[tokio::test]
async fn directory_6_a_device_that_was_seen_can_be_removed_in_both_protocols() {
    let setup = setup("");
    let (mut phone, mut laptop) = (setup.client("alice", "phone").await, setup.client("alice", "laptop").await);
    for node in LISTS {
        announce(&mut phone, node, &[1, 2, 3]).await;
        announce(&mut laptop, node, &[4]).await;
        assert_eq!(seen(&mut laptop, node).await, [4, 1, 2, 3], "{node}");
        announce(&mut laptop, node, &[4, 1, 3]).await;
        assert_eq!(seen(&mut laptop, node).await, [4, 1, 3], "{node}");
    }
}

#[tokio::test]
async fn labels_and_their_signatures_are_kept_while_others_announce_themselves() {
    let setup = setup("");
    let (mut phone, mut laptop) = (setup.client("alice", "phone").await, setup.client("alice", "laptop").await);
    let labelled =
        "<devices xmlns='urn:xmpp:omemo:2'><device id='1' label='Grüße &amp; 📱' labelsig='c2lnbmF0dXJl'/></devices>";
    let answer = phone.request("set", Some(ALICE), &publish(DEVICES, "current", labelled)).await;
    assert_eq!(answer.attr("type"), Some("result"));
    announce(&mut laptop, DEVICES, &[2]).await;
    let mut bob = setup.client("bob", "phone").await;
    for client in [&mut bob, &mut phone] {
        let list = read(client, DEVICES).await;
        let devices: Vec<_> =
            list.children().map(|device| (device.attr("id"), device.attr("label"), device.attr("labelsig"))).collect();
        let kept = (Some("1"), Some("Grüße & 📱"), Some("c2lnbmF0dXJl"));
        assert_eq!(devices, [(Some("2"), None, None), kept]);
    }
}

#[tokio::test]
async fn duplicate_and_zero_ids_and_lists_over_the_limit_are_refused_in_both_protocols() {
    let setup = setup("[directory]\nmax_devices = 3\n");
    let (mut phone, mut laptop) = (setup.client("alice", "phone").await, setup.client("alice", "laptop").await);
    for node in LISTS {
        announce(&mut phone, node, &[1, 2]).await;
        for (ids, condition) in
            [(&[3, 3][..], "bad-request"), (&[0], "bad-request"), (&[1, 2, 3, 4], "policy-violation")]
        {
            let (refusal, text) = refused(&mut phone, &publish(node, "current", &list(node, ids))).await;
            assert_eq!(refusal, condition, "{node} {ids:?}: {text}");
            assert!(condition != "policy-violation" || text.contains("at most 3 devices"), "{text}");
        }
        // What another session would keep counts as well.
        let (refusal, _) = refused(&mut laptop, &publish(node, "current", &list(node, &[5, 6]))).await;
        assert_eq!(refusal, "policy-violation", "{node}");
        assert_eq!(seen(&mut laptop, node).await, [1, 2], "{node}");
    }
}

#[tokio::test]
async fn bundles_of_devices_that_are_never_listed_are_bounded_with_the_reason() {
    let setup = setup("");
    let mut phone = setup.client("alice", "phone").await;
    announce(&mut phone, DEVICES, &[100]).await;
    let bundle = |id: u32| publish(BUNDLES, &id.to_string(), &TestDevice { id, seed: 3 }.bundle(1..=2));
    for id in 1..=16 {
        let answer = phone.request("set", Some(ALICE), &bundle(id)).await;
        assert_eq!(answer.attr("type"), Some("result"), "{id}: {}", String::from(&answer));
    }
    let (condition, text) = refused(&mut phone, &bundle(17)).await;
    assert_eq!(condition, "policy-violation");
    assert!(text.contains("not in its list"), "{text}");
    let answer = phone.request("set", Some(ALICE), &bundle(100)).await;
    assert_eq!(answer.attr("type"), Some("result"), "{}", String::from(&answer));
}
