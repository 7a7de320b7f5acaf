//! Requests about OMEMO's nodes are answered by the directory, and everything else by the server as ever.

use minidom::Element;

use crate::support::omemo::{LEGACY, PUBSUB, TestDevice, devices, ids_of, items, items_of, prekeys_of, publish};
use crate::support::plugin::{Kind, Server as _};
use crate::support::xmpp::error_condition;
use crate::{ALICE, BUNDLES, DEVICES, LEGACY_LIST, Server, Setup};

#[tokio::test]
async fn bundles_come_from_the_directory_at_the_owners_own_address() {
    let setup = Setup::start(&["alice", "bob", "carol"]);
    let mut alice = setup.client("alice", "phone").await;
    let (mut bob, mut carol) = (setup.client("bob", "phone").await, setup.client("carol", "phone").await);
    let device = TestDevice { id: 1, seed: 1 };
    // With and without an address, as clients do.
    let answer = alice.request("set", None, &publish(BUNDLES, "1", &device.bundle(1..=3))).await;
    assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
    // Who wrote to nobody is answered as the server answers such requests.
    let own_address = match Server::KIND {
        Kind::Prosody => None,
        Kind::Ejabberd => Some(ALICE),
    };
    assert_eq!(answer.attr("from"), own_address);
    let bundle_node = format!("{LEGACY}.bundles:1");
    let answer =
        alice.request("set", Some(ALICE), &publish(&bundle_node, "current", &device.legacy_bundle(1..=3))).await;
    assert_eq!(answer.attr("type"), Some("result"));

    for (node, id) in [(BUNDLES, "1"), (bundle_node.as_str(), "current")] {
        let own = alice.request("get", Some(ALICE), &items(node, &[])).await;
        assert_eq!(prekeys_of(&items_of(&own)[0].1).len(), 3, "the owner gets back what it published");
        let mut claimed = Vec::new();
        for client in [&mut bob, &mut carol] {
            let answer = client.request("get", Some(ALICE), &items(node, &[id])).await;
            assert_eq!((answer.attr("from"), answer.attr("type")), (Some(ALICE), Some("result")), "{node}: {answer:?}");
            let (item, bundle) = &items_of(&answer)[0];
            assert_eq!(item, id);
            claimed.extend(prekeys_of(bundle));
        }
        assert_eq!(claimed.len(), 2, "others get one prekey each");
        assert_ne!(claimed[0], claimed[1]);
    }
    let (_, stats, _) = setup.multiend.command(&["admin", "stats", "--json"]);
    assert!(stats.contains("\"issued\":4") && stats.contains("\"issued_twice\":0"), "{stats}");
}

#[tokio::test]
async fn errors_reach_the_client_as_the_directory_sent_them() {
    let setup = Setup::start(&["alice", "bob"]);
    let (mut alice, mut bob) = (setup.client("alice", "phone").await, setup.client("bob", "phone").await);
    let missing = bob.request("get", Some(ALICE), &items(LEGACY_LIST, &[])).await;
    assert_eq!(error_condition(&missing), Some("item-not-found"));
    let error = missing.children().find(|e| e.name() == "error").unwrap();
    assert_eq!(error.attr("code"), Some("404"), "one client publishes its first list only if it sees this");
    let broken = TestDevice { id: 1, seed: 1 }.bundle(1..=3).replace("<spks>", "<spks>AAAA");
    let refused = alice.request("set", None, &publish(BUNDLES, "1", &broken)).await;
    assert_eq!(error_condition(&refused), Some("bad-request"));
    assert!(String::from(&refused).contains("invalid-payload"), "{refused:?}");
    let foreign = bob.request("set", Some(ALICE), &publish(DEVICES, "current", &devices(&[6]))).await;
    assert_eq!(error_condition(&foreign), Some("forbidden"));
    let nobody = bob.request("get", Some("nobody@example.org"), &items(DEVICES, &[])).await;
    assert_eq!(nobody.attr("type"), Some("error"));
}

#[tokio::test]
async fn other_nodes_stay_with_the_servers_own_pep() {
    let setup = Setup::start(&["alice", "bob"]);
    let mut alice = setup.client("alice", "phone").await;
    let nick = "http://jabber.org/protocol/nick";
    let avatar = "urn:xmpp:avatar:metadata";
    for (node, payload) in
        [(nick, format!("<nick xmlns='{nick}'>Ally</nick>")), (avatar, format!("<metadata xmlns='{avatar}'/>"))]
    {
        let answer = alice.request("set", None, &publish(node, "i", &payload)).await;
        assert_eq!(answer.attr("type"), Some("result"), "{node}");
    }
    let answer = alice.request("get", Some(ALICE), &items(nick, &[])).await;
    assert_eq!(items_of(&answer)[0].1.text(), "Ally");
    // Who wants to know is told of each change.
    let subscribe = format!("<pubsub xmlns='{PUBSUB}'><subscribe node='{nick}' jid='{ALICE}'/></pubsub>");
    assert_eq!(alice.request("set", Some(ALICE), &subscribe).await.attr("type"), Some("result"));
    let mut laptop = setup.client("alice", "laptop").await;
    for name in ["Al", "Alice"] {
        laptop.request("set", None, &publish(nick, "i", &format!("<nick xmlns='{nick}'>{name}</nick>"))).await;
        let told = |e: &Element| e.name() == "message" && String::from(e).contains(&format!(">{name}</nick>"));
        alice.wait_for("the new name", told).await;
    }
    alice.request("set", None, &publish(DEVICES, "current", &devices(&[1]))).await;
    let nodes = alice.request("get", Some(ALICE), "<query xmlns='http://jabber.org/protocol/disco#items'/>").await;
    for node in [nick, avatar, DEVICES] {
        assert!(String::from(&nodes).contains(node), "{node}");
    }
    // Not OMEMO's, however much it looks like it.
    let similar = "eu.siacs.conversations.axolotl.bundles:x";
    let answer = alice.request("get", Some(ALICE), &items(similar, &[])).await;
    assert_eq!(error_condition(&answer), Some("item-not-found"));
    // The server's own error, which has no code.
    assert!(!String::from(&answer).contains("code="));
}

#[tokio::test]
async fn two_devices_that_announce_at_once_both_stay() {
    let setup = Setup::start(&["alice", "bob"]);
    let (mut phone, mut laptop) = (setup.client("alice", "phone").await, setup.client("alice", "laptop").await);
    for (client, id) in [(&mut phone, 1), (&mut laptop, 2)] {
        let answer = client.request("set", None, &publish(DEVICES, "current", &devices(&[id]))).await;
        assert_eq!(answer.attr("type"), Some("result"));
    }
    let mut bob = setup.client("bob", "phone").await;
    let answer = bob.request("get", Some(ALICE), &items(DEVICES, &[])).await;
    let mut ids = ids_of(&items_of(&answer)[0].1);
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
    let open = bob
        .request(
            "get",
            Some(ALICE),
            &format!("<pubsub xmlns='{PUBSUB}'><items node='{DEVICES}' max_items='1'/></pubsub>"),
        )
        .await;
    assert_eq!(open.attr("type"), Some("result"), "bob is no contact, and may read");
}
