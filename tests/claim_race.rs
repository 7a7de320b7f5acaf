//! The race for prekeys: many requesters at once, over several connections and two instances on one database. No prekey
//! goes to two requesters, none is refused or given a last resort while stock is left, and a repeat gives the same prekey
//! (DESIGN, directory invariants 1, 2 and 4).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

#[path = "support"]
#[allow(dead_code, unreachable_pub)]
mod support {
    pub mod ports;
    pub mod postgres;
    pub mod process;
}

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use multiend::directory::{BundleItem, Directory, DirectoryMetrics, LifeSettings, Settings, Wanted};
use multiend::model::{
    Bundle, Claimant, Device, DeviceId, DeviceList, Owner, Prekey, PrekeyId, Protocol, PublishedBundle, Requester,
    SessionJid, SignedPrekey, SystemClock, Timestamp,
};
use multiend::store::{self, Claim, ClaimKind, ClaimOutcome, ClaimRules, SharedStore};
use prometheus::Registry;
use support::postgres::{Fsync, Postgres};
use tokio::task::JoinSet;

/// As many as a bundle may hold.
const PREKEYS: u32 = 250;
/// Connections of one instance.
const POOL: u32 = 8;
/// Every so manieth requester asks twice at the same time, through both instances.
const ASKS_TWICE: u32 = 2;

/// Without limits.
const RULES: ClaimRules = ClaimRules {
    repeat_window: Duration::from_secs(24 * 3600),
    per_device: u32::MAX,
    per_requester: u32::MAX,
    per_domain: u32::MAX,
    reserve: 0,
    reserve_per_hour: 0,
    low_stock: 0,
};

fn now() -> Timestamp {
    Timestamp::from_micros(1_780_000_000_000_000)
}

fn owner() -> Owner {
    Owner::parse("alice@example.org").unwrap()
}

fn device(number: u32) -> DeviceId {
    DeviceId::new(number + 1).unwrap()
}

async fn publish(store: &SharedStore, number: u32) {
    let prekeys = (1..=PREKEYS).map(|id| {
        let mut key = vec![0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        key[4..8].copy_from_slice(&id.to_be_bytes());
        Prekey { id: PrekeyId::new(id).unwrap(), key }
    });
    let published = PublishedBundle {
        bundle: Bundle {
            identity_key: vec![1; 32],
            signed_prekey: SignedPrekey { id: 1, key: vec![2; 32], signature: vec![3; 64] },
            prekeys: prekeys.collect(),
        },
        item_id: "1".to_owned(),
        payload: Bytes::from_static(b"<bundle/>"),
    };
    store.publish_bundle(&owner(), Protocol::Omemo2, device(number), &session(), &published, now()).await.unwrap();
}

fn session() -> SessionJid {
    SessionJid::parse("alice@example.org/phone").unwrap()
}

async fn claim(store: &SharedStore, number: u32, requester: u32) -> (ClaimKind, Vec<u8>) {
    let claim = Claim {
        owner: owner(),
        protocol: Protocol::Omemo2,
        device: device(number),
        claimant: Claimant::Address(Requester::parse(&format!("r{requester}@example.net/phone")).unwrap()),
        foreign: true,
        strict: false,
    };
    match store.claim(&claim, &RULES, now()).await.unwrap() {
        ClaimOutcome::Handed { prekey, kind, .. } => (kind, prekey.key),
        refused => panic!("requester {requester} of device {number}: {refused:?}"),
    }
}

/// `workers` requesters at a time empty the stock of `devices` devices, one device after the other, to the last prekey.
async fn race(instances: Vec<SharedStore>, workers: usize, devices: u32) {
    // Of devices that no list names, an account may have a few bundles only.
    let list = DeviceList::new((0..devices).map(|number| Device::unlabelled(device(number))).collect()).unwrap();
    let most = usize::try_from(devices).unwrap();
    instances[0].publish_device_list(&owner(), Protocol::Omemo2, &session(), &list, most, now()).await.unwrap();
    for number in 0..devices {
        publish(&instances[0], number).await;
    }
    let turn = Arc::new(AtomicU32::new(0));
    let mut running = JoinSet::new();
    for worker in 0..workers {
        let (instances, turn) = (instances.clone(), turn.clone());
        running.spawn(async move {
            let (own, other) = (&instances[worker % instances.len()], &instances[(worker + 1) % instances.len()]);
            let mut handed = Vec::new();
            loop {
                let requester = turn.fetch_add(1, Ordering::Relaxed);
                let number = requester / PREKEYS;
                if number >= devices {
                    return handed;
                }
                let (kind, key) = if requester % ASKS_TWICE == 0 {
                    let (one, two) = tokio::join!(claim(own, number, requester), claim(other, number, requester));
                    assert_eq!(one.1, two.1, "two answers for one requester");
                    let (first, second) = if one.0 == ClaimKind::Repeat { (two, one) } else { (one, two) };
                    assert_eq!(second.0, ClaimKind::Repeat);
                    first
                } else {
                    claim(own, number, requester).await
                };
                assert_eq!(kind, ClaimKind::Fresh, "requester {requester} while stock was left");
                handed.push((number, requester, key));
            }
        });
    }
    let handed: Vec<_> = running.join_all().await.into_iter().flatten().collect();
    let issued = devices * PREKEYS;
    assert_eq!(handed.len(), issued as usize);
    let keys: BTreeMap<_, _> = handed.iter().map(|(_, requester, key)| (key, requester)).collect();
    assert_eq!(keys.len(), issued as usize, "a prekey went to two requesters");
    for (number, requester, key) in handed.iter().step_by(97) {
        let again = claim(&instances[1], *number, *requester).await;
        assert_eq!(again, (ClaimKind::Repeat, key.clone()));
    }
    let totals = instances[0].directory_totals().await.unwrap();
    assert_eq!((totals.issued, totals.issued_twice, totals.last_resort), (u64::from(issued), 0, 0));
    for number in 0..devices {
        assert_eq!(instances[0].stock(&owner(), Protocol::Omemo2, device(number)).await.unwrap().unissued, 0);
        assert_eq!(claim(&instances[0], number, u32::MAX).await.0, ClaimKind::LastResort);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_requesters_over_two_instances_on_postgres() {
    let postgres = Postgres::start(Fsync::On);
    let url = postgres.fresh_database().await;
    store::migrate(&url).await.unwrap();
    let instances = vec![store::open(&url, POOL).await.unwrap(), store::open(&url, POOL).await.unwrap()];
    race(instances, 64, 40).await;
}

/// Clients ask for all devices of a contact at once, one by one or in one request: limits are counted for each account, and
/// yet nobody waits for a transaction for each device.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_account_asks_for_at_once_is_handed_out_together() {
    const DEVICES: u32 = 40;
    let postgres = Postgres::start(Fsync::On);
    let url = postgres.fresh_database().await;
    store::migrate(&url).await.unwrap();
    let store = store::open(&url, POOL).await.unwrap();
    let list = DeviceList::new((0..DEVICES).map(|number| Device::unlabelled(device(number))).collect()).unwrap();
    store.publish_device_list(&owner(), Protocol::Omemo2, &session(), &list, DEVICES as usize, now()).await.unwrap();
    for number in 0..DEVICES {
        publish(&store, number).await;
        // The first claim after a publish looks at the stock with care.
        claim(&store, number, 1).await;
    }
    let registry = Registry::new();
    store.metrics().register(&registry).unwrap();
    let count = |operation| {
        let families = registry.gather();
        let metrics = families.iter().flat_map(|family| family.get_metric());
        let counted = metrics.filter(|metric| metric.get_label().iter().any(|label| label.value() == operation));
        counted.map(|metric| metric.get_histogram().get_sample_count()).sum::<u64>()
    };
    let with_care = count("claim");
    let settings = Settings {
        max_devices: DEVICES as usize,
        claims: RULES,
        domains: Default::default(),
        max_subscriptions: 1,
        life: LifeSettings::default(),
    };
    let metrics = DirectoryMetrics::register(&Registry::new()).unwrap();
    let directory = Arc::new(Directory::new(store, Arc::new(SystemClock), settings, metrics));
    let wanted = |number| Wanted { owner: owner(), protocol: Protocol::Omemo2, device: device(number), strict: true };
    let all: Vec<Wanted> = (0..DEVICES).map(wanted).collect();
    for round in 0..20 {
        let requester = Requester::parse(&format!("bob@example.net/{round}")).unwrap();
        let answers = directory.claim_batch(&requester, &all).await;
        assert!(answers.iter().all(|answer| matches!(answer, Ok(BundleItem::WithPrekey { .. }))));
        let mut asking = JoinSet::new();
        for number in 0..DEVICES {
            let (directory, wanted) = (directory.clone(), wanted(number));
            let requester = Requester::parse(&format!("carol@example.net/{round}")).unwrap();
            asking.spawn(async move { directory.claim_batch(&requester, &[wanted]).await.pop() });
        }
        let answers = asking.join_all().await;
        assert!(answers.iter().all(|answer| matches!(answer, Some(Ok(BundleItem::WithPrekey { .. })))));
    }
    assert_eq!(count("claim"), with_care, "claims for which there was a transaction each");
    assert!(count("claim-batch") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_requesters_over_two_instances_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("multiend.db").display());
    store::migrate(&url).await.unwrap();
    let instances = vec![store::open(&url, POOL).await.unwrap(), store::open(&url, POOL).await.unwrap()];
    race(instances, 16, 4).await;
}
