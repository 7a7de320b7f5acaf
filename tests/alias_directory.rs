//! The directory through the alias door of a real Prosody, asked by a client that shares no code with the product
//! (DESIGN: "Directory: what must always hold").
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
use support::multiend::Multiend;
use support::omemo::{LEGACY, OMEMO_2, PUBSUB, TestDevice, devices, ids_of, items, items_of, prekeys_of, publish};
use support::prosody::Prosody;
use support::xmpp::{Client, error_condition};
use support::{COMPONENT, DOMAIN};

const DEVICES: &str = "urn:xmpp:omemo:2:devices";
const BUNDLES: &str = "urn:xmpp:omemo:2:bundles";
const LEGACY_LIST: &str = "eu.siacs.conversations.axolotl.devicelist";
const ALICE: &str = r"alice\40example.org@multiend.example.org";
const PHONE: TestDevice = TestDevice { id: 1001, seed: 1 };

struct Setup {
    prosody: Prosody,
    multiend: Multiend,
}

fn setup(extra: &str) -> Setup {
    let prosody = Prosody::builder().users(&["alice", "bob", "carol"]).multiend().start();
    let multiend = Multiend::builder(prosody.component_port()).extra(extra).start();
    Setup { prosody, multiend }
}

impl Setup {
    async fn client(&self, user: &str, resource: &str) -> Client {
        let mut client = Client::connect(self.prosody.c2s_port(), DOMAIN, user, resource).await;
        client.online().await;
        client
    }
}

async fn ok(client: &mut Client, kind: &str, to: &str, payload: &str) -> Element {
    let answer = client.request(kind, Some(to), payload).await;
    assert_eq!(answer.attr("type"), Some("result"), "{payload}\n=> {}", String::from(&answer));
    answer
}

async fn refused(client: &mut Client, kind: &str, to: &str, payload: &str) -> String {
    let answer = client.request(kind, Some(to), payload).await;
    assert_eq!(answer.attr("type"), Some("error"), "{payload}\n=> {}", String::from(&answer));
    error_condition(&answer).expect("a condition").to_owned()
}

async fn publish_phone(alice: &mut Client, prekeys: std::ops::RangeInclusive<u32>) {
    ok(alice, "set", ALICE, &publish(BUNDLES, &PHONE.id.to_string(), &PHONE.bundle(prekeys))).await;
    ok(alice, "set", ALICE, &publish(DEVICES, "current", &devices(&[PHONE.id]))).await;
}

async fn claim(client: &mut Client) -> (u32, String) {
    let answer = ok(client, "get", ALICE, &items(BUNDLES, &[&PHONE.id.to_string()])).await;
    let bundle = items_of(&answer).remove(0).1;
    let prekeys = prekeys_of(&bundle);
    assert_eq!(prekeys.len(), 1, "everybody but the owner gets one prekey");
    prekeys[0].clone()
}

#[tokio::test]
async fn directory_1_2_4_others_get_one_prekey_oldest_first_and_the_same_again() {
    let setup = setup("");
    let mut alice = setup.client("alice", "phone").await;
    publish_phone(&mut alice, 1..=3).await;
    let mut bob_phone = setup.client("bob", "phone").await;
    let mut bob_laptop = setup.client("bob", "laptop").await;
    let mut carol = setup.client("carol", "phone").await;

    let first = claim(&mut bob_phone).await;
    let second = claim(&mut bob_laptop).await;
    assert_eq!((first.0, second.0), (1, 2), "oldest first, and a full JID is a requester of its own");
    assert_eq!(claim(&mut bob_phone).await, first, "the same requester gets the same prekey");
    let third = claim(&mut carol).await;
    assert_eq!(third.0, 3);

    let mut carol_laptop = setup.client("carol", "laptop").await;
    let last_resort = claim(&mut carol_laptop).await;
    assert_eq!(last_resort, first, "the last resort is the least recently issued");
    for (result, count) in [("fresh", 3.0), ("repeat", 1.0), ("last-resort", 1.0)] {
        let metric = format!("multiend_directory_claims_total{{protocol=\"omemo2\",result=\"{result}\"}}");
        assert!((setup.multiend.metric(&metric) - count).abs() < 0.1, "{metric}");
    }
}

#[tokio::test]
async fn directory_3_a_republished_bundle_does_not_bring_issued_prekeys_back() {
    let setup = setup("");
    let mut alice = setup.client("alice", "phone").await;
    publish_phone(&mut alice, 1..=2).await;
    let mut bob = setup.client("bob", "phone").await;
    let issued = claim(&mut bob).await;
    publish_phone(&mut alice, 1..=3).await;
    let mut carol = setup.client("carol", "phone").await;
    let mut carol_laptop = setup.client("carol", "laptop").await;
    assert_eq!(claim(&mut carol).await.0, 2);
    assert_eq!(claim(&mut carol_laptop).await.0, 3);
    assert_eq!(issued.0, 1);

    let regenerated = PHONE.bundle([1]).replace(&issued.1, &{
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(PHONE.prekey(77))
    });
    ok(&mut alice, "set", ALICE, &publish(BUNDLES, &PHONE.id.to_string(), &regenerated)).await;
    let mut eve = setup.client("carol", "tablet").await;
    let fresh = claim(&mut eve).await;
    assert_eq!(fresh.0, 1, "a new key under an old id is a new prekey");
    assert_ne!(fresh.1, issued.1);
}

#[tokio::test]
async fn directory_5_the_owner_gets_back_exactly_what_it_published() {
    let setup = setup("");
    let mut alice = setup.client("alice", "phone").await;
    publish_phone(&mut alice, 1..=100).await;
    let mut bob = setup.client("bob", "phone").await;
    claim(&mut bob).await;
    let published: Element = PHONE.bundle(1..=100).parse().unwrap();
    for address in [ALICE, COMPONENT] {
        let answer = ok(&mut alice, "get", address, &items(BUNDLES, &[])).await;
        assert_eq!(items_of(&answer), vec![(PHONE.id.to_string(), published.clone())]);
    }
}

#[tokio::test]
async fn directory_6_two_first_announcements_both_survive_and_a_seen_device_can_be_removed() {
    let setup = setup("");
    let mut phone = setup.client("alice", "phone").await;
    let mut laptop = setup.client("alice", "laptop").await;
    let subscribe = |jid: &str| format!("<pubsub xmlns='{PUBSUB}'><subscribe node='{DEVICES}' jid='{jid}'/></pubsub>");
    let jid = phone.jid().to_owned();
    ok(&mut phone, "set", ALICE, &subscribe(&jid)).await;
    // Neither has seen the other's announcement.
    ok(&mut phone, "set", ALICE, &publish(DEVICES, "current", &devices(&[1]))).await;
    ok(&mut laptop, "set", ALICE, &publish(DEVICES, "current", &devices(&[2]))).await;
    let list = items_of(&ok(&mut laptop, "get", ALICE, &items(DEVICES, &[])).await).remove(0).1;
    assert_eq!(ids_of(&list), [2, 1]);

    let event = phone
        .wait_for("the event with both devices", |stanza| {
            String::from(stanza).contains("id='2'") || String::from(stanza).contains("id=\"2\"")
        })
        .await;
    assert_eq!(event.attr("from"), Some(ALICE));
    // Now that it has seen device 1, the laptop may remove it.
    ok(&mut laptop, "set", ALICE, &publish(DEVICES, "current", &devices(&[2]))).await;
    let mut bob = setup.client("bob", "phone").await;
    let list = items_of(&ok(&mut bob, "get", ALICE, &items(DEVICES, &[])).await).remove(0).1;
    assert_eq!(ids_of(&list), [2]);
}

#[tokio::test]
async fn directory_7_a_wrong_signature_is_refused_in_both_protocols_and_nothing_is_stored() {
    let setup = setup("");
    let mut alice = setup.client("alice", "phone").await;
    let other = TestDevice { id: PHONE.id, seed: 9 };
    let forged = |good: &str, bad: &str, element: &str| {
        let part = |bundle: &str| {
            let start = bundle.find(&format!("<{element}>")).unwrap() + element.len() + 2;
            bundle[start..].split('<').next().unwrap().to_owned()
        };
        good.replace(&part(good), &part(bad))
    };
    let omemo2 = forged(&PHONE.bundle(1..=5), &other.bundle(1..=5), "spks");
    let legacy = forged(&PHONE.legacy_bundle(1..=5), &other.legacy_bundle(1..=5), "signedPreKeySignature");
    let legacy_node = format!("{LEGACY}.bundles:{}", PHONE.id);
    for (node, id, bundle) in [(BUNDLES, "1001", omemo2), (legacy_node.as_str(), "current", legacy)] {
        let answer = alice.request("set", Some(ALICE), &publish(node, id, &bundle)).await;
        assert_eq!(error_condition(&answer), Some("bad-request"));
        let text = String::from(&answer);
        assert!(text.contains("invalid-payload") && text.contains("signature"), "{text}");
        assert_eq!(refused(&mut alice, "get", ALICE, &items(node, &[])).await, "item-not-found");
    }
}

#[tokio::test]
async fn the_legacy_protocol_is_served_beside_omemo_2() {
    let setup = setup("");
    let mut alice = setup.client("alice", "phone").await;
    let node = format!("{LEGACY}.bundles:{}", PHONE.id);
    let list = format!("<list xmlns='{LEGACY}'><device id='{}'/></list>", PHONE.id);
    let mut bob = setup.client("bob", "phone").await;

    let missing = bob.request("get", Some(ALICE), &items(LEGACY_LIST, &[])).await;
    assert_eq!(error_condition(&missing), Some("item-not-found"));
    let error = missing.children().find(|child| child.name() == "error").unwrap();
    assert_eq!(error.attr("code"), Some("404"), "clients look at the legacy code");

    ok(&mut alice, "set", ALICE, &publish(&node, "current", &PHONE.legacy_bundle(1..=100))).await;
    ok(&mut alice, "set", ALICE, &publish(LEGACY_LIST, "current", &list)).await;
    let answer = ok(&mut bob, "get", ALICE, &items(LEGACY_LIST, &[])).await;
    assert_eq!(ids_of(&items_of(&answer)[0].1), [PHONE.id]);
    let answer = ok(&mut bob, "get", ALICE, &items(&node, &[])).await;
    assert_eq!(prekeys_of(&items_of(&answer)[0].1).len(), 1);
    let own = ok(&mut alice, "get", ALICE, &items(&node, &[])).await;
    assert_eq!(prekeys_of(&items_of(&own)[0].1).len(), 100);
}

#[tokio::test]
async fn directory_10_anybody_reads_and_only_the_owner_writes() {
    let setup = setup("");
    let mut alice = setup.client("alice", "phone").await;
    publish_phone(&mut alice, 1..=5).await;
    let mut bob = setup.client("bob", "phone").await;
    ok(&mut bob, "get", ALICE, &items(DEVICES, &[])).await;
    let other = TestDevice { id: 5, seed: 5 };
    for (kind, payload) in [
        ("set", publish(DEVICES, "current", &devices(&[5]))),
        ("set", publish(BUNDLES, "5", &other.bundle(1..=5))),
        ("set", format!("<pubsub xmlns='{PUBSUB}'><retract node='{BUNDLES}'><item id='1001'/></retract></pubsub>")),
        ("set", format!("<pubsub xmlns='{PUBSUB}#owner'><delete node='{DEVICES}'/></pubsub>")),
    ] {
        assert_eq!(refused(&mut bob, kind, ALICE, &payload).await, "forbidden", "{payload}");
    }
    let list = items_of(&ok(&mut bob, "get", ALICE, &items(DEVICES, &[])).await).remove(0).1;
    assert_eq!(ids_of(&list), [PHONE.id]);
}

#[tokio::test]
async fn bundles_of_several_devices_are_fetched_at_once() {
    let setup = setup("");
    let mut alice = setup.client("alice", "phone").await;
    let ids = [11, 12, 13];
    for id in ids {
        let device = TestDevice { id, seed: u8::try_from(id).unwrap() };
        ok(&mut alice, "set", ALICE, &publish(BUNDLES, &id.to_string(), &device.bundle(1..=3))).await;
    }
    ok(&mut alice, "set", ALICE, &publish(DEVICES, "current", &devices(&[11, 12, 13, 14]))).await;
    let mut bob = setup.client("bob", "phone").await;
    for asked in [vec![], vec!["11", "12", "13", "14"]] {
        let answer = ok(&mut bob, "get", ALICE, &items(BUNDLES, &asked)).await;
        let got: BTreeSet<String> = items_of(&answer).into_iter().map(|(id, _)| id).collect();
        assert_eq!(got, ids.iter().map(u32::to_string).collect(), "a device without a bundle is left out");
    }
    assert_eq!(refused(&mut bob, "get", ALICE, &items(BUNDLES, &["14"])).await, "item-not-found");
}

#[tokio::test]
async fn bad_input_gets_the_error_that_its_xep_names_and_the_stream_goes_on() {
    let setup = setup("[directory]\nmax_devices = 4\n");
    let mut alice = setup.client("alice", "phone").await;
    let bundle = PHONE.bundle(1..=5);
    let long_id = "x".repeat(256);
    let many = devices(&[1, 2, 3, 4, 5]);
    let cases = [
        ("unknown namespace", "get", ALICE, "<query xmlns='urn:nobody:knows'/>".to_owned(), "service-unavailable"),
        ("unknown node", "get", ALICE, items("urn:xmpp:avatar:metadata", &[]), "item-not-found"),
        ("unknown account", "get", r"nobody\40example.org@multiend.example.org", items(DEVICES, &[]), "item-not-found"),
        ("foreign domain", "get", r"eve\40evil.example@multiend.example.org", items(DEVICES, &[]), "item-not-found"),
        ("no node", "get", ALICE, format!("<pubsub xmlns='{PUBSUB}'><items/></pubsub>"), "bad-request"),
        ("empty pubsub", "set", ALICE, format!("<pubsub xmlns='{PUBSUB}'/>"), "bad-request"),
        ("over-long item id", "set", ALICE, publish(BUNDLES, &long_id, &bundle), "bad-request"),
        ("item id that is no device", "set", ALICE, publish(BUNDLES, "current", &bundle), "bad-request"),
        (
            "prekey id 0",
            "set",
            ALICE,
            publish(BUNDLES, "1001", &bundle.replace("<pk id='1'", "<pk id='0'")),
            "bad-request",
        ),
        (
            "prekey id above 2^31-1",
            "set",
            ALICE,
            publish(BUNDLES, "1001", &bundle.replace("<pk id='1'", "<pk id='2147483648'")),
            "bad-request",
        ),
        (
            "duplicate prekey ids",
            "set",
            ALICE,
            publish(BUNDLES, "1001", &bundle.replace("<pk id='1'", "<pk id='2'")),
            "bad-request",
        ),
        ("no prekeys", "set", ALICE, publish(BUNDLES, "1001", &PHONE.bundle([])), "bad-request"),
        ("duplicate devices", "set", ALICE, publish(DEVICES, "current", &devices(&[3, 3])), "bad-request"),
        ("device id 0", "set", ALICE, publish(DEVICES, "current", &devices(&[0])), "bad-request"),
        ("too many devices", "set", ALICE, publish(DEVICES, "current", &many), "policy-violation"),
        ("another payload", "set", ALICE, publish(DEVICES, "current", "<a xmlns='urn:a'/>"), "bad-request"),
        (
            "somebody else's subscription",
            "set",
            ALICE,
            format!("<pubsub xmlns='{PUBSUB}'><subscribe node='{DEVICES}' jid='bob@example.org'/></pubsub>"),
            "bad-request",
        ),
        (
            "node creation",
            "set",
            ALICE,
            format!("<pubsub xmlns='{PUBSUB}'><create node='{DEVICES}'/></pubsub>"),
            "feature-not-implemented",
        ),
    ];
    for (what, kind, to, payload, expected) in cases {
        let answer = alice.request(kind, Some(to), &payload).await;
        assert_eq!(error_condition(&answer), Some(expected), "{what}: {}", String::from(&answer));
        let error = answer.children().find(|child| child.name() == "error").unwrap();
        let text = error.children().find(|child| child.name() == "text").map(Element::text).unwrap_or_default();
        assert!(text.len() > 5, "{what}: a person needs a text");
    }
    for node in [DEVICES, BUNDLES] {
        assert_eq!(refused(&mut alice, "get", ALICE, &items(node, &[])).await, "item-not-found", "nothing was stored");
    }
    ok(&mut alice, "get", COMPONENT, "<ping xmlns='urn:xmpp:ping'/>").await;
    let info = ok(&mut alice, "get", ALICE, "<query xmlns='http://jabber.org/protocol/disco#info'/>").await;
    assert!(String::from(&info).contains(OMEMO_2) || String::from(&info).contains(PUBSUB));
}
