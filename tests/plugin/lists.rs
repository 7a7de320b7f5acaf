//! Device lists in the server's own PEP: announced there, decided in the directory, taken over from before.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minidom::Element;
use sha1::{Digest as _, Sha1};

use crate::support::DOMAIN;
use crate::support::multiend::Multiend;
use crate::support::omemo::{PUBSUB, TestDevice, devices, ids_of, items, items_of, prekeys_of, publish};
use crate::support::plugin::{Kind, Server as _};
use crate::support::process::poll_async;
use crate::support::xmpp::{Client, DEADLINE, error_condition};
use crate::{ALICE, BOB, BUNDLES, DEVICES, Deployment, LEGACY_LIST, Server, Setup};

const EVENT: &str = "http://jabber.org/protocol/pubsub#event";

/// Goes online as a client that wants to be told of device lists, and answers the server's question for its features.
pub async fn online_with_notify(client: &mut Client) {
    // Each is a program of its own, for servers do not ask twice for what they have been told.
    let program = client.jid().to_owned();
    announce_features(client, &program).await;
    answer_for_features(client).await;
}

/// Sends presence with the features of a program of this name, as their hash (XEP-0115 §5.1).
async fn announce_features(client: &mut Client, program: &str) {
    let version = Sha1::digest(format!("client/pc//{program}<{LEGACY_LIST}+notify<{DEVICES}+notify<"));
    let caps = format!(
        "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:example:test' ver='{}'/>",
        STANDARD.encode(version)
    );
    client.send_raw(&format!("<presence>{caps}</presence>")).await;
}

/// Answers a server's question for its features.
pub async fn answer_for_features(client: &mut Client) {
    let question =
        client.wait_for("the question for features", |e| e.name() == "iq" && e.attr("type") == Some("get")).await;
    let node = question.children().next().and_then(|query| query.attr("node")).unwrap();
    let feature = |node: &str| format!("<feature var='{node}+notify'/>");
    let (from, id, program) = (question.attr("from").unwrap(), question.attr("id").unwrap(), client.jid().to_owned());
    client
        .send_raw(&format!(
            "<iq type='result' id='{id}' to='{from}'><query xmlns='http://jabber.org/protocol/disco#info' node='{node}'>\
             <identity category='client' type='pc' name='{program}'/>{}{}</query></iq>",
            feature(DEVICES),
            feature(LEGACY_LIST)
        ))
        .await;
}

/// The ids in the next notification about a node from an account; `None` if it was deleted.
pub async fn notified(client: &mut Client, account: &str, node: &str) -> Option<Vec<u32>> {
    let about = |e: &Element| {
        let event = e.get_child("event", EVENT)?;
        let child = event.children().next()?;
        (e.attr("from") == Some(account) && child.attr("node") == Some(node)).then(|| child.clone())
    };
    let message = client.wait_for("a notification", |e| about(e).is_some()).await;
    let items = about(&message).unwrap();
    let item = items.children().next()?;
    Some(ids_of(item.children().next()?))
}

/// The list that anybody is given, as `client` sees it.
async fn list(client: &mut Client) -> Vec<u32> {
    let answer = client.request("get", Some(ALICE), &items(DEVICES, &[])).await;
    ids_of(&items_of(&answer)[0].1)
}

#[tokio::test]
async fn the_merged_list_is_announced_by_the_server_itself() {
    let setup = Setup::start(&["alice", "bob"]);
    let mut phone = Client::connect(setup.server.c2s_port(), DOMAIN, "alice", "phone").await;
    let mut laptop = Client::connect(setup.server.c2s_port(), DOMAIN, "alice", "laptop").await;
    let mut bob = setup.client("bob", "phone").await;
    online_with_notify(&mut phone).await;
    online_with_notify(&mut laptop).await;
    phone.request("set", None, &publish(DEVICES, "current", &devices(&[1]))).await;
    assert_eq!(notified(&mut laptop, ALICE, DEVICES).await, Some(vec![1]));
    // Bob, no contact of alice's, subscribes at the server, as some clients do.
    let subscribe = format!("<pubsub xmlns='{PUBSUB}'><subscribe node='{DEVICES}' jid='{BOB}'/></pubsub>");
    assert_eq!(bob.request("set", Some(ALICE), &subscribe).await.attr("type"), Some("result"));
    // A third session that has seen nothing cannot remove what it has not seen.
    let mut tablet = setup.client("alice", "tablet").await;
    tablet.request("set", Some(ALICE), &publish(DEVICES, "1", &devices(&[7]))).await;
    for client in [&mut phone, &mut laptop] {
        let merged = poll_async("the merged list", DEADLINE, async || {
            notified(client, ALICE, DEVICES).await.filter(|ids| ids.len() == 2)
        });
        assert_eq!(merged.await, [7, 1]);
    }
    let told = poll_async("the merged list", DEADLINE, async || {
        notified(&mut bob, ALICE, DEVICES).await.filter(|ids| ids.len() == 2)
    });
    assert_eq!(told.await, [7, 1]);
    // Who comes online later is given the last list.
    let mut late = Client::connect(setup.server.c2s_port(), DOMAIN, "alice", "late").await;
    match Server::KIND {
        Kind::Prosody => online_with_notify(&mut late).await,
        // This one gives the last item only to whose features it knew before.
        Kind::Ejabberd => announce_features(&mut late, phone.jid()).await,
    }
    assert_eq!(notified(&mut late, ALICE, DEVICES).await, Some(vec![7, 1]));
    // And a list that is deleted is gone there too.
    phone.request("get", None, &items(DEVICES, &[])).await;
    let delete = format!("<pubsub xmlns='{PUBSUB}#owner'><delete node='{DEVICES}'/></pubsub>");
    assert_eq!(phone.request("set", None, &delete).await.attr("type"), Some("result"));
    assert_eq!(notified(&mut late, ALICE, DEVICES).await, None);
    let gone = bob.request("get", Some(ALICE), &items(DEVICES, &[])).await;
    assert_eq!(error_condition(&gone), Some("item-not-found"));
}

#[tokio::test]
async fn a_list_that_changes_through_another_door_is_announced() {
    let setup = Setup::start(&["alice"]);
    let mut phone = Client::connect(setup.server.c2s_port(), DOMAIN, "alice", "phone").await;
    online_with_notify(&mut phone).await;
    let mut other = setup.client("alice", "other").await;
    let alias = r"alice\40example.org@multiend.example.org";
    let answer = other.request("set", Some(alias), &publish(DEVICES, "current", &devices(&[9]))).await;
    assert_eq!(answer.attr("type"), Some("result"));
    assert_eq!(notified(&mut phone, ALICE, DEVICES).await, Some(vec![9]));
}

#[tokio::test]
async fn what_an_operator_does_to_devices_is_announced() {
    let setup = Setup::start(&["alice", "bob"]);
    let mut phone = Client::connect(setup.server.c2s_port(), DOMAIN, "alice", "phone").await;
    online_with_notify(&mut phone).await;
    phone.request("set", None, &publish(DEVICES, "current", &devices(&[1, 2, 3]))).await;
    assert_eq!(notified(&mut phone, ALICE, DEVICES).await, Some(vec![1, 2, 3]));
    for (verb, device, left) in [("quarantine", "2", vec![1, 3]), ("remove", "3", vec![1]), ("revive", "2", vec![1, 2])]
    {
        let (status, _, errors) = setup.multiend.command(&["admin", verb, ALICE, "omemo2", device]);
        assert!(status.success(), "{verb}: {errors}");
        poll_async(&format!("the list after {verb}"), DEADLINE, async || {
            let mut told = notified(&mut phone, ALICE, DEVICES).await?;
            told.sort_unstable();
            (told == left).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_list_that_is_retracted_is_gone_from_the_server_s_own_pep() {
    let setup = Setup::start(&["alice", "bob"]);
    let (mut phone, mut bob) = (setup.client("alice", "phone").await, setup.client("bob", "phone").await);
    for (node, list) in [
        (DEVICES, devices(&[1])),
        (LEGACY_LIST, "<list xmlns='eu.siacs.conversations.axolotl'><device id='5'/></list>".to_owned()),
    ] {
        phone.request("set", None, &publish(node, "current", &list)).await;
        let nodes = "<query xmlns='http://jabber.org/protocol/disco#items'/>";
        assert!(String::from(&phone.request("get", Some(ALICE), nodes).await).contains(node));
        phone.request("get", None, &items(node, &[])).await;
        let retract =
            format!("<pubsub xmlns='{PUBSUB}'><retract node='{node}'><item id='current'/></retract></pubsub>");
        let answer = phone.request("set", None, &retract).await;
        assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
        let gone = bob.request("get", Some(ALICE), &items(node, &[])).await;
        assert_eq!(error_condition(&gone), Some("item-not-found"));
        poll_async("its end in PEP", DEADLINE, async || {
            (!String::from(&phone.request("get", Some(ALICE), nodes).await).contains(node)).then_some(())
        })
        .await;
    }
}

/// Makes a node for the bundles of several devices: a node of PEP has one item unless it is asked for more.
async fn keep_several_bundles(client: &mut Client) {
    let form = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'>\
                <value>http://jabber.org/protocol/pubsub#node_config</value></field>\
                <field var='pubsub#max_items'><value>10</value></field></x>";
    let create = format!("<pubsub xmlns='{PUBSUB}'><create node='{BUNDLES}'/><configure>{form}</configure></pubsub>");
    let answer = client.request("set", None, &create).await;
    assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
}

#[tokio::test]
async fn a_device_that_is_added_by_itself_is_announced_before_it_is_told_so() {
    let setup = Setup::start(&["alice", "bob"]);
    let mut phone = setup.client("alice", "phone").await;
    // The account says what it can do, as soon as the plugin has asked the component.
    poll_async("the features", DEADLINE, async || {
        let disco = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
        let account = String::from(&phone.request("get", Some(ALICE), disco).await);
        let has = |feature: &str| account.contains(&format!("'{feature}'"));
        ["urn:multiend:0", "urn:multiend:0#devices", "urn:xmpp:mam:2"].into_iter().all(has).then_some(())
    })
    .await;
    let add = |id: u32| format!("<add-device xmlns='urn:multiend:0' protocol='urn:xmpp:omemo:2' device='{id}'/>");
    assert_eq!(phone.request("set", None, &add(1)).await.attr("type"), Some("result"));
    // The node is in the server's own PEP by now, and who subscribes to it is told of the next device.
    let subscribe = format!("<pubsub xmlns='{PUBSUB}'><subscribe node='{DEVICES}' jid='{ALICE}'/></pubsub>");
    assert_eq!(phone.request("set", None, &subscribe).await.attr("type"), Some("result"));
    let mut laptop = setup.client("alice", "laptop").await;
    assert_eq!(laptop.request("set", None, &add(2)).await.attr("type"), Some("result"));
    let told = poll_async("the longer list", DEADLINE, async || {
        notified(&mut phone, ALICE, DEVICES).await.filter(|ids| ids.len() == 2)
    });
    let mut told = told.await;
    told.sort_unstable();
    assert_eq!(told, [1, 2]);
}

#[tokio::test]
async fn what_pep_had_before_is_taken_over_once() {
    // A stock server: the plugin is there but not enabled.
    let mut server = Deployment::new(&["alice", "bob"]).start();
    let with_plugin = std::fs::read_to_string(server.config_path()).unwrap();
    std::fs::write(server.config_path(), with_plugin.replace(Server::LOADS_PLUGIN, "")).unwrap();
    server.restart();
    let device = |id| TestDevice { id, seed: id as u8 };
    let mut alice = Client::connect(server.c2s_port(), DOMAIN, "alice", "phone").await;
    keep_several_bundles(&mut alice).await;
    let options = "<publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'>\
                   <value>http://jabber.org/protocol/pubsub#publish-options</value></field>\
                   <field var='pubsub#persist_items'><value>1</value></field></x></publish-options></pubsub>";
    let with_options = |xml: String| xml.replace("</pubsub>", options);
    for (node, item, payload) in [
        (BUNDLES, "1", device(1).bundle(1..=3)),
        (BUNDLES, "2", device(2).bundle(1..=3)),
        (DEVICES, "current", devices(&[1, 2])),
        ("eu.siacs.conversations.axolotl.bundles:5", "0", device(5).legacy_bundle(1..=3)),
        (LEGACY_LIST, "0", "<list xmlns='eu.siacs.conversations.axolotl'><device id='5'/></list>".to_owned()),
    ] {
        let answer = alice.request("set", None, &with_options(publish(node, item, &payload))).await;
        assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
    }
    drop(alice);

    std::fs::write(server.config_path(), with_plugin).unwrap();
    server.restart();
    let multiend = Multiend::builder(server.component_port()).start();
    let mut bob = Client::connect(server.c2s_port(), DOMAIN, "bob", "phone").await;
    assert_eq!(list(&mut bob).await, [1, 2]);
    for (node, item) in [(BUNDLES, "1"), (BUNDLES, "2"), ("eu.siacs.conversations.axolotl.bundles:5", "0")] {
        let answer = bob.request("get", Some(ALICE), &items(node, &[item])).await;
        assert_eq!(prekeys_of(&items_of(&answer)[0].1).len(), 1, "{node} {item}");
    }
    // A newer bundle is not overwritten by what PEP still has, however often the server starts.
    let mut alice = Client::connect(server.c2s_port(), DOMAIN, "alice", "phone").await;
    alice.request("set", None, &publish(BUNDLES, "1", &device(1).bundle(11..=14))).await;
    server.restart();
    let component =
        poll_async("the component", DEADLINE, async || multiend.http("/readyz").filter(|(status, _)| *status == 200));
    component.await;
    let mut alice = Client::connect(server.c2s_port(), DOMAIN, "alice", "phone").await;
    let own = poll_async("an answer", DEADLINE, async || {
        let own = alice.request("get", None, &items(BUNDLES, &["1"])).await;
        (own.attr("type") == Some("result")).then_some(own)
    });
    assert_eq!(prekeys_of(&items_of(&own.await)[0].1).len(), 4);
}
