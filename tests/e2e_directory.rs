//! What `urn:multiend:0` is good for, end to end: reference clients, a real Prosody, a real multiend.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod devices;
mod support;

use std::collections::BTreeSet;

use devices::{DEADLINE, World};
use multiend::model::{DeviceId, Owner, PrekeyId, Protocol, Timestamp};
use multiend::store::{Notice, NoticeKind, PrekeyState, SharedStore};
use support::multiend::Multiend;
use support::process::poll_async;
use support::prosody::Prosody;
use support::{COMPONENT, DOMAIN, xmpp};

struct Place {
    world: World,
    multiend: Multiend,
    prosody: Prosody,
}

fn place() -> Place {
    let prosody = Prosody::builder().users(&["alice", "bob", "carol"]).multiend().start();
    let multiend = Multiend::builder(prosody.component_port()).start();
    Place { world: World::behind_component(prosody.c2s_port()), multiend, prosody }
}

impl Place {
    /// The database behind the running program.
    async fn store(&self) -> SharedStore {
        let path = self.multiend.data_dir().join("multiend.sqlite3");
        multiend::store::open(&format!("sqlite:{}", path.display()), 2).await.unwrap()
    }

    fn claims(&self, result: &str) -> f64 {
        self.multiend.metric(&format!("multiend_directory_claims_total{{protocol=\"omemo2\",result=\"{result}\"}}"))
    }

    fn bundles_published(&self) -> f64 {
        self.multiend.metric("multiend_directory_bundles_total{protocol=\"omemo2\",result=\"accepted\"}")
    }
}

fn bob() -> Owner {
    Owner::parse("bob@example.org").unwrap()
}

/// The ids of a device's prekeys in one state.
async fn prekeys(store: &SharedStore, device: DeviceId, wanted: PrekeyState) -> BTreeSet<PrekeyId> {
    let states = store.prekey_states(&bob(), Protocol::Omemo2, device, &[]).await.unwrap().unwrap_or_default();
    states.into_iter().filter(|(_, state)| *state == wanted).map(|(id, _)| id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_message_claims_a_prekey_of_every_device_and_sibling() {
    let place = place();
    let alice = place.world.device("alice", "phone").await;
    let laptop = place.world.device("alice", "laptop").await;
    let phone = place.world.device("bob", "phone").await;
    let tablet = place.world.device("bob", "tablet").await;
    assert_eq!(alice.says("bob", "hello, all of you").await.devices, 3);
    for device in [&phone, &tablet, &laptop] {
        device.reads("alice", "hello, all of you").await;
        device.has_nothing_unreadable();
    }
    // Two of bob's and one of the own account: a bundle fetched in the ordinary way would not be a claim there.
    assert!((place.claims("fresh") - 3.0).abs() < 0.1, "{}", place.claims("fresh"));
    phone.says("alice", "hello").await;
    alice.reads("bob", "hello").await;
    laptop.reads("bob", "hello").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_told_of_low_stock_replaces_what_others_were_given() {
    let place = place();
    let phone = place.world.device("bob", "phone").await;
    let device = DeviceId::new(phone.client().device_id().await).unwrap();
    let store = place.store().await;
    for resource in ["a", "b", "c"] {
        let mut carol = xmpp::Client::connect(place.prosody.c2s_port(), DOMAIN, "carol", resource).await;
        let claim = format!(
            "<claim xmlns='urn:multiend:0' protocol='urn:xmpp:omemo:2'><account jid='bob@example.org'/></claim>"
        );
        assert_eq!(carol.request("set", Some(COMPONENT), &claim).await.attr("type"), Some("result"));
    }
    let issued = prekeys(&store, device, PrekeyState::Issued).await;
    assert_eq!(issued.len(), 3);
    let low = Notice {
        owner: bob(),
        protocol: Protocol::Omemo2,
        device: Some(device),
        kind: NoticeKind::LowStock,
        at: Timestamp::from_micros(1),
    };
    store.add_notice(&low).await.unwrap();
    poll_async("new prekeys", DEADLINE, async || {
        let unissued = prekeys(&store, device, PrekeyState::Unissued).await;
        (unissued.len() == 100 && unissued.is_disjoint(&issued)).then_some(())
    })
    .await;
    assert!(prekeys(&store, device, PrekeyState::Issued).await.is_empty(), "they are not handed out again");
    // After a restore none of the old ones is left.
    let before = prekeys(&store, device, PrekeyState::Unissued).await;
    store.add_notice(&Notice { kind: NoticeKind::Restored, ..low }).await.unwrap();
    poll_async("all new prekeys", DEADLINE, async || {
        let unissued = prekeys(&store, device, PrekeyState::Unissued).await;
        (unissued.len() == 100 && unissued.is_disjoint(&before)).then_some(())
    })
    .await;
    let alice = place.world.device("alice", "phone").await;
    alice.says("bob", "with a new one").await;
    phone.reads("alice", "with a new one").await;
    phone.has_nothing_unreadable();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_finds_at_its_next_start_what_was_lost_and_publishes_nothing_if_nothing_was() {
    let place = place();
    let mut phone = place.world.device("bob", "phone").await;
    let device = DeviceId::new(phone.client().device_id().await).unwrap();
    let store = place.store().await;
    let published = place.bundles_published();
    phone.goes_away().await;
    phone.comes_back(&place.world).await;
    assert!((place.bundles_published() - published).abs() < 0.1, "nothing differs, nothing is published");

    phone.goes_away().await;
    let mut raw = xmpp::Client::connect(place.prosody.c2s_port(), DOMAIN, "bob", "raw").await;
    let remove = format!("<remove-device xmlns='urn:multiend:0' protocol='urn:xmpp:omemo:2' device='{device}'/>");
    assert_eq!(raw.request("set", Some(COMPONENT), &remove).await.attr("type"), Some("result"));
    assert!(store.bundle_items(&bob(), Protocol::Omemo2, 9).await.unwrap().is_empty());
    phone.comes_back(&place.world).await;
    let list = store.device_list(&bob(), Protocol::Omemo2, None).await.unwrap().unwrap();
    assert!(list.contains(device));
    assert_eq!(store.bundle_items(&bob(), Protocol::Omemo2, 9).await.unwrap().len(), 1);
    let alice = place.world.device("alice", "phone").await;
    alice.says("bob", "there you are").await;
    phone.reads("alice", "there you are").await;
}
