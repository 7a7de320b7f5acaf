//! What a user who means harm, or has bad luck, may do to others through the alias door of a real Prosody: nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use sqlx::Connection as _;
use support::multiend::Multiend;
use support::omemo::{PUBSUB, TestDevice, devices, ids_of, items, items_of, publish};
use support::postgres::{Fsync, Postgres};
use support::process::{poll, poll_async};
use support::prosody::Prosody;
use support::xmpp::{Client, DEADLINE, error_condition};
use support::{COMPONENT, DOMAIN};

const ALICE: &str = r"alice\40example.org@multiend.example.org";
const BOB: &str = r"bob\40example.org@multiend.example.org";
const MULTIEND: &str = "urn:multiend:0";
const DEVICES: &str = "urn:xmpp:omemo:2:devices";
const BUNDLES: &str = "urn:xmpp:omemo:2:bundles";

struct Setup {
    prosody: Prosody,
    multiend: Multiend,
}

fn setup() -> Setup {
    let prosody = Prosody::builder().users(&["alice", "bob", "carol"]).multiend().start();
    let multiend = Multiend::builder(prosody.component_port()).start();
    Setup { prosody, multiend }
}

impl Setup {
    async fn client(&self, user: &str, resource: &str) -> Client {
        let mut client = Client::connect(self.prosody.c2s_port(), DOMAIN, user, resource).await;
        client.online().await;
        client
    }
}

/// A bundle of `device` that is valid, and longer than it need be by `padding` bytes.
fn padded_bundle(device: TestDevice, padding: usize) -> String {
    let padding = format!("<padding xmlns='urn:example:padding'>{}</padding></bundle>", "x".repeat(padding));
    device.bundle(1..=3).replace("</bundle>", &padding)
}

#[tokio::test]
async fn an_answer_too_long_for_the_server_does_not_end_the_stream() {
    let setup = setup();
    let mut alice = setup.client("alice", "phone").await;
    let device = |id| TestDevice { id, seed: u8::try_from(id).unwrap() };
    let too_big = alice.request("set", Some(ALICE), &publish(BUNDLES, "1", &padded_bundle(device(1), 70_000))).await;
    assert_eq!(error_condition(&too_big), Some("not-acceptable"));
    for id in 1..=10 {
        let bundle = padded_bundle(device(id), 60_000);
        let answer = alice.request("set", Some(ALICE), &publish(BUNDLES, &id.to_string(), &bundle)).await;
        assert_eq!(answer.attr("type"), Some("result"));
    }
    let all = alice.request("get", Some(ALICE), &items(BUNDLES, &[])).await;
    assert_eq!(error_condition(&all), Some("not-acceptable"));
    let some = alice.request("get", Some(ALICE), &items(BUNDLES, &["1", "2", "3"])).await;
    assert_eq!(items_of(&some).len(), 3);
    assert!(setup.multiend.metric("multiend_link_reconnects_total") < 0.5);
}

#[tokio::test]
async fn naming_a_device_twice_claims_once_and_a_refused_delete_claims_nothing() {
    let setup = setup();
    let mut alice = setup.client("alice", "phone").await;
    let device = TestDevice { id: 1, seed: 1 };
    alice.request("set", Some(ALICE), &publish(BUNDLES, "1", &device.bundle(1..=3))).await;
    alice.request("set", Some(ALICE), &publish(DEVICES, "current", &devices(&[1]))).await;
    let mut bob = setup.client("bob", "phone").await;
    let delete = format!("<pubsub xmlns='{PUBSUB}#owner'><delete node='{BUNDLES}'/></pubsub>");
    let answer = bob.request("set", Some(ALICE), &delete).await;
    assert_eq!(error_condition(&answer), Some("forbidden"));
    let claims = |result: &str| {
        setup.multiend.metric(&format!("multiend_directory_claims_total{{protocol=\"omemo2\",result=\"{result}\"}}"))
    };
    assert!(claims("fresh") < 0.5, "a refused delete hands out nothing");
    let answer = bob.request("get", Some(ALICE), &items(BUNDLES, &["1", "1", "1"])).await;
    assert_eq!(items_of(&answer).len(), 1);
    assert!(claims("repeat") < 0.5);
    assert_eq!(alice.request("set", Some(ALICE), &delete).await.attr("type"), Some("result"));
    let answer = bob.request("get", Some(ALICE), &items(BUNDLES, &["1"])).await;
    assert_eq!(error_condition(&answer), Some("item-not-found"));
}

#[tokio::test]
async fn a_shutdown_ends_although_the_database_is_away() {
    let mut postgres = Postgres::start(Fsync::Off);
    let database = postgres.fresh_database().await;
    let prosody = Prosody::builder().users(&["alice"]).multiend().start();
    let mut multiend = Multiend::builder(prosody.component_port())
        .database(&database)
        .env("MULTIEND_COMPONENT__DRAIN_TIMEOUT", "1s")
        .start();
    let mut alice = Client::connect(prosody.c2s_port(), DOMAIN, "alice", "phone").await;
    alice.online().await;
    let message =
        |id: &str| format!("<message to='{ALICE}' id='{id}'><body>b</body><request xmlns='urn:multiend:0'/></message>");
    alice.send_raw(&message("m1")).await;
    alice.wait_for("the acknowledgement", |stanza| stanza.get_child("archived", MULTIEND).is_some()).await;
    postgres.stop();
    alice.send_raw(&message("m2")).await;
    poll("the writer to be in trouble", DEADLINE, || multiend.log().contains("cannot be stored now").then_some(()));
    assert!(multiend.terminate().success());
}

#[tokio::test]
async fn allowances_that_are_full_again_are_forgotten() {
    let prosody = Prosody::builder().users(&["alice", "bob"]).multiend().start();
    let multiend = Multiend::builder(prosody.component_port()).extra("[archive]\npurge_interval = \"1s\"\n").start();
    let mut alice = Client::connect(prosody.c2s_port(), DOMAIN, "alice", "phone").await;
    let bundle = TestDevice { id: 1, seed: 1 }.bundle(1..=3);
    alice.request("set", Some(ALICE), &publish(BUNDLES, "1", &bundle)).await;
    let mut bob = Client::connect(prosody.c2s_port(), DOMAIN, "bob", "phone").await;
    let claimed = bob.request("get", Some(ALICE), &items(BUNDLES, &["1"])).await;
    assert_eq!(items_of(&claimed).len(), 1);
    let file = multiend.data_dir().join("multiend.sqlite3");
    let mut database = sqlx::SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    // What somebody claimed a month ago, as it was then written.
    sqlx::query("INSERT INTO claim_budget SELECT 1, 'eve@example.net', spent_until, spent_day - 30 FROM claim_budget")
        .execute(&mut database)
        .await
        .unwrap();
    poll_async("what is old to be forgotten", DEADLINE, async || {
        let left: Vec<String> =
            sqlx::query_scalar("SELECT name FROM claim_budget").fetch_all(&mut database).await.unwrap();
        (left == ["bob@example.org"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_forged_stanza_id_is_taken_out_of_whatever_is_relayed() {
    let setup = setup();
    let mut alice = setup.client("alice", "phone").await;
    let mut bob = setup.client("bob", "phone").await;
    bob.request("set", Some(BOB), &publish(DEVICES, "current", &devices(&[1]))).await;
    for by in [BOB, COMPONENT] {
        for (kind, to) in [("chat", BOB.to_owned()), ("error", format!("{BOB}/phone"))] {
            let id = alice.fresh_id();
            let forged = format!("<stanza-id xmlns='urn:xmpp:sid:0' by='{by}' id='forged'/>");
            alice
                .send_raw(&format!("<message type='{kind}' to='{to}' id='{id}'><body>b</body>{forged}</message>"))
                .await;
            let relayed = bob.wait_for("the message", |stanza| stanza.attr("id") == Some(&id)).await;
            assert!(!String::from(&relayed).contains("forged"), "{kind} {by}: {}", String::from(&relayed));
        }
    }
}

#[tokio::test]
async fn a_session_that_was_away_has_not_seen_what_was_announced() {
    let setup = setup();
    let mut laptop = setup.client("alice", "laptop").await;
    let subscribe = format!("<pubsub xmlns='{PUBSUB}'><subscribe node='{DEVICES}' jid='{}'/></pubsub>", laptop.jid());
    laptop.request("set", Some(ALICE), &subscribe).await;
    laptop.request("set", Some(ALICE), &publish(DEVICES, "current", &devices(&[1]))).await;
    drop(laptop);
    let mut phone = setup.client("alice", "phone").await;
    phone.request("set", Some(ALICE), &publish(DEVICES, "current", &devices(&[2]))).await;
    let mut laptop = setup.client("alice", "laptop").await;
    laptop.request("set", Some(ALICE), &publish(DEVICES, "current", &devices(&[1]))).await;
    let list = items_of(&phone.request("get", Some(ALICE), &items(DEVICES, &[])).await).remove(0).1;
    assert_eq!(ids_of(&list), [1, 2], "the laptop never saw the phone's device");
}

#[tokio::test]
async fn one_account_cannot_take_all_the_subscriptions_to_a_list() {
    let setup = setup();
    let mut alice = setup.client("alice", "phone").await;
    alice.request("set", Some(ALICE), &publish(DEVICES, "current", &devices(&[1]))).await;
    let subscribe = |jid: &str| format!("<pubsub xmlns='{PUBSUB}'><subscribe node='{DEVICES}' jid='{jid}'/></pubsub>");
    for n in 0..17 {
        let mut bob = setup.client("bob", &format!("r{n}")).await;
        let (full, bare) = (bob.jid().to_owned(), bob.bare().to_owned());
        let answer = bob.request("set", Some(ALICE), &subscribe(&full)).await;
        if n < 16 {
            assert_eq!(answer.attr("type"), Some("result"), "{n}");
        } else {
            assert_eq!(error_condition(&answer), Some("policy-violation"));
            assert_eq!(bob.request("set", Some(ALICE), &subscribe(&bare)).await.attr("type"), Some("result"));
        }
    }
    let mut carol = setup.client("carol", "phone").await;
    let carols = subscribe(carol.jid());
    assert_eq!(carol.request("set", Some(ALICE), &carols).await.attr("type"), Some("result"));
}
