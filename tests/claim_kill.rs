//! The race for prekeys while things die: two instances on one PostgreSQL, one of which, or PostgreSQL itself, is killed
//! with SIGKILL, twenty times. No prekey goes to two sessions, every session gets the one that it was issued, and the stock
//! loses no more than what was issued (DESIGN, directory invariants 1 to 3).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use support::multiend::Multiend;
use support::omemo::{TestDevice, devices, items, items_of, prekeys_of, publish};
use support::postgres::{Fsync, Postgres};
use support::process::poll_async;
use support::prosody::Prosody;
use support::xmpp::Client;
use support::{COMPONENT, DOMAIN, SECRET};
use tokio::time::timeout;

const ROUNDS: usize = 20;
const REQUESTERS: usize = 4;
const DEVICES: u32 = 30;
const PREKEYS: u32 = 100;
/// Sessions that each requester claims from, one after the other: together they never use up the stock.
const SESSIONS: usize = PREKEYS as usize / REQUESTERS;
/// The second instance: on Prosody it is a component of its own.
const SECOND: &str = "multiend2.example.org";
const BUNDLES: &str = "urn:xmpp:omemo:2:bundles";
const DEVICE_LIST: &str = "urn:xmpp:omemo:2:devices";
/// How long an answer may take before the same is asked again, of the other instance.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// How long a client waits before it tries again while its server says that the component is away.
const RETRY: Duration = Duration::from_millis(20);
/// No limits here: they have tests of their own.
const UNLIMITED: &str = "[directory]\nclaims_per_device = 100000\nprekey_reserve = 0\n";

/// What the traffic has done so far.
#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    claimed: AtomicUsize,
}

fn alice_at(component: &str) -> String {
    format!(r"alice\40{DOMAIN}@{component}")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_prekey_is_lost_or_given_twice_when_an_instance_or_the_database_is_killed() {
    let mut postgres = Postgres::start(Fsync::On);
    let url = postgres.fresh_database().await;
    let prosody = Prosody::builder().users(&["alice", "bob"]).multiend().component(SECOND, SECRET, "").start();
    let builder = || Multiend::builder(prosody.component_port()).database(&url).extra(UNLIMITED);
    let mut instances = [builder().start(), builder().component(SECOND, SECRET).start()];
    let port = prosody.c2s_port();

    let mut alice = Client::connect(port, DOMAIN, "alice", "phone").await;
    alice.online().await;
    // Of devices that no list names, an account may have a few bundles only.
    let list = publish(DEVICE_LIST, "current", &devices(&(1..=DEVICES).collect::<Vec<_>>()));
    let published = alice.request("set", Some(&alice_at(COMPONENT)), &list).await;
    assert_eq!(published.attr("type"), Some("result"));
    for device in 1..=DEVICES {
        let bundle = TestDevice { id: device, seed: u8::try_from(device).unwrap() }.bundle(1..=PREKEYS);
        let published =
            alice.request("set", Some(&alice_at(COMPONENT)), &publish(BUNDLES, &device.to_string(), &bundle)).await;
        assert_eq!(published.attr("type"), Some("result"));
    }

    let progress = Arc::new(Progress::default());
    let requesters: Vec<_> = (0..REQUESTERS).map(|n| tokio::spawn(claim_prekeys(port, n, progress.clone()))).collect();
    for round in 0..ROUNDS {
        let before = progress.claimed.load(Ordering::Relaxed);
        poll_async("claims", Duration::from_secs(60), async || {
            (progress.claimed.load(Ordering::Relaxed) >= before + 8 + round).then_some(())
        })
        .await;
        if round % 3 == 2 {
            postgres.kill9();
            postgres.restart();
        } else {
            let instance = &mut instances[round % 2];
            instance.kill9();
            instance.restart();
        }
    }
    progress.stop.store(true, Ordering::Relaxed);
    let mut got: BTreeMap<(u32, String), usize> = BTreeMap::new();
    for (number, requester) in requesters.into_iter().enumerate() {
        for key in requester.await.unwrap() {
            let other = got.insert(key.clone(), number);
            assert!(other.is_none(), "prekey {key:?} went to a session of {other:?} and to one of {number}");
        }
    }

    let mut database = PgConnection::connect(&url).await.unwrap();
    let (all, issued, twice, again): (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), count(issued_at), count(*) FILTER (WHERE fresh_issues > 1 OR (fresh_issues = 1) <> (issued_at IS NOT NULL)),
             sum(last_resorts)
         FROM prekey",
    )
    .fetch_one(&mut database)
    .await
    .unwrap();
    assert_eq!(all, i64::from(DEVICES * PREKEYS), "the stock is what was published");
    assert_eq!((twice, again), (0, 0), "issued twice, or as the last resort though there was stock");
    // Whoever was issued one asks until it gets it; only those who stopped in the middle did not.
    let lost = issued - i64::try_from(got.len()).unwrap();
    assert!((0..=i64::try_from(REQUESTERS).unwrap()).contains(&lost), "{lost} prekeys issued to nobody");
    let fault = r#"multiend_directory_empty_while_stocked_total{protocol="omemo2"}"#;
    assert_eq!(instances.iter().map(|instance| instance.metric(fault)).sum::<f64>(), 0.0);
    println!("{issued} prekeys issued, {} received, {ROUNDS} kills", got.len());
}

/// Claims a prekey of each device, each again and of either instance until there is an answer.
async fn claim_prekeys(port: u16, number: usize, progress: Arc<Progress>) -> Vec<(u32, String)> {
    let mut keys = Vec::new();
    let mut attempts = number;
    for session in 0..SESSIONS {
        let mut client = Client::connect(port, DOMAIN, "bob", &format!("claims-{number}-{session}")).await;
        for device in 1..=DEVICES {
            let key = loop {
                if progress.stop.load(Ordering::Relaxed) {
                    return keys;
                }
                attempts += 1;
                let alice = alice_at([COMPONENT, SECOND][attempts % 2]);
                let request = items(BUNDLES, &[&device.to_string()]);
                match timeout(PATIENCE, client.request("get", Some(&alice), &request)).await {
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
