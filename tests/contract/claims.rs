//! Claims (directory invariants 1 to 4).

use std::collections::BTreeMap;
use std::time::Duration;

use multiend::model::{Claimant, Protocol};
use multiend::store::{Claim, ClaimOutcome};
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use crate::support::process::poll_async;

use super::database::Database;
use super::words::{
    DAY, Got, OMEMO2, RULES, alice, at, bundle, claim, claim_by, device, got, key, owner, plain_bundle, publish,
};

pub async fn each_prekey_goes_to_one_requester_oldest_first(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, [30, 10, 20])).await;
    publish(&store, &plain_bundle(1, [5, 20, 30, 10, 40])).await;
    // First those of the first upload in its order, then those of the second in its own.
    for (name, number) in [("a", 30), ("b", 10), ("c", 20), ("d", 5), ("e", 40)] {
        assert_eq!(claim(&store, name, at(1)).await, Got::Fresh(number));
    }
    let published = plain_bundle(1, [5, 20, 30, 10, 40]);
    let ClaimOutcome::Handed { identity_key, signed_prekey, prekey, item_id, .. } =
        store.claim(&claim_by("a"), &RULES, at(2)).await.unwrap()
    else {
        panic!("nothing handed out");
    };
    assert_eq!(identity_key, published.bundle.identity_key);
    assert_eq!(signed_prekey, published.bundle.signed_prekey);
    assert_eq!((prekey.id.get(), prekey.key), (30, key(30)));
    assert_eq!(item_id, published.item_id);
}

pub async fn a_requester_gets_the_same_prekey_until_the_window_passes(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=5)).await;
    assert_eq!(claim(&store, "bob", at(0)).await, Got::Fresh(1));
    assert_eq!(claim(&store, "bob", at(10)).await, Got::Repeat(1));
    assert_eq!(claim(&store, "carol", at(10)).await, Got::Fresh(2));
    // A whole-bundle republish does not end it, and asking again does not prolong it.
    publish(&store, &plain_bundle(1, 1..=5)).await;
    let day = DAY.as_secs() as i64;
    assert_eq!(claim(&store, "bob", at(day - 1)).await, Got::Repeat(1));
    assert_eq!(claim(&store, "bob", at(day)).await, Got::Fresh(3));
    assert_eq!(claim(&store, "bob", at(day + 1)).await, Got::Repeat(3));
    // Another session of the same account is another requester.
    let laptop = multiend::model::Requester::parse("bob@example.net/laptop").unwrap();
    let other = Claim { claimant: Claimant::Address(laptop), ..claim_by("bob") };
    assert_eq!(got(&store.claim(&other, &RULES, at(day + 1)).await.unwrap()), Got::Fresh(4));
}

pub async fn a_repeat_ends_when_the_prekey_is_withdrawn(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=3)).await;
    assert_eq!(claim(&store, "bob", at(0)).await, Got::Fresh(1));
    publish(&store, &plain_bundle(1, 2..=3)).await;
    assert_eq!(claim(&store, "bob", at(1)).await, Got::Fresh(2));
}

pub async fn a_repeat_ends_when_the_prekey_is_consumed(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=3)).await;
    assert_eq!(claim(&store, "bob", at(0)).await, Got::Fresh(1));
    database.execute("UPDATE prekey SET consumed_at = 1 WHERE prekey_id = 1").await;
    assert_eq!(claim(&store, "bob", at(1)).await, Got::Fresh(2));
}

pub async fn a_repeat_ends_when_the_identity_changes(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=3)).await;
    assert_eq!(claim(&store, "bob", at(0)).await, Got::Fresh(1));
    // The device lost its identity but, oddly, kept its prekeys.
    publish(&store, &plain_bundle(2, 1..=3)).await;
    assert_eq!(claim(&store, "bob", at(1)).await, Got::Fresh(2));
    assert_eq!(claim(&store, "bob", at(2)).await, Got::Repeat(2));
}

pub async fn an_issued_prekey_is_never_unissued_again(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=2)).await;
    assert_eq!(claim(&store, "a", at(0)).await, Got::Fresh(1));
    // Republished whole; taken out and put back; put back under another id; retracted and put back.
    let again = publish(&store, &plain_bundle(1, 1..=2)).await;
    assert_eq!((again.added, again.already_issued), (0, 1));
    publish(&store, &plain_bundle(1, [2])).await;
    assert_eq!(publish(&store, &plain_bundle(1, 1..=2)).await.already_issued, 1);
    assert_eq!(publish(&store, &bundle(1, &[(77, 1), (2, 2)])).await.already_issued, 1);
    store.retract_bundle(&alice(), OMEMO2, device(1), at(0)).await.unwrap();
    assert_eq!(publish(&store, &plain_bundle(1, 1..=2)).await.already_issued, 1);
    assert_eq!(claim(&store, "b", at(1)).await, Got::Fresh(2));
    assert_eq!(claim(&store, "c", at(2)).await, Got::LastResort(1));
}

pub async fn a_new_key_under_an_old_id_is_a_new_prekey(database: Database) {
    let store = database.open().await;
    publish(&store, &bundle(1, &[(1, 1001)])).await;
    assert_eq!(claim(&store, "a", at(0)).await, Got::Fresh(1001));
    let published = publish(&store, &bundle(1, &[(1, 1002)])).await;
    assert_eq!((published.added, published.already_issued, published.withdrawn), (1, 0, 1));
    assert_eq!(claim(&store, "b", at(0)).await, Got::Fresh(1002));
    // A key that moves to another id is still the same prekey, handed out with the id that it has now.
    publish(&store, &bundle(1, &[(2, 1003), (1, 1002)])).await;
    publish(&store, &bundle(1, &[(3, 1003), (1, 1002)])).await;
    let ClaimOutcome::Handed { prekey, .. } = store.claim(&claim_by("c"), &RULES, at(0)).await.unwrap() else {
        panic!("nothing handed out");
    };
    assert_eq!((prekey.id.get(), prekey.key), (3, key(1003)));
}

pub async fn a_withdrawn_prekey_is_never_handed_out(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=4)).await;
    assert_eq!(claim(&store, "a", at(0)).await, Got::Fresh(1));
    publish(&store, &plain_bundle(1, [3, 4])).await;
    assert_eq!(claim(&store, "b", at(0)).await, Got::Fresh(3));
    assert_eq!(claim(&store, "c", at(0)).await, Got::Fresh(4));
    // 1 is not even a last resort, 2 was never issued and is gone.
    assert_eq!(claim(&store, "d", at(1)).await, Got::LastResort(3));
    assert_eq!(claim(&store, "e", at(2)).await, Got::LastResort(4));
    // 2 comes back unissued.
    publish(&store, &plain_bundle(1, [2, 3])).await;
    assert_eq!(claim(&store, "f", at(3)).await, Got::Fresh(2));
}

pub async fn the_last_resort_is_the_least_recently_issued(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=3)).await;
    for (second, (name, number)) in [("a", 1), ("b", 2), ("c", 3)].into_iter().enumerate() {
        assert_eq!(claim(&store, name, at(second as i64)).await, Got::Fresh(number));
    }
    for (second, (name, number)) in [("d", 1), ("e", 2), ("f", 3), ("g", 1)].into_iter().enumerate() {
        assert_eq!(claim(&store, name, at(10 + second as i64)).await, Got::LastResort(number));
    }
    assert_eq!(claim(&store, "d", at(20)).await, Got::Repeat(1));
    let totals = store.directory_totals().await.unwrap();
    assert_eq!((totals.issued, totals.last_resort, totals.issued_twice), (3, 4, 0));
}

pub async fn a_last_resort_takes_nothing_from_what_one_has(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, [1])).await;
    assert_eq!(claim(&store, "a", at(0)).await, Got::Fresh(1));
    publish(&store, &plain_bundle(1, [2])).await;
    assert_eq!(claim(&store, "b", at(1)).await, Got::Fresh(2));
    assert_eq!(claim(&store, "a", at(2)).await, Got::LastResort(2));
    publish(&store, &plain_bundle(1, [1])).await;
    assert_eq!(claim(&store, "a", at(3)).await, Got::Repeat(1));
}

pub async fn a_strict_claim_gets_no_last_resort(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, [1])).await;
    let strict = async |name: &str, second| {
        let claim = Claim { strict: true, ..claim_by(name) };
        got(&store.claim(&claim, &RULES, at(second)).await.unwrap())
    };
    assert_eq!(strict("a", 0).await, Got::Fresh(1));
    assert_eq!(strict("a", 1).await, Got::Repeat(1));
    assert_eq!(strict("b", 1).await, Got::NoPrekey);
    assert_eq!(claim(&store, "b", at(2)).await, Got::LastResort(1));
    // Nor does a repeat turn a last resort into a prekey of its own.
    assert_eq!(strict("b", 3).await, Got::NoPrekey);
    publish(&store, &plain_bundle(1, [1, 2])).await;
    assert_eq!(strict("b", 4).await, Got::Fresh(2));
    assert_eq!(claim(&store, "b", at(5)).await, Got::Repeat(2));
}

pub async fn a_consumed_prekey_is_never_given_again(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, [1, 2])).await;
    assert_eq!(claim(&store, "a", at(0)).await, Got::Fresh(1));
    assert_eq!(claim(&store, "b", at(1)).await, Got::Fresh(2));
    database.execute("UPDATE prekey SET consumed_at = 1 WHERE prekey_id = 1").await;
    assert_eq!(claim(&store, "c", at(2)).await, Got::LastResort(2));
    database.execute("UPDATE prekey SET consumed_at = 1").await;
    assert_eq!(claim(&store, "d", at(3)).await, Got::NoPrekey);
    publish(&store, &plain_bundle(1, [1, 2])).await;
    assert_eq!(claim(&store, "d", at(4)).await, Got::NoPrekey);
}

pub async fn there_is_nothing_to_claim_without_a_bundle(database: Database) {
    let store = database.open().await;
    assert_eq!(claim(&store, "a", at(0)).await, Got::NoBundle);
    store.register_account(&alice(), at(0)).await.unwrap();
    assert_eq!(claim(&store, "a", at(0)).await, Got::NoBundle);
    publish(&store, &plain_bundle(1, [1])).await;
    for other in [
        Claim { device: device(2), ..claim_by("a") },
        Claim { protocol: Protocol::Legacy, ..claim_by("a") },
        Claim { owner: owner("nobody"), ..claim_by("a") },
    ] {
        assert_eq!(got(&store.claim(&other, &RULES, at(0)).await.unwrap()), Got::NoBundle);
    }
    // What failed leaves nothing behind: the first real claim is fresh.
    assert_eq!(claim(&store, "a", at(0)).await, Got::Fresh(1));
    assert!(!store.account_exists(&owner("nobody")).await.unwrap());
}

/// The figure for invariant 1 comes from what is stored, and shows a violation.
pub async fn the_totals_show_a_prekey_handed_out_twice(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, [1, 2])).await;
    assert_eq!(claim(&store, "a", at(0)).await, Got::Fresh(1));
    assert_eq!(claim(&store, "b", at(0)).await, Got::Fresh(2));
    assert_eq!(store.directory_totals().await.unwrap().issued_twice, 0);
    // A fault that forgets that a prekey was issued.
    database.execute("UPDATE prekey SET issued_at = NULL WHERE prekey_id = 1").await;
    assert_eq!(claim(&store, "c", at(0)).await, Got::Fresh(1));
    assert_eq!(store.directory_totals().await.unwrap().issued_twice, 1);
}

pub async fn concurrent_requests_of_one_requester_get_one_prekey(database: Database) {
    let stores = [database.open().await, database.open().await];
    publish(&stores[0], &plain_bundle(1, 1..=50)).await;
    let mut claims = JoinSet::new();
    for number in 0..24_usize {
        let store = stores[number % 2].clone();
        claims.spawn(async move { claim(&store, "bob", at(1)).await });
    }
    let answers = claims.join_all().await;
    // Usually the oldest one; not if a statement that lost, and was rolled back, held it for a moment.
    let given = answers.iter().find_map(|got| if let Got::Fresh(key) = got { Some(*key) } else { None }).unwrap();
    assert_eq!(answers.iter().filter(|got| **got == Got::Fresh(given)).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|got| **got == Got::Repeat(given)).count(), 23, "{answers:?}");
    assert_eq!(stores[0].directory_totals().await.unwrap().issued, 1);
}

/// With exactly as many prekeys as requesters nobody gets a last resort, and afterwards everybody does.
pub async fn concurrent_requesters_empty_the_stock_exactly(database: Database) {
    let stores = [database.open().await, database.open().await];
    publish(&stores[0], &plain_bundle(1, 1..=60)).await;
    let mut claims = JoinSet::new();
    for number in 0..70_usize {
        let store = stores[number % 2].clone();
        claims.spawn(async move { claim(&store, &format!("r{number}"), at(1)).await });
    }
    let mut fresh = BTreeMap::new();
    let mut last_resort = 0;
    for answer in claims.join_all().await {
        match answer {
            Got::Fresh(number) => *fresh.entry(number).or_insert(0) += 1,
            Got::LastResort(_) => last_resort += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fresh, (1..=60).map(|number| (number, 1)).collect());
    assert_eq!(last_resort, 10);
    let totals = stores[0].directory_totals().await.unwrap();
    assert_eq!((totals.issued, totals.last_resort, totals.issued_twice), (60, 10, 0));
}

/// While the owner changes its identity over and over, every answer is of one piece: the prekey belongs to the identity
/// that it is handed out with, and none is refused while stock is left.
pub async fn claims_and_publishes_at_once_stay_consistent(database: Database) {
    let stores = [database.open().await, database.open().await];
    publish(&stores[0], &plain_bundle(0, 1..=40)).await;
    let publisher = {
        let store = stores[0].clone();
        tokio::spawn(async move {
            for identity in 1..=20_u8 {
                let first = u32::from(identity) * 1000;
                publish(&store, &plain_bundle(identity, first + 1..=first + 40)).await;
            }
        })
    };
    let mut claims = JoinSet::new();
    for worker in 0..6_usize {
        let store = stores[worker % 2].clone();
        claims.spawn(async move {
            for number in 0..25 {
                let name = format!("w{worker}r{number}");
                match store.claim(&claim_by(&name), &RULES, at(1)).await.unwrap() {
                    ClaimOutcome::Handed { identity_key, prekey, signed_prekey, .. } => {
                        let number = u32::from_be_bytes(prekey.key[..4].try_into().unwrap());
                        assert_eq!(number / 1000, u32::from(identity_key[0]));
                        assert_eq!(signed_prekey.signature[0], identity_key[0]);
                    }
                    refused => panic!("{refused:?}"),
                }
            }
        });
    }
    claims.join_all().await;
    publisher.await.unwrap();
    assert_eq!(stores[0].directory_totals().await.unwrap().issued_twice, 0);
}

pub async fn forgotten_claims_leave_the_tombstones(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, [1])).await;
    assert_eq!(claim(&store, "a", at(0)).await, Got::Fresh(1));
    for (second, name) in ["b", "c", "d"].iter().enumerate() {
        assert_eq!(claim(&store, name, at(second as i64)).await, Got::LastResort(1));
    }
    assert_eq!(store.forget_claims(at(2), 1).await.unwrap(), 1);
    assert_eq!(store.forget_claims(at(2), 10).await.unwrap(), 1);
    assert_eq!(store.forget_claims(at(2), 10).await.unwrap(), 0);
    assert_eq!(claim(&store, "d", at(3)).await, Got::Repeat(1));
    assert_eq!(claim(&store, "b", at(3)).await, Got::LastResort(1));
    assert_eq!(claim(&store, "a", at(3)).await, Got::Repeat(1));
    assert_eq!(store.directory_totals().await.unwrap().issued_twice, 0);
}

/// A prekey that another claim has locked may come back to stock: who finds no other waits for it, and is neither refused
/// nor given a last resort.
#[tokio::test]
async fn a_claim_waits_for_the_last_prekey_while_another_claim_may_roll_back() {
    let database = Database::postgres().await;
    let store = database.open().await;
    publish(&store, &plain_bundle(1, [1, 2])).await;
    assert_eq!(claim(&store, "a", at(0)).await, Got::Fresh(1));
    let mut other = PgConnection::connect(&database.url).await.unwrap();
    let mut locking = other.begin().await.unwrap();
    sqlx::query("UPDATE prekey SET issued_at = 1 WHERE prekey_id = 2").execute(&mut *locking).await.unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { claim(&store, "b", at(1)).await }
    });
    let mut watching = PgConnection::connect(&database.url).await.unwrap();
    poll_async("a claim that waits for a lock", Duration::from_secs(20), async || {
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waiting: i64 = sqlx::query_scalar(waits).fetch_one(&mut watching).await.unwrap();
        (waiting > 0).then_some(())
    })
    .await;
    assert!(!waiting.is_finished());
    locking.rollback().await.unwrap();
    assert_eq!(waiting.await.unwrap(), Got::Fresh(2));
}
