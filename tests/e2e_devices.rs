//! What users do, end to end: reference clients, a real Prosody, a real multiend, through the alias door.
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
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use devices::{DEADLINE, Device, World, account};
use multiend_client::{Event, SendOptions, Via};
use support::multiend::Multiend;
use support::postgres::Postgres;
use support::process::poll_async;
use support::prosody::Prosody;
use support::{COMPONENT, DOMAIN, xmpp};

struct Place {
    world: World,
    multiend: Multiend,
    prosody: Prosody,
}

async fn place() -> Place {
    place_with(None).await
}

async fn place_with(database: Option<String>) -> Place {
    let prosody = Prosody::builder().users(&["alice", "bob"]).multiend().start();
    let builder = Multiend::builder(prosody.component_port());
    let multiend = match database {
        Some(url) => builder.database(&url).start(),
        None => builder.start(),
    };
    Place { world: World::behind_component(prosody.c2s_port()), multiend, prosody }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_write_first_at_the_same_moment_and_both_are_read() {
    let place = place().await;
    let (alice, bob) = (place.world.device("alice", "phone").await, place.world.device("bob", "phone").await);
    tokio::join!(alice.says("bob", "hello from alice"), bob.says("alice", "hello from bob"));
    alice.reads("bob", "hello from bob").await;
    bob.reads("alice", "hello from alice").await;
    for round in 0..3 {
        alice.says("bob", &format!("to bob {round}")).await;
        bob.reads("alice", &format!("to bob {round}")).await;
        bob.says("alice", &format!("to alice {round}")).await;
        alice.reads("bob", &format!("to alice {round}")).await;
    }
    alice.has_nothing_unreadable();
    bob.has_nothing_unreadable();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_device_of_the_peer_is_announced_and_gets_what_follows() {
    let place = place().await;
    let (alice, bob) = (place.world.device("alice", "phone").await, place.world.device("bob", "phone").await);
    alice.says("bob", "before").await;
    bob.reads("alice", "before").await;
    let laptop = place.world.device("bob", "laptop").await;
    let id = laptop.client().device_id().await;
    let announced = |event: &Event| matches!(event, Event::DeviceListChanged { owner, devices, .. } if *owner == account("bob") && devices.contains(&id));
    alice.waits_for("bob's new device", announced).await;
    assert_eq!(alice.says("bob", "after").await.devices, 2);
    bob.reads("alice", "after").await;
    laptop.reads("alice", "after").await;
    laptop.catches_up().await;
    laptop.has_nothing_unreadable();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_device_without_a_bundle_is_skipped_and_the_others_are_reached() {
    let place = place().await;
    let (alice, bob) = (place.world.device("alice", "phone").await, place.world.device("bob", "phone").await);
    let mut raw = xmpp::Client::connect(place.prosody.c2s_port(), DOMAIN, "bob", "raw").await;
    let id = bob.client().device_id().await;
    let list = format!(
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:omemo:2:devices'><item id='current'>\
         <devices xmlns='urn:xmpp:omemo:2'><device id='{id}'/><device id='4242'/></devices></item></publish></pubsub>"
    );
    assert_eq!(raw.request("set", Some(COMPONENT), &list).await.attr("type"), Some("result"));
    alice.says("bob", "to whoever can read").await;
    bob.reads("alice", "to whoever can read").await;
    let skipped = |event: &Event| matches!(event, Event::DeviceSkipped { device: 4242, .. });
    alice.waits_for("word of the dead device", skipped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_message_leaves_an_empty_place_and_what_follows_is_read() {
    let place = place().await;
    let alice = place.world.device("alice", "phone").await;
    // One device of bob's stays: otherwise Prosody keeps messages for him on its own, beside the archive.
    let phone = place.world.device("bob", "phone").await;
    let mut laptop = place.world.device("bob", "laptop").await;
    alice.says("bob", "to begin with").await;
    laptop.reads("alice", "to begin with").await;
    laptop.goes_away().await;
    let soon = SendOptions { expire_after: Some(Duration::from_secs(1)) };
    let expiring = alice.says_with("bob", "short-lived", soon).await;
    alice.says("bob", "long-lived").await;
    phone.reads("alice", "short-lived").await;
    // The sender's own copy expires at the same moment.
    let own_archive = format!("alice\\40{DOMAIN}@{COMPONENT}");
    let mut witness = xmpp::Client::connect(place.prosody.c2s_port(), DOMAIN, "alice", "witness").await;
    poll_async("the expiry", DEADLINE, async || {
        witness.request("set", Some(&own_archive), "<query xmlns='urn:xmpp:mam:2'/>").await;
        let results = witness.everything_until_pong(DOMAIN).await;
        let place = expiring.archive_id.clone().unwrap();
        let result = results.iter().map(String::from).find(|result| result.contains(&place))?;
        (!result.contains("<encrypted")).then_some(())
    })
    .await;
    laptop.comes_back(&place.world).await;
    assert_eq!(laptop.catches_up().await.expired, 1);
    assert_eq!(laptop.reads("alice", "long-lived").await.via, Via::Archive);
    let rest = laptop.rest();
    assert!(rest.iter().any(|event| matches!(event, Event::Expired { .. })), "{rest:?}");
    assert!(!rest.iter().any(|event| matches!(event, Event::Received(_))), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_crashes_reads_in_the_end_what_it_had_not_dealt_with() {
    let place = place().await;
    let (alice, mut bob) = (place.world.device("alice", "phone").await, place.world.device("bob", "phone").await);
    alice.says("bob", "to begin with").await;
    bob.reads("alice", "to begin with").await;
    for round in 0..5 {
        for number in 0..6 {
            alice.says("bob", &format!("round {round} number {number}")).await;
            // Crashes with messages on their way in, decrypted but not told, and told but not dealt with.
            if number == 2 {
                bob.reads("alice", &format!("round {round} number 0")).await;
            }
        }
        bob.crashes();
        bob.comes_back(&place.world).await;
        bob.catches_up().await;
        for number in 1..6 {
            bob.reads("alice", &format!("round {round} number {number}")).await;
        }
        bob.says("alice", &format!("answer {round}")).await;
        alice.reads("bob", &format!("answer {round}")).await;
    }
    bob.has_nothing_unreadable();
    alice.has_nothing_unreadable();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_is_found_again() {
    let mut place = place().await;
    let (alice, bob) = (place.world.device("alice", "phone").await, place.world.device("bob", "phone").await);
    alice.says("bob", "before").await;
    bob.reads("alice", "before").await;
    place.prosody.restart();
    alice.says("bob", "after").await;
    bob.reads("alice", "after").await;
    bob.says("alice", "yes").await;
    alice.reads("bob", "yes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_multiend_loses_nothing_on_sqlite() {
    nothing_is_lost_while_multiend_is_killed(place().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_multiend_loses_nothing_on_postgres() {
    let url = Postgres::shared().fresh_database().await;
    nothing_is_lost_while_multiend_is_killed(place_with(Some(url)).await).await;
}

/// SIGKILL in the middle of a conversation of four devices, again and again: every message is acknowledged in the end and
/// read by every device exactly once, live or from the archive.
async fn nothing_is_lost_while_multiend_is_killed(mut place: Place) {
    const KILLS: usize = 5;
    const MESSAGES: usize = 60;
    let world = &place.world;
    let [phone, laptop] = [world.device("alice", "phone").await, world.device("alice", "laptop").await];
    let [bob, tablet] = [world.device("bob", "phone").await, world.device("bob", "tablet").await];
    let speak = async |device: &Device, to: &str| {
        for number in 0..MESSAGES {
            device.says(to, &format!("to {to} {number}")).await;
        }
    };
    let kill = async {
        for kill in 1..=KILLS {
            let progress = MESSAGES * kill / (KILLS + 1);
            bob.waits_for(
                "progress",
                |event| matches!(event, Event::Received(message) if message.body == format!("to bob {progress}")),
            )
            .await;
            place.multiend.kill9();
            place.multiend.restart();
        }
    };
    tokio::join!(speak(&phone, "bob"), speak(&laptop, "bob"), speak(&tablet, "alice"), kill);
    let expected = |from: &[(&str, usize)]| -> BTreeMap<String, usize> {
        from.iter()
            .flat_map(|(to, times)| (0..MESSAGES).map(move |number| (format!("to {to} {number}"), *times)))
            .collect()
    };
    let mut kills_seen = expected(&[("bob", 2), ("alice", 1)]);
    for kill in 1..=KILLS {
        *kills_seen.get_mut(&format!("to bob {}", MESSAGES * kill / (KILLS + 1))).unwrap() -= 1;
    }
    let everybody = [
        (&phone, expected(&[("bob", 1), ("alice", 1)])),
        (&laptop, expected(&[("bob", 1), ("alice", 1)])),
        (&bob, kills_seen),
        (&tablet, expected(&[("bob", 2)])),
    ];
    for (device, expected) in everybody {
        device.catches_up().await;
        let mut others = Vec::new();
        let mut read: BTreeMap<String, usize> = expected.keys().map(|body| (body.clone(), 0)).collect();
        for event in device.rest() {
            match event {
                Event::Received(message) => *read.entry(message.body).or_default() += 1,
                other => others.push(other),
            }
        }
        let wrong: Vec<_> = read.iter().filter(|(body, times)| expected.get(*body) != Some(times)).collect();
        assert!(wrong.is_empty(), "{} read {wrong:?} and was told {others:?}", device.name());
        device.has_nothing_unreadable();
    }
    let (status, totals, errors) = place.multiend.command(&["admin", "stats", "--json"]);
    assert!(status.success(), "{errors}");
    assert!(totals.contains("\"issued_twice\":0"), "{totals}");
}
