//! How fast prekeys go (directory invariant 9), and what a device is told of its stock.

use std::time::Duration;

use multiend::model::{Claimant, Direction, Requester};
use multiend::store::{Claim, ClaimLimit, ClaimRules, NoticeKind, SharedStore};
use tokio::task::JoinSet;

use super::database::Database;
use super::words::{Got, OMEMO2, RULES, alice, at, claim_by, copy, device, got, message, owner, plain_bundle, publish};

const DAY: i64 = 24 * 3600;

/// A claim of alice's device by an address.
fn by(address: &str) -> Claim {
    Claim { claimant: Claimant::Address(Requester::parse(address).unwrap()), ..claim_by("x") }
}

async fn claim(store: &SharedStore, address: &str, rules: &ClaimRules, second: i64) -> Got {
    got(&store.claim(&by(address), rules, at(second)).await.unwrap())
}

pub async fn an_account_gets_so_many_prekeys_of_a_device_a_day(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=50)).await;
    let rules = ClaimRules { per_device: 2, ..RULES };
    assert_eq!(claim(&store, "bob@example.net/phone", &rules, 0).await, Got::Fresh(1));
    assert_eq!(claim(&store, "bob@example.net/laptop", &rules, 10).await, Got::Fresh(2));
    assert_eq!(claim(&store, "bob@example.net/tablet", &rules, 20).await, Got::Limited(ClaimLimit::Device));
    // Repeats never count, and names that begin alike are others.
    assert_eq!(claim(&store, "bob@example.net/phone", &rules, 20).await, Got::Repeat(1));
    assert_eq!(claim(&store, "bob@example.net.org/x", &rules, 20).await, Got::Fresh(3));
    assert_eq!(claim(&store, "bob@example.ne/x", &rules, 20).await, Got::Fresh(4));
    assert_eq!(claim(&store, "bob@example.net/tablet", &rules, DAY + 5).await, Got::Fresh(5));
    assert_eq!(claim(&store, "bob@example.net/radio", &rules, DAY + 5).await, Got::Limited(ClaimLimit::Device));
}

pub async fn an_account_gets_so_many_prekeys_a_day(database: Database) {
    let store = database.open().await;
    for number in 1..=6 {
        let published = plain_bundle(1, 1..=50);
        store
            .publish_bundle(&alice(), OMEMO2, device(number), &super::words::session("phone"), &published, at(0))
            .await
            .unwrap();
    }
    let rules = ClaimRules { per_requester: 3, ..RULES };
    let claim = async |number, second| {
        let claim = Claim { device: device(number), ..by("bob@example.net/phone") };
        got(&store.claim(&claim, &rules, at(second)).await.unwrap())
    };
    for number in 1..=3 {
        assert_eq!(claim(number, 0).await, Got::Fresh(1));
    }
    assert_eq!(claim(4, 0).await, Got::Limited(ClaimLimit::Requester));
    assert_eq!(claim(3, 0).await, Got::Repeat(1));
    assert_eq!(claim(4, DAY / 3 - 1).await, Got::Limited(ClaimLimit::Requester));
    assert_eq!(claim(4, DAY / 3).await, Got::Fresh(1));
    assert_eq!(claim(5, DAY / 3).await, Got::Limited(ClaimLimit::Requester));
}

pub async fn the_accounts_of_a_foreign_domain_get_so_many_a_day(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=50)).await;
    let rules = ClaimRules { per_domain: 2, ..RULES };
    assert_eq!(claim(&store, "a@example.net/x", &rules, 0).await, Got::Fresh(1));
    assert_eq!(claim(&store, "b@example.net/x", &rules, 0).await, Got::Fresh(2));
    assert_eq!(claim(&store, "c@example.net/x", &rules, 0).await, Got::Limited(ClaimLimit::Domain));
    assert_eq!(claim(&store, "c@example.com/x", &rules, 0).await, Got::Fresh(3));
    let local = Claim { foreign: false, ..by("d@example.net/x") };
    assert_eq!(got(&store.claim(&local, &rules, at(0)).await.unwrap()), Got::Fresh(4));
    assert_eq!(claim(&store, "c@example.net/x", &rules, DAY / 2).await, Got::Fresh(5));
}

pub async fn the_owner_s_own_devices_are_under_no_limit(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=10)).await;
    let none = ClaimRules { per_device: 1, per_requester: 1, per_domain: 1, reserve: 10, reserve_per_hour: 0, ..RULES };
    for number in 2..=11 {
        let claim = Claim { claimant: Claimant::Device(alice(), device(number)), foreign: false, ..claim_by("x") };
        assert_eq!(got(&store.claim(&claim, &none, at(0)).await.unwrap()), Got::Fresh(number - 1));
        assert_eq!(got(&store.claim(&claim, &none, at(0)).await.unwrap()), Got::Repeat(number - 1));
    }
}

/// A device's last prekeys are for those whom its owner knows; an empty stock gives everybody the last resort.
pub async fn strangers_get_the_reserve_slowly(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=50)).await;
    let rules = ClaimRules { reserve: 20, reserve_per_hour: 2, ..RULES };
    // A fifth of a bundle of 50 is less than 20.
    for number in 1..=40 {
        assert_eq!(claim(&store, &format!("s{number}@example.net/x"), &rules, 0).await, Got::Fresh(number));
    }
    assert_eq!(claim(&store, "first@example.net/x", &rules, 0).await, Got::Fresh(41));
    assert_eq!(claim(&store, "bob@example.net/x", &rules, 0).await, Got::Limited(ClaimLimit::Reserve));
    assert_eq!(claim(&store, "s7@example.net/x", &rules, 0).await, Got::Repeat(7));
    // Who writes to alice is still a stranger; to whom she writes, is none.
    store.append(&[message("", at(0), vec![copy("m1", "bob@example.net")])]).await.unwrap();
    assert_eq!(claim(&store, "bob@example.net/x", &rules, 1).await, Got::Limited(ClaimLimit::Reserve));
    let mut sent = copy("m2", "bob@example.net");
    sent.direction = Direction::Sent;
    store.append(&[message("", at(0), vec![sent])]).await.unwrap();
    assert_eq!(claim(&store, "bob@example.net/x", &rules, 2).await, Got::Fresh(42));
    assert_eq!(claim(&store, "second@example.net/x", &rules, 1799).await, Got::Limited(ClaimLimit::Reserve));
    assert_eq!(claim(&store, "second@example.net/x", &rules, 1800).await, Got::Fresh(43));
    for number in 44..=50 {
        let claim = Claim { claimant: Claimant::Device(alice(), device(number)), ..claim_by("x") };
        assert_eq!(got(&store.claim(&claim, &rules, at(1800)).await.unwrap()), Got::Fresh(number));
    }
    assert_eq!(claim(&store, "third@example.net/x", &rules, 1801).await, Got::LastResort(1));
    publish(&store, &plain_bundle(1, 1..=80)).await;
    assert_eq!(claim(&store, "fourth@example.net/x", &rules, 1802).await, Got::Fresh(51));
}

/// A thousand accounts on a hundred domains, each of which asks once an hour from a new session.
pub async fn a_thousand_accounts_drain_a_pool_no_faster_than_the_limits_allow(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=100)).await;
    let rules = ClaimRules { repeat_window: Duration::from_secs(24 * 3600), ..ClaimRules::default() };
    let mut handed = 0;
    for hour in 0..2_i64 {
        let claims: Vec<Claim> =
            (0..1_000).map(|number| by(&format!("a{number}@d{}.example.net/{hour}", number % 100))).collect();
        let outcomes = store.claim_many(&claims, &rules, at(hour * 3600)).await;
        for outcome in outcomes {
            match got(&outcome.unwrap()) {
                Got::Fresh(_) => handed += 1,
                Got::Limited(ClaimLimit::Reserve) => {}
                other => panic!("{other:?}"),
            }
        }
        // At first all but the reserve; then what drips out of it.
        assert_eq!(handed, 81 + hour);
    }
    // Its owner's contacts and its own devices are served all the while.
    let own = Claim { claimant: Claimant::Device(alice(), device(9)), ..claim_by("x") };
    assert_eq!(got(&store.claim(&own, &rules, at(7200)).await.unwrap()), Got::Fresh(83));
    // And once the device has replenished its stock, so is everybody.
    publish(&store, &plain_bundle(1, 80..=180)).await;
    assert_eq!(claim(&store, "late@example.net/x", &rules, 7201).await, Got::Fresh(84));
}

/// A statement of one instance may run while another instance counts: no more than that can come on top.
pub async fn limits_hold_over_instances(database: Database) {
    let stores = [database.open().await, database.open().await];
    publish(&stores[0], &plain_bundle(1, 1..=200)).await;
    let rules = ClaimRules { per_device: 10, per_requester: 1_000, ..RULES };
    let mut claims = JoinSet::new();
    for number in 0..40_usize {
        let store = stores[number % 2].clone();
        claims.spawn(async move { claim(&store, &format!("bob@example.net/r{number}"), &rules, 0).await });
    }
    let answers = claims.join_all().await;
    let fresh = answers.iter().filter(|got| matches!(got, Got::Fresh(_))).count();
    let limited = answers.iter().filter(|got| **got == Got::Limited(ClaimLimit::Device)).count();
    assert!((10..=11).contains(&fresh), "{answers:?}");
    assert_eq!(fresh + limited, 40, "{answers:?}");
}

/// An instance may lend an account a thousandth of its allowance; neither that nor a restart gives it more.
pub async fn an_allowance_is_kept_to_a_thousandth_over_instances_and_restarts(database: Database) {
    const LIMIT: usize = 2_000;
    let mut stores = [database.open().await, database.open().await];
    let owners: Vec<_> = (0..11).map(|number| owner(&format!("o{number}"))).collect();
    for owner in &owners {
        let session = super::words::session("phone");
        stores[0].publish_bundle(owner, OMEMO2, device(1), &session, &plain_bundle(1, 1..=200), at(0)).await.unwrap();
    }
    let rules = ClaimRules { per_device: u32::MAX, per_requester: u32::try_from(LIMIT).unwrap(), ..RULES };
    let (mut fresh, mut instances) = (0, 2);
    for batch in 0..44 {
        if batch % 20 == 19 {
            stores[1] = database.open().await;
            instances += 1;
        }
        let claims: Vec<Claim> = (0..50)
            .map(|number| Claim {
                owner: owners[batch / 4].clone(),
                ..by(&format!("bob@example.net/{batch}-{number}"))
            })
            .collect();
        for answer in stores[batch % 2].claim_many(&claims, &rules, at(0)).await {
            match got(&answer.unwrap()) {
                Got::Fresh(_) => fresh += 1,
                other => assert_eq!(other, Got::Limited(ClaimLimit::Requester)),
            }
        }
    }
    assert!(fresh >= LIMIT && fresh <= LIMIT + instances * LIMIT / 1_000, "{fresh} by {instances} instances");
}

/// Once when the stock is low and once when it is empty; again only after new prekeys came.
pub async fn a_device_is_told_once_that_its_stock_is_low_and_once_that_it_is_empty(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=30)).await;
    let rules = ClaimRules { low_stock: 25, ..RULES };
    let told = async |first: u32, last: u32| {
        for number in first..=last {
            claim(&store, &format!("r{number}@example.net/x"), &rules, 0).await;
        }
        let notices = store.take_notices(10, Duration::from_secs(1), at(0)).await.unwrap();
        store.settle_notices(&notices).await.unwrap();
        for notice in &notices {
            assert_eq!(
                (&notice.owner, notice.protocol, notice.device, notice.kind),
                (&alice(), OMEMO2, Some(device(1)), NoticeKind::LowStock)
            );
        }
        notices.len()
    };
    assert_eq!(told(1, 4).await, 0);
    assert_eq!(told(5, 5).await, 1);
    assert_eq!(told(6, 29).await, 0);
    assert_eq!(told(30, 30).await, 1);
    assert_eq!(told(31, 33).await, 0);
    // The same bundle again is no replenishment.
    publish(&store, &plain_bundle(1, 1..=30)).await;
    assert_eq!(told(34, 34).await, 0);
    publish(&store, &plain_bundle(1, 20..=60)).await;
    assert_eq!(told(40, 44).await, 1);
    assert_eq!(told(45, 69).await, 1);
}

/// Also when what was said of a larger stock before would still let claims through.
pub async fn a_device_with_a_smaller_bundle_is_told_in_time(database: Database) {
    let store = database.open().await;
    let rules = ClaimRules { low_stock: 25, ..RULES };
    let left_untold = async |claims: std::ops::Range<u32>| {
        for number in claims {
            let claims = [0, 1].map(|session| by(&format!("r{number}-{session}@example.net/x")));
            for outcome in store.claim_many(&claims, &rules, at(0)).await {
                assert!(matches!(got(&outcome.unwrap()), Got::Fresh(_)));
            }
            if !store.take_notices(1, Duration::ZERO, at(0)).await.unwrap().is_empty() {
                break;
            }
        }
        store.stock(&alice(), OMEMO2, device(1)).await.unwrap().unissued
    };
    publish(&store, &plain_bundle(1, 1..=100)).await;
    assert_eq!(left_untold(0..10).await, 80);
    publish(&store, &plain_bundle(1, 51..=80)).await;
    assert!((24..=25).contains(&left_untold(10..20).await));
}

/// A batch is answered as if its claims had come one after the other, and one that gets nothing spoils no other.
pub async fn a_batch_is_answered_claim_by_claim(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=4)).await;
    let second = plain_bundle(1, 101..=150);
    store.publish_bundle(&owner("bob"), OMEMO2, device(7), &super::words::session("x"), &second, at(0)).await.unwrap();
    let bobs = |name| Claim { owner: owner("bob"), device: device(7), ..by(name) };
    assert_eq!(got(&store.claim(&bobs("a@example.net/x"), &RULES, at(0)).await.unwrap()), Got::Fresh(101));
    let rules = ClaimRules { per_requester: 3, ..RULES };
    let claims = [
        bobs("a@example.net/x"),
        by("a@example.net/x"),
        bobs("b@example.net/x"),
        bobs("b@example.net/x"),
        Claim { device: device(99), ..by("a@example.net/x") },
        Claim { owner: owner("nobody"), ..by("a@example.net/x") },
        by("h@example.net/x"),
        bobs("b@example.net/y"),
        bobs("b@example.net/z"),
        bobs("b@example.net/w"),
        by("c@example.net/x"),
        by("d@example.net/x"),
        by("e@example.net/x"),
        Claim { strict: true, ..by("f@example.net/x") },
        bobs("g@example.net/x"),
    ];
    let outcomes = store.claim_many(&claims, &rules, at(1)).await;
    let mut answers: Vec<Got> = outcomes.into_iter().map(|outcome| got(&outcome.unwrap())).collect();
    // Which of the fresh ones is not said: those of a batch may be taken together, before those that need more care.
    let mut fresh = Vec::new();
    for answer in &mut answers {
        if let Got::Fresh(number) = answer {
            fresh.push(*number);
            *number = *number / 100 * 100;
        }
    }
    fresh.sort_unstable();
    assert_eq!(fresh, [1, 2, 3, 4, 102, 103, 104, 105]);
    let limited = answers.iter().filter(|got| **got == Got::Limited(ClaimLimit::Requester)).count();
    assert_eq!(limited, 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|got| matches!(got, Got::LastResort(_))).count(), 1, "{answers:?}");
    assert_eq!((answers[0], answers[1]), (Got::Repeat(101), Got::Fresh(0)));
    assert!(matches!(answers[3], Got::Repeat(_)), "{answers:?}");
    assert_eq!((answers[4], answers[5]), (Got::NoBundle, Got::NoBundle));
    assert_eq!((answers[13], answers[14]), (Got::NoPrekey, Got::Fresh(100)));
}
