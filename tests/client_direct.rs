//! The reference client on an ordinary server: Prosody's own PEP and archive, no component. What works here works because
//! of the standards, not because both ends come from this repository.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod devices;
#[allow(unused)]
mod support;

use devices::World;
use multiend_client::{Door, Via};
use support::prosody::Prosody;

fn prosody() -> Prosody {
    Prosody::builder().users(&["alice", "bob"]).module("mam").host("archive_expires_after = \"never\"").start()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_each_read_everything_and_a_restarted_one_catches_up() {
    let prosody = prosody();
    let world = World::new(prosody.c2s_port(), Door::Direct);
    let alice = world.device("alice", "phone").await;
    let mut laptop = world.device("alice", "laptop").await;
    let bob = world.device("bob", "phone").await;

    bob.says("alice", "hello from bob").await;
    alice.reads("bob", "hello from bob").await;
    laptop.reads("bob", "hello from bob").await;
    alice.says("bob", "hello from alice").await;
    bob.reads("alice", "hello from alice").await;
    let copy = laptop.reads("alice", "hello from alice").await;
    assert_eq!(copy.via, Via::Carbon);
    assert_eq!(copy.conversation, bob.jid());

    laptop.goes_away().await;
    for number in 0..20 {
        bob.says("alice", &format!("while you were away {number}")).await;
        alice.reads("bob", &format!("while you were away {number}")).await;
        alice.says("bob", &format!("answer {number}")).await;
        bob.reads("alice", &format!("answer {number}")).await;
    }
    laptop.comes_back(&world).await;
    laptop.catches_up().await;
    for number in 0..20 {
        assert_eq!(laptop.reads("bob", &format!("while you were away {number}")).await.via, Via::Archive);
        laptop.reads("alice", &format!("answer {number}")).await;
    }
    laptop.says("bob", "I have read it all").await;
    bob.reads("alice", "I have read it all").await;
    alice.reads("alice", "I have read it all").await;
    for device in [&alice, &laptop, &bob] {
        device.has_nothing_unreadable();
    }
}

/// Where the last writer of a list wins, two devices that put themselves back at once take each other off again, and
/// hear of it while they are still at it.
#[tokio::test(flavor = "multi_thread")]
async fn devices_that_were_taken_off_the_list_put_themselves_back() {
    let prosody = prosody();
    let world = World::new(prosody.c2s_port(), Door::Direct);
    let phone = world.device("alice", "phone").await;
    let laptop = world.device("alice", "laptop").await;
    let ids = [phone.client().device_id().await, laptop.client().device_id().await];
    let mut other = support::xmpp::Client::connect(prosody.c2s_port(), support::DOMAIN, "alice", "other").await;
    let publish = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:omemo:2:devices'>\
        <item id='current'><devices xmlns='urn:xmpp:omemo:2'><device id='77'/></devices></item></publish></pubsub>";
    let request = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:omemo:2:devices'/></pubsub>";
    for _ in 0..20 {
        assert_eq!(other.request("set", None, publish).await.attr("type"), Some("result"));
        support::process::poll_async("both devices on the list again", devices::DEADLINE, async || {
            let list = String::from(&other.request("get", None, request).await);
            let listed = |id: u32| list.contains(&format!("id=\"{id}\"")) || list.contains(&format!("id='{id}'"));
            (listed(77) && ids.into_iter().all(listed)).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_an_error_and_not_a_wait() {
    let prosody = prosody();
    let world = World::new(prosody.c2s_port(), Door::Direct);
    let mut settings = world.settings("alice", "phone");
    settings.password = "wrong".to_owned();
    let refused = multiend_client::Client::connect(settings).await.err();
    assert!(matches!(refused, Some(multiend_client::ClientError::Login(_))), "{refused:?}");
}
