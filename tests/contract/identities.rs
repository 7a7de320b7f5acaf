//! Identity changes: a device that comes with a new identity key begins anew, and nobody is given keys of both.

use multiend::model::{PublishedBundle, Timestamp};
use multiend::store::ClaimOutcome;
use tokio::task::JoinSet;

use super::database::Database;
use super::words::{Got, OMEMO2, RULES, alice, at, claim, claim_by, device, plain_bundle, publish, session};

/// The bundle of the n-th identity, with prekeys that no other has.
fn of_identity(identity: u8) -> PublishedBundle {
    let first = u32::from(identity) * 100;
    plain_bundle(identity, first..first + 10)
}

/// Whose prekey this is.
fn identity_of(number: u32) -> u8 {
    u8::try_from(number / 100).unwrap()
}

pub async fn nobody_gets_keys_of_two_identities(database: Database) {
    let stores = [database.open().await, database.open().await];
    publish(&stores[0], &of_identity(1)).await;
    let mut tasks = JoinSet::new();
    for number in 0..6 {
        let store = stores[number % 2].clone();
        tasks.spawn(async move {
            for round in 0..12 {
                // Some ask again and again, across the changes.
                let name = if number < 3 { format!("n{number}") } else { format!("n{number}-{round}") };
                let outcome = store.claim(&claim_by(&name), &RULES, at(1)).await.unwrap();
                let ClaimOutcome::Handed { identity_key, signed_prekey, prekey, .. } = outcome else {
                    panic!("{outcome:?}")
                };
                let number = u32::from_be_bytes(prekey.key[..4].try_into().unwrap());
                let identity = identity_of(number);
                assert_eq!(identity_key, vec![identity; 32]);
                assert_eq!(signed_prekey.key, vec![identity ^ 0x55; 32]);
            }
        });
    }
    let store = stores[1].clone();
    tasks.spawn(async move {
        for identity in 2..=9 {
            assert!(publish(&store, &of_identity(identity)).await.identity_changed);
        }
    });
    tasks.join_all().await;
    // Each of them stands in the history, and only the last one's keys are given.
    let recorded = stores[0].identity_keys(&alice(), OMEMO2, device(1), 99).await.unwrap();
    let recorded: Vec<u8> = recorded.iter().map(|identity| identity.key[0]).collect();
    assert_eq!(recorded, (1..=9).rev().collect::<Vec<u8>>());
    let (Got::Fresh(number) | Got::LastResort(number)) = claim(&stores[0], "late", at(2)).await else {
        panic!("nothing")
    };
    assert_eq!(identity_of(number), 9);
}

/// A publish of a new identity that was stopped half-way, or is repeated, changes nothing that is recorded.
pub async fn the_same_identity_again_is_no_change(database: Database) {
    let store = database.open().await;
    let publish = async |identity: u8, now: Timestamp| {
        let bundle = of_identity(identity);
        store.publish_bundle(&alice(), OMEMO2, device(1), &session("phone"), &bundle, now).await.unwrap()
    };
    assert!(!publish(1, at(0)).await.identity_changed);
    assert!(publish(2, at(1)).await.identity_changed);
    assert!(!publish(2, at(2)).await.identity_changed);
    let recorded = store.identity_keys(&alice(), OMEMO2, device(1), 99).await.unwrap();
    assert_eq!(recorded.iter().map(|identity| identity.since).collect::<Vec<_>>(), [at(1), at(0)]);
}
