//! The same conversations in legacy OMEMO, and between devices that do not speak the same protocols, end to end: reference
//! clients, a real Prosody, a real multiend, through the alias door.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unreachable,
    missing_docs
)]

mod devices;
#[allow(unused)]
mod support;

use devices::World;
use multiend_client::{Event, Protocol, Protocols, Via};
use support::multiend::Multiend;
use support::prosody::Prosody;
use support::{COMPONENT, DOMAIN, xmpp};

const LEGACY: Protocols = Protocols::only(Protocol::Legacy);
const OMEMO2: Protocols = Protocols::only(Protocol::Omemo2);
const BOTH: Protocols = Protocols::both(Protocol::Omemo2);

struct Place {
    world: World,
    _multiend: Multiend,
    prosody: Prosody,
}

async fn place() -> Place {
    let prosody = Prosody::builder().users(&["alice", "bob"]).multiend().start();
    let multiend = Multiend::builder(prosody.component_port()).start();
    Place { world: World::behind_component(prosody.c2s_port()), _multiend: multiend, prosody }
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_devices_read_everything_and_one_that_was_away_catches_up() {
    let place = place().await;
    let world = &place.world;
    let alice = world.device_in(LEGACY, "alice", "phone").await;
    let mut laptop = world.device_in(LEGACY, "alice", "laptop").await;
    let bob = world.device_in(LEGACY, "bob", "phone").await;

    let sent = alice.says("bob", "hello from alice").await;
    assert_eq!((sent.devices, sent.archive_id.is_some()), (2, true));
    assert_eq!(bob.reads("alice", "hello from alice").await.protocol, Protocol::Legacy);
    let copy = laptop.reads("alice", "hello from alice").await;
    assert_eq!((copy.via, copy.conversation), (Via::Carbon, bob.jid()));
    bob.says("alice", "hello from bob").await;
    alice.reads("bob", "hello from bob").await;
    laptop.reads("bob", "hello from bob").await;

    laptop.goes_away().await;
    // More than enough for heartbeats.
    for number in 0..60 {
        bob.says("alice", &format!("while you were away {number}")).await;
    }
    for number in 0..60 {
        alice.reads("bob", &format!("while you were away {number}")).await;
    }
    laptop.comes_back(world).await;
    laptop.catches_up().await;
    for number in 0..60 {
        assert_eq!(laptop.reads("bob", &format!("while you were away {number}")).await.via, Via::Archive);
    }
    laptop.says("bob", "I have read it all").await;
    bob.reads("alice", "I have read it all").await;
    alice.reads("alice", "I have read it all").await;
    for device in [&alice, &laptop, &bob] {
        device.has_nothing_unreadable();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_reaches_devices_of_either_protocol_on_both_sides() {
    let place = place().await;
    let world = &place.world;
    let alice = world.device_in(BOTH, "alice", "phone").await;
    let alice_old = world.device_in(LEGACY, "alice", "old").await;
    let bob = world.device_in(BOTH, "bob", "phone").await;
    let bob_new = world.device_in(OMEMO2, "bob", "new").await;
    let bob_old = world.device_in(LEGACY, "bob", "old").await;

    for round in 0..3 {
        let body = format!("to everybody {round}");
        assert_eq!(alice.says("bob", &body).await.devices, 4, "each device once, whichever protocols it reads");
        for (device, protocol) in [
            (&bob, Protocol::Omemo2),
            (&bob_new, Protocol::Omemo2),
            (&bob_old, Protocol::Legacy),
            (&alice_old, Protocol::Legacy),
        ] {
            let received = device.reads("alice", &body).await;
            assert_eq!((received.protocol, received.device), (protocol, alice.client().device_id().await));
        }
        let answer = format!("from everybody {round}");
        assert_eq!(bob.says("alice", &answer).await.devices, 4);
        for device in [&alice, &alice_old, &bob_new, &bob_old] {
            device.reads("bob", &answer).await;
        }
    }

    // Who speaks one protocol only is read by those who speak it, and misses nobody silently.
    assert_eq!(bob_old.says("alice", "in legacy").await.devices, 3);
    for device in [&alice, &alice_old, &bob] {
        assert_eq!(device.reads("bob", "in legacy").await.protocol, Protocol::Legacy);
    }
    for device in [&alice, &alice_old, &bob, &bob_new, &bob_old] {
        device.catches_up().await;
        let unread: Vec<_> = device
            .rest()
            .into_iter()
            .filter(|event| matches!(event, Event::Received(_) | Event::Failed { .. }))
            .collect();
        assert!(unread.is_empty(), "{}: nothing is read twice: {unread:?}", device.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_learns_the_other_protocol_keeps_its_id_and_fingerprint() {
    let place = place().await;
    let world = &place.world;
    let mut alice = world.device_in(OMEMO2, "alice", "phone").await;
    let (id, fingerprint) = (alice.client().device_id().await, alice.client().fingerprint().await);
    let bob = world.device_in(BOTH, "bob", "phone").await;
    let bob_old = world.device_in(LEGACY, "bob", "old").await;
    assert_eq!(alice.says("bob", "before").await.devices, 1);
    bob.reads("alice", "before").await;

    alice.goes_away().await;
    alice.will_write_in(BOTH);
    alice.comes_back(world).await;
    assert_eq!((alice.client().device_id().await, alice.client().fingerprint().await), (id, fingerprint));
    assert_eq!(alice.says("bob", "after").await.devices, 2);
    assert_eq!(bob.reads("alice", "after").await.protocol, Protocol::Omemo2);
    assert_eq!(bob_old.reads("alice", "after").await.protocol, Protocol::Legacy);
    bob_old.says("alice", "welcome").await;
    alice.reads("bob", "welcome").await;
    for device in [&alice, &bob, &bob_old] {
        device.has_nothing_unreadable();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_a_bundle_in_the_preferred_protocol_is_written_to_in_the_other() {
    let place = place().await;
    let world = &place.world;
    let alice = world.device_in(BOTH, "alice", "phone").await;
    let bob = world.device_in(LEGACY, "bob", "old").await;
    let id = bob.client().device_id().await;
    let mut raw = xmpp::Client::connect(place.prosody.c2s_port(), DOMAIN, "bob", "raw").await;
    let list = format!(
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:omemo:2:devices'><item id='current'>\
         <devices xmlns='urn:xmpp:omemo:2'><device id='{id}'/></devices></item></publish></pubsub>"
    );
    assert_eq!(raw.request("set", Some(COMPONENT), &list).await.attr("type"), Some("result"));
    assert_eq!(alice.says("bob", "in what you can read").await.devices, 1);
    assert_eq!(bob.reads("alice", "in what you can read").await.protocol, Protocol::Legacy);
    let skipped = |event: &Event| matches!(event, Event::DeviceSkipped { device, protocol: Protocol::Omemo2, .. } if *device == id);
    alice.waits_for("word of the missing bundle", skipped).await;
}
