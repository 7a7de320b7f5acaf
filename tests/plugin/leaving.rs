//! An operator takes the plugin out again, and perhaps comes back.

use crate::support::DOMAIN;
use crate::support::omemo::{TestDevice, devices, ids_of, items, items_of, prekeys_of, publish};
use crate::support::plugin::Server as _;
use crate::support::process::poll_async;
use crate::support::xmpp::{Client, DEADLINE};
use crate::{ALICE, BUNDLES, DEVICES, LEGACY_LIST, Server, Setup};

/// A device list of alice's, as somebody is given it.
async fn list(client: &mut Client, node: &str) -> Vec<u32> {
    let answer = poll_async("the list", DEADLINE, async || {
        let answer = client.request("get", Some(ALICE), &items(node, &[])).await;
        (answer.attr("type") == Some("result")).then_some(answer)
    });
    let mut ids = ids_of(&items_of(&answer.await)[0].1);
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn who_leaves_finds_the_lists_in_force_in_the_server_s_own_pep() {
    let mut setup = Setup::start(&["alice", "bob"]);
    let (mut phone, mut laptop) = (setup.client("alice", "phone").await, setup.client("alice", "laptop").await);
    let device = TestDevice { id: 1, seed: 1 };
    phone.request("set", None, &publish(BUNDLES, "1", &device.bundle(1..=3))).await;
    phone.request("set", None, &publish(DEVICES, "current", &devices(&[1]))).await;
    // Merged: what is in force is not what was published last.
    laptop.request("set", None, &publish(DEVICES, "current", &devices(&[2]))).await;
    let legacy = "<list xmlns='eu.siacs.conversations.axolotl'><device id='5'/></list>";
    let answer = phone.request("set", None, &publish(LEGACY_LIST, "current", legacy)).await;
    assert_eq!(answer.attr("type"), Some("result"), "{answer:?}");
    drop((phone, laptop));

    setup.multiend.terminate();
    let with_plugin = std::fs::read_to_string(setup.server.config_path()).unwrap();
    assert!(with_plugin.contains(Server::LOADS_PLUGIN));
    std::fs::write(setup.server.config_path(), with_plugin.replace(Server::LOADS_PLUGIN, "")).unwrap();
    setup.server.restart();
    let (mut alice, mut bob) = (setup.client("alice", "phone").await, setup.client("bob", "phone").await);
    assert_eq!(list(&mut bob, DEVICES).await, [1, 2]);
    assert_eq!(list(&mut bob, LEGACY_LIST).await, [5]);
    // A client looks for its bundle when it logs in, and publishes it if it is not there; as ever, all are given all of it.
    alice.request("set", None, &publish(BUNDLES, "1", &device.bundle(4..=9))).await;
    let own = alice.request("get", None, &items(BUNDLES, &["1"])).await;
    assert_eq!(prekeys_of(&items_of(&own)[0].1).len(), 6);
    drop((alice, bob));

    // Back again, what multiend had is what there is.
    std::fs::write(setup.server.config_path(), with_plugin).unwrap();
    setup.server.restart();
    setup.multiend.restart();
    let mut bob = Client::connect(setup.server.c2s_port(), DOMAIN, "bob", "phone").await;
    assert_eq!(list(&mut bob, DEVICES).await, [1, 2]);
    let answer = bob.request("get", Some(ALICE), &items(BUNDLES, &["1"])).await;
    assert_eq!(prekeys_of(&items_of(&answer)[0].1).len(), 1);
}
