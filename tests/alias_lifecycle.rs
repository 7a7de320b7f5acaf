//! The life cycle of devices in a running server: what clients see of it, what operators see and do, what `/metrics` says
//! (DESIGN: directory invariant 8).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use std::time::Duration;

use minidom::Element;
use serde_json::Value;
use support::DOMAIN;
use support::multiend::Multiend;
use support::omemo::{OMEMO_2, PUBSUB, TestDevice, devices, ids_of, items, items_of, publish};
use support::process::poll;
use support::prosody::Prosody;
use support::xmpp::Client;

const DEVICES: &str = "urn:xmpp:omemo:2:devices";
const BUNDLES: &str = "urn:xmpp:omemo:2:bundles";
const ALICE: &str = r"alice\40example.org@multiend.example.org";
const BOB: &str = r"bob\40example.org@multiend.example.org";
const OWNER: &str = "alice@example.org";
const DEADLINE: Duration = Duration::from_secs(60);

struct Setup {
    prosody: Prosody,
    multiend: Multiend,
}

fn setup(lifecycle: &str) -> Setup {
    let prosody = Prosody::builder().users(&["alice", "bob"]).multiend().start();
    let extra = format!("[directory.lifecycle]\n{lifecycle}\n");
    let multiend = Multiend::builder(prosody.component_port()).extra(&extra).start();
    Setup { prosody, multiend }
}

impl Setup {
    async fn client(&self, user: &str, resource: &str) -> Client {
        let mut client = Client::connect(self.prosody.c2s_port(), DOMAIN, user, resource).await;
        client.online().await;
        client
    }

    /// Runs `multiend admin … --json` beside the server.
    fn admin(&self, args: &[&str]) -> Value {
        let (status, out, errors) = self.multiend.command(&[&["admin"], args, &["--json"]].concat());
        assert!(status.success(), "{args:?}: {errors}");
        serde_json::from_str(&out).unwrap()
    }

    /// What `admin devices` says of one device.
    fn device(&self, id: u32) -> Value {
        let devices = self.admin(&["devices", OWNER]);
        let devices = devices["devices"].as_array().unwrap();
        devices.iter().find(|device| device["device"] == id).unwrap_or(&Value::Null).clone()
    }

    fn metric(&self, name: &str, value: f64) {
        poll(name, DEADLINE, || ((self.multiend.metric(name) - value).abs() < 0.1).then_some(()));
    }
}

async fn ok(client: &mut Client, kind: &str, payload: &str) -> Element {
    let answer = client.request(kind, Some(ALICE), payload).await;
    assert_eq!(answer.attr("type"), Some("result"), "{payload}\n=> {}", String::from(&answer));
    answer
}

async fn put_bundle(client: &mut Client, id: u32) {
    let bundle = TestDevice { id, seed: (id % 200) as u8 }.bundle(1..=3);
    ok(client, "set", &publish(BUNDLES, &id.to_string(), &bundle)).await;
}

async fn announce(client: &mut Client, ids: &[u32]) {
    ok(client, "set", &publish(DEVICES, "current", &devices(ids))).await;
}

async fn read(client: &mut Client) -> Vec<u32> {
    ids_of(&items_of(&ok(client, "get", &items(DEVICES, &[])).await)[0].1)
}

async fn subscribed(setup: &Setup) -> Client {
    let mut bob = setup.client("bob", "phone").await;
    let jid = bob.jid().to_owned();
    ok(&mut bob, "set", &format!("<pubsub xmlns='{PUBSUB}'><subscribe node='{DEVICES}' jid='{jid}'/></pubsub>")).await;
    bob
}

/// Waits for an event with exactly these devices.
async fn told(bob: &mut Client, ids: &[u32]) {
    let list = |stanza: &Element| {
        let event = stanza.get_child("event", "http://jabber.org/protocol/pubsub#event")?;
        let items = event.children().find(|child| child.name() == "items")?;
        Some(ids_of(items.children().next()?.children().next()?))
    };
    bob.wait_for(&format!("an event with {ids:?}"), |stanza| list(stanza).as_deref() == Some(ids)).await;
}

#[tokio::test]
async fn directory_8_a_device_without_a_bundle_is_quarantined_and_its_bundle_brings_it_back() {
    let setup = setup("mode = \"on\"\nbundle_grace = \"2s\"\ninterval = \"1s\"");
    let mut phone = setup.client("alice", "phone").await;
    put_bundle(&mut phone, 1001).await;
    announce(&mut phone, &[1001, 2002]).await;
    let mut bob = subscribed(&setup).await;
    told(&mut bob, &[1001]).await;
    assert_eq!(read(&mut bob).await, [1001]);
    assert_eq!(read(&mut phone).await, [1001], "the owner's sessions, too, or they would bring it back");
    setup.metric("multiend_directory_quarantined_total{cause=\"no-bundle\"}", 1.0);
    setup.metric("multiend_directory_devices{protocol=\"omemo2\",state=\"quarantined\"}", 1.0);
    // Its own session publishes what was missing.
    let mut laptop = setup.client("alice", "laptop").await;
    put_bundle(&mut laptop, 2002).await;
    told(&mut bob, &[1001, 2002]).await;
    setup.metric("multiend_directory_revived_total", 1.0);
    setup.metric("multiend_directory_devices{protocol=\"omemo2\",state=\"listed\"}", 2.0);
}

#[tokio::test]
async fn directory_8_a_dry_run_shows_in_the_metrics_and_nowhere_else() {
    let setup = setup("bundle_grace = \"1s\"\ninterval = \"1s\"");
    let mut phone = setup.client("alice", "phone").await;
    put_bundle(&mut phone, 1001).await;
    announce(&mut phone, &[1001, 2002]).await;
    setup.metric("multiend_directory_would_quarantine_devices{cause=\"no-bundle\"}", 1.0);
    setup.metric("multiend_directory_devices{protocol=\"omemo2\",state=\"listed\"}", 2.0);
    assert_eq!(setup.multiend.metric("multiend_directory_quarantined_total{cause=\"no-bundle\"}"), 0.0);
    assert_eq!(read(&mut phone).await, [1001, 2002]);
}

#[tokio::test]
async fn an_operator_quarantines_revives_and_removes_beside_a_running_server() {
    let setup = setup("");
    let mut phone = setup.client("alice", "phone").await;
    put_bundle(&mut phone, 1001).await;
    announce(&mut phone, &[1001, 2002]).await;
    let mut bob = subscribed(&setup).await;
    let device = |what: &'static str| setup.admin(&[what, OWNER, "omemo2", "2002"]);
    assert_eq!(device("quarantine")["state"], "quarantined");
    told(&mut bob, &[1001]).await;
    assert_eq!(
        (&setup.device(2002)["state"], &setup.device(2002)["cause"]),
        (&"quarantined".into(), &"operator".into())
    );
    assert_eq!(device("revive")["state"], "listed");
    told(&mut bob, &[1001, 2002]).await;
    // A list that names it brings it back as well.
    device("quarantine");
    told(&mut bob, &[1001]).await;
    announce(&mut phone, &[2002, 1001]).await;
    told(&mut bob, &[2002, 1001]).await;
    assert_eq!(device("remove")["state"], "removed");
    told(&mut bob, &[1001]).await;
    assert_eq!(setup.device(2002), Value::Null);

    for (args, text) in [
        (["quarantine", OWNER, "omemo2", "2002"], "omemo2 device 2002 of alice@example.org is not listed"),
        (["revive", OWNER, "legacy", "1001"], "legacy device 1001 of alice@example.org is not in quarantine"),
        (["remove", "nobody@example.org", "omemo2", "1"], "is neither listed nor quarantined"),
    ] {
        let (status, _, errors) = setup.multiend.command(&[&["admin"], &args[..]].concat());
        assert_eq!(status.code(), Some(1));
        assert!(errors.contains(text), "{errors}");
    }
    for args in [["quarantine", OWNER, "omemo", "1"], ["quarantine", OWNER, "omemo2", "0"]] {
        let (status, ..) = setup.multiend.command(&[&["admin"], &args[..]].concat());
        assert_eq!(status.code(), Some(2), "{args:?}");
    }
}

#[tokio::test]
async fn an_operator_sees_owners_and_devices_as_tables_and_as_json() {
    let setup = setup("");
    let mut phone = setup.client("alice", "phone").await;
    put_bundle(&mut phone, 1001).await;
    announce(&mut phone, &[1001, 2002]).await;
    let mut bob = setup.client("bob", "phone").await;
    ok(&mut bob, "get", &items(BUNDLES, &["1001"])).await;
    let bundle = TestDevice { id: 5, seed: 5 }.bundle(1..=3);
    let answer = bob.request("set", Some(BOB), &publish(BUNDLES, "5", &bundle)).await;
    assert_eq!(answer.attr("type"), Some("result"));

    let seen = setup.device(1001);
    let figures = ["unissued", "issued", "consumed"].map(|figure| seen[figure].as_u64().unwrap());
    assert_eq!((&seen["state"], figures), (&"listed".into(), [2, 1, 0]), "{seen}");
    assert_eq!(seen["fingerprint"].as_str().unwrap().len(), 64);
    assert!(seen["seen_at"].as_str() >= seen["listed_at"].as_str() && seen["published_at"].is_string(), "{seen}");
    assert!(setup.device(2002)["published_at"].is_null());

    let (status, table, errors) = setup.multiend.command(&["admin", "devices", OWNER]);
    assert!(status.success(), "{errors}");
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("protocol  device  label  state   last seen"), "{table}");
    assert!(lines[1].starts_with("omemo2      1001  -      listed  20"), "{table}");
    assert_eq!(lines.len(), 3, "{table}");

    let first = setup.admin(&["owners", "--limit", "1"]);
    assert_eq!(first["owners"][0]["owner"], OWNER);
    assert_eq!(first["owners"][0]["omemo2"], 2);
    let next = first["next"].as_str().unwrap();
    let second = setup.admin(&["owners", "--limit", "5", "--after", next]);
    assert_eq!((&second["owners"][0]["owner"], &second["next"]), (&"bob@example.org".into(), &Value::Null));
    let (_, table, _) = setup.multiend.command(&["admin", "owners"]);
    assert!(table.contains("owner              legacy  omemo2  quarantined  bundles"), "{table}");
    let (status, _, errors) = setup.multiend.command(&["admin", "devices", "nobody@example.org"]);
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("nobody@example.org is not known here"), "{errors}");
}

#[tokio::test]
async fn directory_8_every_sign_of_life_is_written() {
    let setup = setup("seen_granularity = \"1ms\"");
    let mut phone = setup.client("alice", "phone").await;
    announce(&mut phone, &[1, 2, 3, 4, 9]).await;
    let mut sessions = Vec::new();
    for id in [1, 2, 3, 4] {
        let mut client = setup.client("alice", &format!("device{id}")).await;
        put_bundle(&mut client, id).await;
        sessions.push(client);
    }
    let seen = |id| setup.device(id)["seen_at"].as_str().unwrap().to_owned();
    // What publishing the bundles has left is written first.
    for id in [1, 2, 3, 4] {
        poll("the publish", DEADLINE, || (seen(id) != seen(9)).then_some(()));
    }
    let before = [1, 2, 3, 4].map(seen);
    ok(&mut sessions[0], "get", &items(BUNDLES, &["1"])).await;
    let query = "<query xmlns='urn:xmpp:mam:2'/>";
    assert_eq!(sessions[1].request("set", Some(ALICE), query).await.attr("type"), Some("result"));
    let message = format!(
        "<message to='{ALICE}' type='chat' id='m'><encrypted xmlns='{OMEMO_2}'><header sid='3'/>\
         <payload>aGVsbG8=</payload></encrypted></message>"
    );
    sessions[2].send_raw(&message).await;
    put_bundle(&mut sessions[3], 4).await;
    for (id, before) in [1, 2, 3, 4].into_iter().zip(before) {
        poll(&format!("a sign of device {id}"), DEADLINE, || (seen(id) > before).then_some(()));
    }
}
