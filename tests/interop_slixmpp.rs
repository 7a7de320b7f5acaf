//! The reference client and slixmpp with slixmpp-omemo, live, on an ordinary Prosody: its own PEP and archive, no component.
//! In both protocols, each side starts sessions, answers, and finds what came while it was away.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod devices;
mod slixmpp;
#[allow(unused)]
mod support;

use devices::World;
use multiend_client::{Door, Protocol, Protocols, Via};
use slixmpp::Peer;
use support::prosody::Prosody;

struct Place {
    prosody: Prosody,
    world: World,
    states: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let prosody =
            Prosody::builder().users(&["alice", "bob"]).module("mam").host("archive_expires_after = \"never\"").start();
        let world = World::new(prosody.c2s_port(), Door::Direct);
        Self { prosody, world, states: tempfile::tempdir().unwrap() }
    }

    /// Bob's device, on slixmpp.
    fn bob(&self) -> Peer {
        Peer::start(self.prosody.c2s_port(), "bob", &self.states.path().join("bob.json"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn omemo2_started_here() {
    we_write_first(Protocol::Omemo2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_started_here() {
    we_write_first(Protocol::Legacy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn omemo2_started_there() {
    they_write_first(Protocol::Omemo2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_started_there() {
    they_write_first(Protocol::Legacy).await;
}

async fn we_write_first(protocol: Protocol) {
    let place = Place::new();
    let mut bob = place.bob();
    let alice = place.world.device_in(Protocols::only(protocol), "alice", "phone").await;
    // Several key exchanges before the first answer.
    for number in 0..3 {
        alice.says("bob", &format!("first {number}")).await;
    }
    for number in 0..3 {
        bob.reads("alice", protocol, &format!("first {number}"));
    }
    converse(&alice, &mut bob, protocol).await;
    each_is_away_for_a_while(&place, alice, bob, protocol).await;
}

async fn they_write_first(protocol: Protocol) {
    let place = Place::new();
    let alice = place.world.device_in(Protocols::only(protocol), "alice", "phone").await;
    let mut bob = place.bob();
    for number in 0..3 {
        bob.says("alice", protocol, &format!("first {number}"));
    }
    for number in 0..3 {
        assert_eq!(alice.reads("bob", &format!("first {number}")).await.protocol, protocol);
    }
    converse(&alice, &mut bob, protocol).await;
    each_is_away_for_a_while(&place, alice, bob, protocol).await;
}

/// Answers, several in a row, and enough in one direction for a heartbeat (at the 53rd).
async fn converse(alice: &devices::Device, bob: &mut Peer, protocol: Protocol) {
    for round in 0..4 {
        for number in 0..3 {
            bob.says("alice", protocol, &format!("to alice {round}/{number} äöü <&>"));
            alice.reads("bob", &format!("to alice {round}/{number} äöü <&>")).await;
        }
        for number in 0..3 {
            alice.says("bob", &format!("to bob {round}/{number} äöü <&>")).await;
        }
        for number in 0..3 {
            bob.reads("alice", protocol, &format!("to bob {round}/{number} äöü <&>"));
        }
    }
    for number in 0..60 {
        alice.says("bob", &format!("monologue {number}")).await;
    }
    for number in 0..60 {
        bob.reads("alice", protocol, &format!("monologue {number}"));
    }
}

async fn each_is_away_for_a_while(place: &Place, mut alice: devices::Device, bob: Peer, protocol: Protocol) {
    bob.goes_away();
    for number in 0..5 {
        alice.says("bob", &format!("while bob was away {number}")).await;
    }
    let mut bob = place.bob();
    for number in 0..5 {
        bob.reads("alice", protocol, &format!("while bob was away {number}"));
    }

    alice.goes_away().await;
    for number in 0..5 {
        bob.says("alice", protocol, &format!("while alice was away {number}"));
    }
    alice.comes_back(&place.world).await;
    alice.catches_up().await;
    for number in 0..5 {
        let received = alice.reads("bob", &format!("while alice was away {number}")).await;
        assert!(matches!(received.via, Via::Archive | Via::Live), "it came once, from the archive or as it was kept");
    }
    alice.says("bob", "all read").await;
    bob.reads("alice", protocol, "all read");
    alice.has_nothing_unreadable();
    bob.goes_away();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_both_protocols_reads_either_and_writes_in_the_one_it_prefers() {
    let place = Place::new();
    let mut bob = place.bob();
    let alice = place.world.device_in(Protocols::both(Protocol::Legacy), "alice", "phone").await;
    for (number, protocol) in [Protocol::Omemo2, Protocol::Legacy, Protocol::Omemo2].into_iter().enumerate() {
        bob.says("alice", protocol, &format!("question {number}"));
        assert_eq!(alice.reads("bob", &format!("question {number}")).await.protocol, protocol);
        alice.says("bob", &format!("answer {number}")).await;
        bob.reads("alice", Protocol::Legacy, &format!("answer {number}"));
    }
    alice.has_nothing_unreadable();
    bob.goes_away();
}
