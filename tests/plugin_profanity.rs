//! Profanity as Debian has it, on a Prosody and on an ejabberd with the plugin: it publishes, starts a session, is answered, is away, and reads
//! from the archive what it has missed. Beside it a second device of the same account, on the reference client.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod devices;
mod profanity;
#[allow(unused)]
mod support;

use devices::World;
use multiend_client::{Door, Protocol, Protocols};
use profanity::Profanity;
use support::DOMAIN;
use support::ejabberd::Ejabberd;
use support::multiend::Multiend;
use support::plugin::{Server, Setup};
use support::process::poll;
use support::prosody::Prosody;
use support::xmpp::{Client, befriend};

/// The ids of an account's devices in the legacy protocol, as soon as it has so many.
fn devices_of(multiend: &Multiend, user: &str, count: usize) -> Vec<u64> {
    poll(&format!("{count} devices of {user}"), devices::DEADLINE * 2, || {
        let (status, devices, _) = multiend.command(&["admin", "devices", devices::account(user).as_str(), "--json"]);
        let devices: serde_json::Value = status.success().then(|| serde_json::from_str(&devices).unwrap())?;
        let ids: Vec<u64> = devices
            .as_array()
            .or_else(|| devices["devices"].as_array())?
            .iter()
            .filter(|device| device["protocol"] == "legacy")
            .filter_map(|device| device["device"].as_u64())
            .collect();
        (ids.len() == count).then_some(ids)
    })
}

/// Each sees the presence of the other, and so is told of its devices.
async fn befriended(port: u16, one: &str, other: &str) {
    let mut one = Client::connect(port, DOMAIN, one, "x").await;
    let mut other = Client::connect(port, DOMAIN, other, "x").await;
    one.online().await;
    other.online().await;
    befriend(&mut one, &mut other).await;
    befriend(&mut other, &mut one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn profanity_writes_reads_and_catches_up_from_the_archive_on_prosody() {
    profanity_writes_reads_and_catches_up_from_the_archive::<Prosody>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn profanity_writes_reads_and_catches_up_from_the_archive_on_ejabberd() {
    profanity_writes_reads_and_catches_up_from_the_archive::<Ejabberd>().await;
}

async fn profanity_writes_reads_and_catches_up_from_the_archive<S: Server>() {
    let setup = Setup::<S>::start(&["alice", "bob"]);
    let port = setup.server.c2s_port();
    befriended(port, "alice", "bob").await;
    let world = World::new(port, Door::Direct);
    let laptop = world.device_in(Protocols::only(Protocol::Legacy), "bob", "laptop").await;
    let [mut alice, mut bob] = ["alice", "bob"].map(|user| Profanity::new(port, user));
    // One after the other: Profanity starts sessions with the devices that it knows of at that moment, and with no others.
    bob.comes_online();
    bob.makes_keys();
    let of_bob = devices_of(&setup.multiend, "bob", 2);
    alice.comes_online();
    alice.makes_keys();
    let of_alice = devices_of(&setup.multiend, "alice", 1);

    alice.meets("bob", &of_bob);
    alice.says("first of alice");
    assert_eq!(bob.has_read("alice", "first of alice"), 1);
    laptop.reads("alice", "first of alice").await;
    bob.meets("alice", &of_alice);
    bob.says("answer of bob");
    assert_eq!(alice.has_read("bob", "answer of bob"), 1);
    laptop.reads("bob", "answer of bob").await;
    laptop.says("alice", "answer from the laptop").await;
    assert_eq!(alice.has_read("bob", "answer from the laptop"), 1);
    assert_eq!(bob.has_read("alice", "answer from the laptop"), 1, "as a carbon");

    bob.goes_away();
    for number in 0..5 {
        alice.says(&format!("while bob is away {number}"));
        laptop.reads("alice", &format!("while bob is away {number}")).await;
    }
    bob.comes_online();
    bob.meets("alice", &of_alice);
    for number in 0..5 {
        assert_eq!(bob.has_read("alice", &format!("while bob is away {number}")), 1, "once, from the archive");
    }
    bob.says("all read");
    assert_eq!(alice.has_read("bob", "all read"), 1);
    laptop.reads("bob", "all read").await;
    laptop.has_nothing_unreadable();

    // 9 messages between two accounts, each encrypted, each once on either side; and no prekey went to two.
    poll("the copies", devices::DEADLINE, || {
        let stored = setup.multiend.metric("multiend_archive_copies_total{class=\"content\",result=\"stored\"}");
        assert!(stored < 18.5, "{stored}");
        (stored > 17.5).then_some(())
    });
    let (_, stats, _) = setup.multiend.command(&["admin", "stats", "--json"]);
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["directory"]["issued_twice"], 0, "{stats}");
    assert!(stats["directory"]["issued"].as_u64().unwrap() > 0, "{stats}");
}
