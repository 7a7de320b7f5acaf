//! SIGKILL in the middle of traffic, twenty times on each database: nothing that was acknowledged is lost or stored twice,
//! and no prekey is issued twice (DESIGN: directory invariants 1 and 2, archive invariant 1).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use minidom::Element;
use support::multiend::Multiend;
use support::omemo::{TestDevice, devices, items, items_of, prekeys_of, publish};
use support::postgres::{Fsync, Postgres};
use support::process::poll_async;
use support::prosody::Prosody;
use support::xmpp::Client;
use support::{COMPONENT, DOMAIN};
use tokio::time::timeout;

const ROUNDS: usize = 20;
const REQUESTERS: usize = 4;
const DEVICES: u32 = 30;
const PREKEYS: u32 = 40;
/// Sessions that each requester claims from, one after the other: together they use up the stock, and no more.
const SESSIONS: usize = PREKEYS as usize / REQUESTERS;
const ALICE: &str = r"alice\40example.org@multiend.example.org";
const BOB: &str = r"bob\40example.org@multiend.example.org";
const BUNDLES: &str = "urn:xmpp:omemo:2:bundles";
const DEVICE_LIST: &str = "urn:xmpp:omemo:2:devices";
/// Large pages, and no limits on claims: those have tests of their own.
const SETTINGS: &str = "[archive]\npage_max = 250\n[directory]\nclaims_per_device = 100000\nprekey_reserve = 0\n";
/// How long an answer may take before the same is asked again.
const PATIENCE: Duration = Duration::from_millis(700);
/// How long a client waits before it tries again while its server says that the component is away.
const RETRY: Duration = Duration::from_millis(20);

/// What the traffic has done so far.
#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    acknowledged: AtomicUsize,
    claimed: AtomicUsize,
}

impl Progress {
    fn done(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed) + self.claimed.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_it_is_killed_on_sqlite() {
    killed_twenty_times(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_it_is_killed_on_postgresql() {
    let postgres = Postgres::start(Fsync::On);
    let url = postgres.fresh_database().await;
    killed_twenty_times(Some(&url)).await;
}

async fn killed_twenty_times(database: Option<&str>) {
    let prosody = Prosody::builder().users(&["alice", "bob"]).multiend().start();
    let mut builder = Multiend::builder(prosody.component_port()).extra(SETTINGS);
    if let Some(url) = database {
        builder = builder.database(url);
    }
    let mut multiend = builder.start();
    let port = prosody.c2s_port();

    let mut alice = Client::connect(port, DOMAIN, "alice", "phone").await;
    alice.online().await;
    // Of devices that no list names, an account may have a few bundles only.
    let list = publish(DEVICE_LIST, "current", &devices(&(1..=DEVICES).collect::<Vec<_>>()));
    assert_eq!(alice.request("set", Some(ALICE), &list).await.attr("type"), Some("result"));
    for device in 1..=DEVICES {
        let bundle = TestDevice { id: device, seed: u8::try_from(device).unwrap() }.bundle(1..=PREKEYS);
        let published = alice.request("set", Some(ALICE), &publish(BUNDLES, &device.to_string(), &bundle)).await;
        assert_eq!(published.attr("type"), Some("result"));
    }
    let mut bob = Client::connect(port, DOMAIN, "bob", "reader").await;
    bob.request("set", Some(BOB), &publish(BUNDLES, "1", &TestDevice { id: 1, seed: 99 }.bundle(1..=3))).await;

    let progress = Arc::new(Progress::default());
    let sender = tokio::spawn(send_messages(port, progress.clone()));
    let requesters: Vec<_> = (0..REQUESTERS).map(|n| tokio::spawn(claim_prekeys(port, n, progress.clone()))).collect();

    for round in 0..ROUNDS {
        let before = progress.done();
        poll_async("traffic", Duration::from_secs(90), async || (progress.done() >= before + 12 + round).then_some(()))
            .await;
        multiend.kill9();
        multiend.restart();
    }
    progress.stop.store(true, Ordering::Relaxed);
    let acknowledged = sender.await.unwrap();
    let mut issued: BTreeMap<(u32, String), usize> = BTreeMap::new();
    for (number, requester) in requesters.into_iter().enumerate() {
        for key in requester.await.unwrap() {
            let other = issued.insert(key.clone(), number);
            assert!(other.is_none(), "prekey {key:?} went to a session of {other:?} and to one of {number}");
        }
    }

    for (client, archive) in [(&mut alice, ALICE), (&mut bob, BOB)] {
        let stored = archived_ids(client, archive).await;
        let unique: BTreeSet<&String> = stored.iter().collect();
        assert_eq!(unique.len(), stored.len(), "nothing is stored twice");
        let lost: Vec<&String> = acknowledged.iter().filter(|id| !unique.contains(id)).collect();
        assert!(lost.is_empty(), "acknowledged, but not in {archive}: {lost:?}");
        let in_order: Vec<&String> = stored.iter().filter(|id| acknowledged.contains(*id)).collect();
        assert!(in_order.iter().zip(&acknowledged).all(|(stored, sent)| *stored == sent), "retries do not reorder");
    }
    let (status, totals, _) = multiend.command(&["admin", "stats", "--json"]);
    assert!(status.success());
    let totals: serde_json::Value = serde_json::from_str(&totals).unwrap();
    assert_eq!(totals["directory"]["issued_twice"], 0);
    assert!(totals["directory"]["issued"].as_u64().unwrap() >= issued.len() as u64);
    assert_eq!(totals["directory"]["last_resort"], 0, "there was stock for every session");
    println!("{} messages acknowledged, {} prekeys issued, {ROUNDS} kills", acknowledged.len(), issued.len());
}

/// Sends one message after the other, each again until it is acknowledged.
async fn send_messages(port: u16, progress: Arc<Progress>) -> Vec<String> {
    let mut client = Client::connect(port, DOMAIN, "alice", "sender").await;
    let mut acknowledged = Vec::new();
    while !progress.stop.load(Ordering::Relaxed) {
        let id = format!("m{:05}", acknowledged.len());
        loop {
            client
                .send_raw(&format!(
                    "<message type='chat' to='{BOB}' id='{id}'><body>message {id}</body>\
                     <request xmlns='urn:multiend:0'/></message>"
                ))
                .await;
            let answer = client.wait_for("an answer", |stanza| {
                let archived = stanza.get_child("archived", "urn:multiend:0");
                archived.is_some_and(|archived| archived.attr("for") == Some(&id)) || stanza.attr("id") == Some(&id)
            });
            match timeout(PATIENCE, answer).await {
                Ok(stanza) if stanza.attr("type") != Some("error") => break,
                Ok(_) => tokio::time::sleep(RETRY).await,
                Err(_) => {}
            }
        }
        acknowledged.push(id);
        progress.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

/// Claims a prekey of each device, each again until there is an answer.
async fn claim_prekeys(port: u16, number: usize, progress: Arc<Progress>) -> Vec<(u32, String)> {
    let mut keys = Vec::new();
    for session in 0..SESSIONS {
        let mut client = Client::connect(port, DOMAIN, "bob", &format!("claims-{number}-{session}")).await;
        for device in 1..=DEVICES {
            let key = loop {
                if progress.stop.load(Ordering::Relaxed) {
                    return keys;
                }
                match timeout(PATIENCE, client.request("get", Some(ALICE), &items(BUNDLES, &[&device.to_string()])))
                    .await
                {
                    Ok(answer) if answer.attr("type") == Some("result") => {
                        break prekeys_of(&items_of(&answer)[0].1).remove(0).1;
                    }
                    _ => tokio::time::sleep(RETRY).await,
                }
            };
            keys.push((device, key));
            progress.claimed.fetch_add(1, Ordering::Relaxed);
        }
    }
    keys
}

/// The ids of all messages of an archive, in order.
async fn archived_ids(client: &mut Client, archive: &str) -> Vec<String> {
    const MAM: &str = "urn:xmpp:mam:2";
    const RSM: &str = "http://jabber.org/protocol/rsm";
    let (mut ids, mut after) = (Vec::new(), String::new());
    loop {
        let query = format!("<query xmlns='{MAM}'><set xmlns='{RSM}'><max>250</max>{after}</set></query>");
        let answer = client.request("set", Some(archive), &query).await;
        let results = client.everything_until_pong(COMPONENT).await;
        ids.extend(results.iter().filter_map(|stanza| {
            let forwarded: &Element = stanza.get_child("result", MAM)?.children().next()?;
            let message = forwarded.children().find(|child| child.name() == "message")?;
            Some(message.attr("id")?.to_owned())
        }));
        let fin = answer.get_child("fin", MAM).unwrap_or_else(|| panic!("{}", String::from(&answer)));
        if fin.attr("complete") == Some("true") {
            return ids;
        }
        let last = fin.get_child("set", RSM).unwrap().get_child("last", RSM).unwrap().text();
        after = format!("<after>{last}</after>");
    }
}
