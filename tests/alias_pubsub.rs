//! Pubsub in the shapes that real clients send, through the alias door of a real Prosody. Every reply is read with the typed
//! parsers of xmpp-parsers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use minidom::Element;
use support::multiend::Multiend;
use support::omemo::{LEGACY, PUBSUB, TestDevice, devices, ids_of, items, items_of, prekeys_of, publish};
use support::prosody::Prosody;
use support::xmpp::{Client, error_condition};
use support::{COMPONENT, DOMAIN, typed};

const DEVICES: &str = "urn:xmpp:omemo:2:devices";
const BUNDLES: &str = "urn:xmpp:omemo:2:bundles";
const LEGACY_LIST: &str = "eu.siacs.conversations.axolotl.devicelist";
const ALICE: &str = r"alice\40example.org@multiend.example.org";
const PHONE: TestDevice = TestDevice { id: 1001, seed: 1 };
const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";

struct Setup {
    prosody: Prosody,
    _multiend: Multiend,
}

fn setup() -> Setup {
    let prosody = Prosody::builder().users(&["alice", "bob"]).multiend().start();
    let multiend = Multiend::builder(prosody.component_port()).start();
    Setup { prosody, _multiend: multiend }
}

impl Setup {
    async fn client(&self, user: &str, resource: &str) -> Client {
        let mut client = Client::connect(self.prosody.c2s_port(), DOMAIN, user, resource).await;
        client.online().await;
        client
    }
}

async fn ask(client: &mut Client, kind: &str, to: &str, payload: &str) -> Element {
    let answer = client.request(kind, Some(to), payload).await;
    typed::read(&answer);
    answer
}

async fn ok(client: &mut Client, kind: &str, to: &str, payload: &str) -> Element {
    let answer = ask(client, kind, to, payload).await;
    assert_eq!(answer.attr("type"), Some("result"), "{payload}\n=> {}", String::from(&answer));
    answer
}

/// The defined condition and that of XEP-0060, with its feature.
async fn refused(client: &mut Client, kind: &str, to: &str, payload: &str) -> (String, String) {
    let answer = ask(client, kind, to, payload).await;
    assert_eq!(answer.attr("type"), Some("error"), "{payload}\n=> {}", String::from(&answer));
    let error = answer.children().find(|child| child.name() == "error").unwrap();
    let pubsub = error.children().find(|child| child.ns() == "http://jabber.org/protocol/pubsub#errors");
    let pubsub = pubsub.map(|pubsub| format!("{}{}", pubsub.name(), pubsub.attr("feature").unwrap_or_default()));
    (error_condition(&answer).expect("a condition").to_owned(), pubsub.unwrap_or_default())
}

fn form(form_type: &str, fields: &[(&str, &str)]) -> String {
    let fields: String =
        fields.iter().map(|(var, value)| format!("<field var='pubsub#{var}'><value>{value}</value></field>")).collect();
    format!(
        "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'>\
         <value>http://jabber.org/protocol/pubsub#{form_type}</value></field>{fields}</x>"
    )
}

/// A publish with publish-options, under an item id or under none.
fn publish_with(node: &str, id: Option<&str>, payload: &str, options: &[(&str, &str)]) -> String {
    let id = id.map(|id| format!(" id='{id}'")).unwrap_or_default();
    format!(
        "<pubsub xmlns='{PUBSUB}'><publish node='{node}'><item{id}>{payload}</item></publish>\
         <publish-options>{}</publish-options></pubsub>",
        form("publish-options", options)
    )
}

fn owner(verb: &str, node: &str, inner: &str) -> String {
    format!("<pubsub xmlns='{PUBSUB}#owner'><{verb} node='{node}'>{inner}</{verb}></pubsub>")
}

fn disco(namespace: &str, node: Option<&str>) -> String {
    let node = node.map(|node| format!(" node='{node}'")).unwrap_or_default();
    format!("<query xmlns='{namespace}'{node}/>")
}

fn legacy_list(ids: &[u32]) -> String {
    let ids: String = ids.iter().map(|id| format!("<device id='{id}'/>")).collect();
    format!("<list xmlns='{LEGACY}'>{ids}</list>")
}

#[tokio::test]
async fn lists_and_bundles_are_published_in_every_shape_that_clients_use() {
    let setup = setup();
    let mut alice = setup.client("alice", "phone").await;
    let mut bob = setup.client("bob", "phone").await;
    let legacy_bundles = format!("{LEGACY}.bundles:{}", PHONE.id);
    let options: [&[(&str, &str)]; 4] = [
        &[],
        &[("access_model", "open")],
        &[("access_model", "open"), ("persist_items", "true"), ("max_items", "1")],
        &[("access_model", "open"), ("max_items", "max"), ("send_last_published_item", "on_sub_and_presence")],
    ];
    for (round, options) in options.into_iter().enumerate() {
        // With each item id that was seen, and without one; to the alias and to the component.
        let to = [ALICE, COMPONENT][round % 2];
        for id in [Some("current"), Some("1"), None] {
            ok(&mut alice, "set", to, &publish_with(DEVICES, id, &devices(&[PHONE.id]), options)).await;
            ok(&mut alice, "set", to, &publish_with(LEGACY_LIST, id, &legacy_list(&[PHONE.id]), options)).await;
            let bundle = PHONE.legacy_bundle(1..=99);
            let answer = ok(&mut alice, "set", to, &publish_with(&legacy_bundles, id, &bundle, options)).await;
            let item = answer.children().next().unwrap().children().next().unwrap().children().next().unwrap();
            assert_eq!(item.attr("id"), Some(id.unwrap_or("current")));
        }
        let id = PHONE.id.to_string();
        ok(&mut alice, "set", to, &publish_with(BUNDLES, Some(&id), &PHONE.bundle(1..=99), options)).await;
    }
    for node in [DEVICES, LEGACY_LIST] {
        let list = items_of(&ok(&mut bob, "get", ALICE, &items(node, &[])).await).remove(0).1;
        assert_eq!(ids_of(&list), [PHONE.id]);
    }
    for node in [BUNDLES, legacy_bundles.as_str()] {
        let bundle = items_of(&ok(&mut bob, "get", ALICE, &items(node, &[])).await).remove(0).1;
        assert_eq!(prekeys_of(&bundle).len(), 1);
    }
    // A client sends no `to` for what is its own; that goes to its own server and is none of ours. To the component it is.
    let own = ok(&mut alice, "get", COMPONENT, &items(&legacy_bundles, &[])).await;
    assert_eq!(prekeys_of(&items_of(&own)[0].1).len(), 99);
}

#[tokio::test]
async fn items_are_fetched_all_by_id_and_up_to_a_number() {
    let setup = setup();
    let mut alice = setup.client("alice", "phone").await;
    for id in [11, 12, 13] {
        let device = TestDevice { id, seed: u8::try_from(id).unwrap() };
        ok(&mut alice, "set", ALICE, &publish(BUNDLES, &id.to_string(), &device.bundle(1..=3))).await;
    }
    ok(&mut alice, "set", ALICE, &publish(DEVICES, "current", &devices(&[11, 12, 13]))).await;
    let mut bob = setup.client("bob", "phone").await;
    let newest =
        |node: &str, max: &str| format!("<pubsub xmlns='{PUBSUB}'><items node='{node}' max_items='{max}'/></pubsub>");
    for client in [&mut alice, &mut bob] {
        for (request, count) in [
            (items(BUNDLES, &[]), 3),
            (items(BUNDLES, &["12", "13"]), 2),
            (items(BUNDLES, &["12", "99", "not-a-device"]), 1),
            (newest(BUNDLES, "2"), 2),
            (newest(DEVICES, "1"), 1),
            (items(DEVICES, &["current"]), 1),
        ] {
            assert_eq!(items_of(&ok(client, "get", ALICE, &request).await).len(), count, "{request}");
        }
        assert_eq!(refused(client, "get", ALICE, &items(BUNDLES, &["99"])).await.0, "item-not-found");
        assert_eq!(refused(client, "get", ALICE, &newest(DEVICES, "none")).await.0, "bad-request");
    }
}

#[tokio::test]
async fn a_publish_is_refused_only_for_what_it_would_not_get_and_a_configuration_says_the_same() {
    let setup = setup();
    let mut alice = setup.client("alice", "phone").await;
    let list = devices(&[PHONE.id]);
    for options in
        [[("access_model", "whitelist")], [("access_model", "presence")], [("persist_items", "0")], [("unheard", "1")]]
    {
        let (condition, pubsub) =
            refused(&mut alice, "set", ALICE, &publish_with(DEVICES, Some("current"), &list, &options)).await;
        assert_eq!((condition.as_str(), pubsub.as_str()), ("conflict", "precondition-not-met"), "{options:?}");
    }
    assert_eq!(refused(&mut alice, "get", ALICE, &items(DEVICES, &[])).await.0, "item-not-found", "nothing was stored");
    assert_eq!(refused(&mut alice, "get", ALICE, &owner("configure", DEVICES, "")).await.0, "item-not-found");

    ok(&mut alice, "set", ALICE, &publish(DEVICES, "current", &list)).await;
    let configuration = ok(&mut alice, "get", ALICE, &owner("configure", DEVICES, "")).await;
    let text = String::from(&configuration);
    assert!(text.contains("pubsub#access_model") && text.contains("node_config"), "{text}");
    // What was given out may be given back, as slixmpp does; what differs is not acceptable.
    let given = configuration.children().next().unwrap().children().next().unwrap().children().next().unwrap();
    let given = String::from(given).replace("type='form'", "type='submit'").replace("type=\"form\"", "type=\"submit\"");
    ok(&mut alice, "set", ALICE, &owner("configure", DEVICES, &given)).await;
    let open = form("node_config", &[("access_model", "open"), ("max_items", "max")]);
    ok(&mut alice, "set", ALICE, &owner("configure", DEVICES, &open)).await;
    ok(&mut alice, "set", ALICE, &owner("configure", DEVICES, "<x xmlns='jabber:x:data' type='cancel'/>")).await;
    let closed = form("node_config", &[("access_model", "whitelist")]);
    let (condition, _) = refused(&mut alice, "set", ALICE, &owner("configure", DEVICES, &closed)).await;
    assert_eq!(condition, "not-acceptable");
    assert_eq!(refused(&mut alice, "set", ALICE, &owner("configure", DEVICES, "")).await.0, "bad-request");
    ok(&mut alice, "get", ALICE, &format!("<pubsub xmlns='{PUBSUB}#owner'><default/></pubsub>")).await;

    let mut bob = setup.client("bob", "phone").await;
    for payload in [owner("configure", DEVICES, &open), owner("configure", DEVICES, &closed)] {
        assert_ne!(ask(&mut bob, "set", ALICE, &payload).await.attr("type"), Some("result"));
    }
    assert_eq!(refused(&mut bob, "get", ALICE, &owner("configure", DEVICES, "")).await.0, "forbidden");
}

#[tokio::test]
async fn subscribers_are_told_of_new_lists_retractions_and_deletions() {
    let setup = setup();
    let mut alice = setup.client("alice", "phone").await;
    let mut bob = setup.client("bob", "phone").await;
    ok(&mut alice, "set", ALICE, &publish(DEVICES, "current", &devices(&[1]))).await;
    let subscription = |verb: &str, node: &str, jid: &str| {
        format!("<pubsub xmlns='{PUBSUB}'><{verb} node='{node}' jid='{jid}'/></pubsub>")
    };
    let all = format!("<pubsub xmlns='{PUBSUB}'><subscriptions/></pubsub>");
    let subscribed = |answer: &Element| answer.children().next().unwrap().children().next().unwrap().children().count();
    assert_eq!(subscribed(&ok(&mut bob, "get", ALICE, &all).await), 0);
    ok(&mut bob, "set", ALICE, &subscription("subscribe", DEVICES, "bob@example.org")).await;
    ok(&mut bob, "set", ALICE, &subscription("subscribe", LEGACY_LIST, "bob@example.org/phone")).await;
    assert_eq!(subscribed(&ok(&mut bob, "get", ALICE, &all).await), 2);
    let one = format!("<pubsub xmlns='{PUBSUB}'><subscriptions node='{DEVICES}'/></pubsub>");
    assert_eq!(subscribed(&ok(&mut bob, "get", ALICE, &one).await), 1);
    assert_eq!(subscribed(&ok(&mut alice, "get", ALICE, &all).await), 0, "nobody learns of others");

    ok(&mut alice, "set", ALICE, &publish(DEVICES, "current", &devices(&[1, 2]))).await;
    let retract = format!(
        "<pubsub xmlns='{PUBSUB}'><retract node='{DEVICES}' notify='true'><item id='current'/></retract></pubsub>"
    );
    ok(&mut alice, "set", ALICE, &retract).await;
    ok(&mut alice, "set", ALICE, &publish(LEGACY_LIST, "current", &legacy_list(&[4]))).await;
    ok(&mut alice, "set", ALICE, &owner("delete", LEGACY_LIST, "")).await;
    for (what, expected) in [
        ("the list", vec![DEVICES, "'2'"]),
        ("the retraction", vec!["retract", "current"]),
        ("the legacy list", vec![LEGACY_LIST, "'4'"]),
        ("the deletion", vec!["delete", LEGACY_LIST]),
    ] {
        let event = bob.wait_for(what, |stanza| stanza.name() == "message").await;
        typed::read(&event);
        let text = String::from(&event).replace('"', "'");
        assert!(expected.iter().all(|part| text.contains(part)), "{what}: {text}");
        assert_eq!((event.attr("from"), event.attr("type")), (Some(ALICE), Some("headline")));
    }
    ok(&mut bob, "set", ALICE, &subscription("unsubscribe", DEVICES, "bob@example.org")).await;
    let again = refused(&mut bob, "set", ALICE, &subscription("unsubscribe", DEVICES, "bob@example.org")).await;
    assert_eq!(again.1, "not-subscribed");
    let (condition, feature) =
        refused(&mut bob, "set", ALICE, &subscription("subscribe", BUNDLES, "bob@example.org")).await;
    assert_eq!((condition.as_str(), feature.as_str()), ("feature-not-implemented", "unsupportedsubscribe"));
}

#[tokio::test]
async fn what_there_is_can_be_discovered() {
    let setup = setup();
    let mut alice = setup.client("alice", "phone").await;
    let mut bob = setup.client("bob", "phone").await;
    let legacy_bundles = format!("{LEGACY}.bundles:{}", PHONE.id);
    for node in [DEVICES, BUNDLES, &legacy_bundles] {
        assert_eq!(refused(&mut bob, "get", ALICE, &disco(DISCO_INFO, Some(node))).await.0, "item-not-found");
        assert_eq!(refused(&mut bob, "get", ALICE, &disco(DISCO_ITEMS, Some(node))).await.0, "item-not-found");
    }
    ok(&mut alice, "set", ALICE, &publish(DEVICES, "current", &devices(&[PHONE.id]))).await;
    ok(&mut alice, "set", ALICE, &publish(BUNDLES, "1001", &PHONE.bundle(1..=3))).await;
    ok(&mut alice, "set", ALICE, &publish(&legacy_bundles, "current", &PHONE.legacy_bundle(1..=3))).await;

    let info = String::from(&ok(&mut bob, "get", ALICE, &disco(DISCO_INFO, None)).await).replace('"', "'");
    for part in ["type='pep'", "pubsub#publish-options", "pubsub#config-node", "urn:multiend:0#claim"] {
        assert!(info.contains(part), "{part}: {info}");
    }
    for (client, to) in [(&mut bob, ALICE), (&mut alice, COMPONENT)] {
        let listed = ok(client, "get", to, &disco(DISCO_ITEMS, None)).await;
        let nodes: Vec<_> =
            listed.children().next().unwrap().children().map(|item| item.attr("node").unwrap()).collect();
        assert_eq!(nodes, [&legacy_bundles, DEVICES, BUNDLES], "{to}");
        for (node, name) in [(DEVICES, "current"), (BUNDLES, "1001"), (&legacy_bundles, "current")] {
            let info = String::from(&ok(client, "get", to, &disco(DISCO_INFO, Some(node))).await).replace('"', "'");
            assert!(info.contains("type='leaf'") && info.contains("pubsub#meta-data"), "{info}");
            let named = ok(client, "get", to, &disco(DISCO_ITEMS, Some(node))).await;
            let names: Vec<_> =
                named.children().next().unwrap().children().map(|item| item.attr("name").unwrap()).collect();
            assert_eq!(names, [name]);
        }
    }
    let affiliations = format!("<pubsub xmlns='{PUBSUB}'><affiliations/></pubsub>");
    let own = String::from(&ok(&mut alice, "get", ALICE, &affiliations).await);
    assert_eq!(own.matches("owner").count(), 3, "{own}");
    let others = String::from(&ok(&mut bob, "get", ALICE, &affiliations).await);
    assert_eq!(others.matches("owner").count(), 0, "{others}");
    assert_eq!(
        refused(&mut bob, "get", ALICE, &disco(DISCO_INFO, Some("urn:xmpp:avatar:data"))).await.0,
        "item-not-found"
    );
}

/// A session that has only asked what there is has not seen who is listed, and cannot remove anybody by what it publishes.
#[tokio::test]
async fn directory_6_discovering_a_list_is_not_seeing_it() {
    let setup = setup();
    let mut phone = setup.client("alice", "phone").await;
    let mut laptop = setup.client("alice", "laptop").await;
    ok(&mut phone, "set", ALICE, &publish(DEVICES, "current", &devices(&[1]))).await;
    for query in [disco(DISCO_ITEMS, None), disco(DISCO_ITEMS, Some(DEVICES)), disco(DISCO_INFO, Some(DEVICES))] {
        ok(&mut laptop, "get", ALICE, &query).await;
    }
    ok(&mut laptop, "get", ALICE, &owner("configure", DEVICES, "")).await;
    ok(&mut laptop, "set", ALICE, &publish(DEVICES, "current", &devices(&[2]))).await;
    let list = items_of(&ok(&mut laptop, "get", ALICE, &items(DEVICES, &[])).await).remove(0).1;
    assert_eq!(ids_of(&list), [2, 1]);
}

#[tokio::test]
async fn what_is_no_node_of_omemo_s_is_refused_as_the_specification_says() {
    let setup = setup();
    let mut alice = setup.client("alice", "phone").await;
    let pubsub = |inner: &str| format!("<pubsub xmlns='{PUBSUB}'>{inner}</pubsub>");
    for (kind, payload, condition, pubsub) in [
        ("get", items("urn:xmpp:avatar:metadata", &[]), "item-not-found", ""),
        ("set", publish("urn:xmpp:avatar:metadata", "x", "<a xmlns='urn:a'/>"), "item-not-found", ""),
        ("set", publish("eu.siacs.conversations.axolotl.bundles:0", "x", "<a xmlns='urn:a'/>"), "item-not-found", ""),
        ("set", pubsub("<create node='x'/>"), "feature-not-implemented", "unsupportedcreate-nodes"),
        (
            "get",
            pubsub("<options node='x' jid='alice@example.org'/>"),
            "feature-not-implemented",
            "unsupportedsubscription-options",
        ),
        ("get", pubsub("<default/>"), "feature-not-implemented", "unsupportedretrieve-default-sub"),
        ("set", owner("purge", DEVICES, ""), "feature-not-implemented", "unsupportedpurge-nodes"),
        ("get", owner("subscriptions", DEVICES, ""), "feature-not-implemented", "unsupportedmanage-subscriptions"),
        ("get", owner("affiliations", DEVICES, ""), "feature-not-implemented", "unsupportedmodify-affiliations"),
        ("set", pubsub(&format!("<publish node='{DEVICES}'/>")), "bad-request", "item-required"),
        ("set", pubsub(&format!("<publish node='{DEVICES}'><item/></publish>")), "bad-request", "payload-required"),
        ("set", pubsub("<publish><item/></publish>"), "bad-request", "nodeid-required"),
        ("set", pubsub(&format!("<retract node='{DEVICES}'/>")), "bad-request", "item-required"),
    ] {
        let got = refused(&mut alice, kind, ALICE, &payload).await;
        assert_eq!((got.0.as_str(), got.1.as_str()), (condition, pubsub), "{payload}");
    }
    let missing = alice.request("get", Some(ALICE), &items(LEGACY_LIST, &[])).await;
    let error = missing.children().find(|child| child.name() == "error").unwrap();
    assert_eq!(error.attr("code"), Some("404"), "one client publishes its first list only for this");
}
