//! The history of an account's devices, end to end: through a real Prosody, by the reference client, with a server that is
//! honest and with one whose database was tampered with (docs/protocol.md, "History").
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

use devices::{DEADLINE, World, account};
use multiend::model::{Device, DeviceId, DeviceList, HistoryChange, HistoryHead, Owner, Timestamp};
use multiend_client::Event;
use multiend_client::history::chain::{self, Change, Deceit, Entry, Head, HistoryProtocol};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use support::multiend::Multiend;
use support::process::poll_async;
use support::prosody::Prosody;
use support::xmpp::error_condition;

const ALICE: &str = r"alice\40example.org@multiend.example.org";

struct Place {
    world: World,
    multiend: Multiend,
    prosody: Prosody,
}

impl Place {
    fn new() -> Self {
        let prosody = Prosody::builder().users(&["alice", "bob", "carol"]).multiend().start();
        let multiend = Multiend::builder(prosody.component_port()).start();
        Self { world: World::behind_component(prosody.c2s_port()), multiend, prosody }
    }

    /// Changes the database behind everybody's back.
    async fn tamper(&self, sql: &str) {
        let url = format!("sqlite:{}", self.multiend.data_dir().join("multiend.sqlite3").display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::query("PRAGMA busy_timeout = 10000").execute(&mut connection).await.unwrap();
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn raw(&self, user: &str) -> support::xmpp::Client {
        support::xmpp::Client::connect(self.prosody.c2s_port(), support::DOMAIN, user, "raw").await
    }
}

async fn ask(client: &mut support::xmpp::Client, attributes: &str) -> minidom::Element {
    client.request("get", Some(ALICE), &format!("<history xmlns='urn:multiend:0'{attributes}/>")).await
}

fn broken(event: &Event) -> Option<&Deceit> {
    match event {
        Event::HistoryBroken { deceit, .. } => Some(deceit),
        _ => None,
    }
}

/// The head of alice's history as the server names it.
async fn head(client: &mut support::xmpp::Client) -> (u64, String) {
    let answer = ask(client, "").await;
    let history = answer.get_child("history", "urn:multiend:0").unwrap();
    let head = history.get_child("head", "urn:multiend:0").unwrap();
    (head.attr("index").unwrap().parse().unwrap(), head.attr("hash").unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn anybody_reads_a_history_in_pages_and_a_foreign_head_is_refused() {
    let place = Place::new();
    let phone = place.world.device("alice", "phone").await;
    let laptop = place.world.device("alice", "laptop").await;
    let mut bob = place.raw("bob").await;
    let (index, hash) = head(&mut bob).await;
    assert_eq!(index, 4, "two identity keys, two lists");
    let page = String::from(&ask(&mut bob, " max='2'").await);
    assert!(page.contains("index='2'") || page.contains("index=\"2\""), "{page}");
    assert!(!page.contains("index='3'") && !page.contains("index=\"3\""), "{page}");
    let nothing = ask(&mut bob, &format!(" after='{index}' hash='{hash}'")).await;
    assert_eq!(nothing.get_child("history", "urn:multiend:0").unwrap().children().count(), 1);
    let refused = ask(&mut bob, &format!(" after='{index}' hash='{}'", "00".repeat(32))).await;
    assert_eq!(error_condition(&refused), Some("item-not-found"));
    assert!(String::from(&refused).contains("not-on-chain"), "{}", String::from(&refused));
    assert_eq!(error_condition(&ask(&mut bob, " after='x'").await), Some("bad-request"));
    drop((phone, laptop));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_server_gives_no_cause_for_warnings() {
    let place = Place::new();
    let mut phone = place.world.device("alice", "phone").await;
    let bob = place.world.device("bob", "phone").await;
    bob.says("alice", "one").await;
    phone.reads("bob", "one").await;
    let laptop = place.world.device("alice", "laptop").await;
    bob.waits_for("the laptop", |event| matches!(event, Event::DeviceListChanged { .. })).await;
    bob.says("alice", "two").await;
    laptop.reads("bob", "two").await;
    phone.reads("bob", "two").await;
    phone.goes_away().await;
    phone.comes_back(&place.world).await;
    bob.says("alice", "three").await;
    laptop.reads("bob", "three").await;
    for device in [&bob, &laptop, &phone] {
        assert!(device.rest().iter().all(|event| broken(event).is_none()), "{:?}", device.rest());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lying_server_is_caught() {
    let place = Place::new();
    let phone = place.world.device("alice", "phone").await;
    let laptop = place.world.device("alice", "laptop").await;
    let mut bob = place.world.device("bob", "phone").await;
    bob.says("alice", "one").await;
    phone.reads("bob", "one").await;
    laptop.reads("bob", "one").await;
    let id = phone.client().device_id().await;
    // Bob knows the history by now.
    poll_async("bob's knowledge of alice's history", DEADLINE, async || bob.knows_history_of("alice").then_some(()))
        .await;

    // A device that alice never had, put into her list silently.
    place
        .tamper(
            "INSERT INTO listed_device (account, protocol, device, position)
                 SELECT account, protocol, 666, 99 FROM device_list WHERE protocol = 2
                 AND account = (SELECT id FROM account WHERE jid = 'alice@example.org')",
        )
        .await;
    bob.goes_away().await;
    bob.comes_back(&place.world).await;
    let _ = bob.client().send(&account("alice"), "two", multiend_client::SendOptions::default()).await;
    let warned = bob.waits_for("a warning", |event| broken(event).is_some()).await;
    assert_eq!(broken(&warned), Some(&Deceit::SilentList));
    place.tamper("DELETE FROM listed_device WHERE device = 666").await;

    // Another identity key for her phone, for somebody who has no session with it yet.
    place.tamper(&format!("UPDATE bundle SET identity_key = zeroblob(32) WHERE device = {id} AND protocol = 2")).await;
    let carol = place.world.device("carol", "phone").await;
    let _ = carol.client().send(&account("alice"), "hello", multiend_client::SendOptions::default()).await;
    let warned = carol.waits_for("a warning", |event| broken(event).is_some()).await;
    assert_eq!(broken(&warned), Some(&Deceit::SilentIdentity(id)));

    // The history rewritten up to where bob knows it.
    place.tamper("UPDATE history SET hash = zeroblob(32)").await;
    bob.goes_away().await;
    bob.comes_back(&place.world).await;
    let _ = bob.client().send(&account("alice"), "three", multiend_client::SendOptions::default()).await;
    let warned = bob.waits_for("a warning", |event| matches!(broken(event), Some(Deceit::NotOnChain(_)))).await;
    drop(warned);
    drop((phone, laptop));
}

/// The server's encoding and the client's are one, and the one that docs/protocol.md shows.
#[test]
fn the_hashes_are_those_of_the_specification() {
    let owner = Owner::parse("alice@example.org").unwrap();
    let device = |id| DeviceId::new(id).unwrap();
    let labelled = Device { id: device(31415), label: Some("Gajim".to_owned()), label_signature: None };
    let list = DeviceList::new(vec![labelled, Device::unlabelled(device(27182))]).unwrap();
    let labels = chain::labels_digest([(31415, Some("Gajim"), None), (27182, None, None)]);
    let vectors = [
        (
            multiend::model::Protocol::Omemo2,
            HistoryChange::Identity { device: device(31415), key: (0..32).collect() },
            HistoryProtocol::Omemo2,
            Change::Identity { device: 31415, key: (0..32).collect() },
        ),
        (
            multiend::model::Protocol::Omemo2,
            HistoryChange::list(Some(&list)),
            HistoryProtocol::Omemo2,
            Change::List { devices: vec![31415, 27182], labels },
        ),
        (
            multiend::model::Protocol::Legacy,
            HistoryChange::list(Some(&DeviceList::new(vec![Device::unlabelled(device(1))]).unwrap())),
            HistoryProtocol::Legacy,
            Change::List { devices: vec![1], labels: None },
        ),
        (multiend::model::Protocol::Legacy, HistoryChange::list(None), HistoryProtocol::Legacy, Change::NoList),
    ];
    let specification = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md")).unwrap();
    let (mut server, mut client) = (HistoryHead::START, Head::default());
    for (index, (protocol, change, client_protocol, client_change)) in (1..).zip(vectors) {
        let at = 1_780_000_000_000_000 + i64::try_from(index).unwrap();
        server = server.after(&owner, Timestamp::from_micros(at), protocol, &change);
        let entry = Entry { index, at, protocol: client_protocol, change: client_change };
        client = client.after(owner.as_str(), &entry);
        assert_eq!((server.index, server.hash), (client.index, client.hash));
        assert!(specification.contains(&hex::encode(server.hash)), "{index}: {}", hex::encode(server.hash));
    }
}
