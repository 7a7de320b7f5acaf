//! Random histories of one device, and of one list, against models a page long.

use std::collections::{BTreeMap, BTreeSet};

use multiend::store::{Claim, ClaimRules, ListPublished};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::database::Database;
use super::words::{Got, OMEMO2, RULES, at, claim_by, device, got, list, owner, plain_bundle, session};

const WINDOW: i64 = 20;

#[derive(Debug, Clone)]
enum Step {
    Publish { identity: u8, keys: BTreeSet<u32> },
    Retract,
    Claim { requester: u8, strict: bool },
    Wait(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let publish = (0..2_u8, prop::collection::btree_set(1..8_u32, 1..6))
        .prop_map(|(identity, keys)| Step::Publish { identity, keys });
    let claim = (0..4_u8, any::<bool>()).prop_map(|(requester, strict)| Step::Claim { requester, strict });
    let wait = (1..WINDOW).prop_map(Step::Wait);
    prop::collection::vec(prop_oneof![2 => publish, 1 => Just(Step::Retract), 8 => claim, 2 => wait], 1..40)
}

/// The rules of prekeys, said once more and as plainly as can be.
#[derive(Default)]
struct Model {
    now: i64,
    bundle: Option<(u8, BTreeSet<u32>)>,
    /// Unissued prekeys, oldest first.
    stock: Vec<u32>,
    /// When each issued one was last handed out, with its turn, which breaks ties as the upload order does.
    issued: BTreeMap<u32, (i64, u64)>,
    uploads: u64,
    upload_of: BTreeMap<u32, u64>,
    claims: BTreeMap<u8, (u32, u8, bool, i64)>,
}

impl Model {
    fn publish(&mut self, identity: u8, keys: BTreeSet<u32>) {
        self.stock.retain(|key| keys.contains(key));
        for key in &keys {
            self.uploads += 1;
            if !self.stock.contains(key) && !self.issued.contains_key(key) {
                self.stock.push(*key);
                self.upload_of.insert(*key, self.uploads);
            }
        }
        self.bundle = Some((identity, keys));
    }

    fn claim(&mut self, requester: u8, strict: bool) -> Got {
        let Some((identity, keys)) = self.bundle.clone() else { return Got::NoBundle };
        if let Some((key, under, last_resort, when)) = self.claims.get(&requester).copied()
            && self.now - when < WINDOW
            && under == identity
            && keys.contains(&key)
            && !(last_resort && strict)
        {
            return Got::Repeat(key);
        }
        if !self.stock.is_empty() {
            let key = self.stock.remove(0);
            self.issued.insert(key, (self.now, self.upload_of[&key]));
            self.claims.insert(requester, (key, identity, false, self.now));
            return Got::Fresh(key);
        }
        let oldest = self.issued.iter().filter(|(key, _)| keys.contains(key)).min_by_key(|(_, last)| **last);
        let Some((key, _)) = oldest.filter(|_| !strict) else { return Got::NoPrekey };
        let key = *key;
        self.issued.insert(key, (self.now, self.upload_of[&key]));
        self.claims.insert(requester, (key, identity, true, self.now));
        Got::LastResort(key)
    }
}

pub async fn claims_and_publishes_behave_as_the_model(database: Database) {
    let store = database.open().await;
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let case = std::cell::Cell::new(0);
    let run = |steps: Vec<Step>| {
        // A fresh owner for each case, so that all run on one database.
        case.set(case.get() + 1);
        let owner = owner(&format!("c{}", case.get()));
        let rules = ClaimRules { repeat_window: std::time::Duration::from_secs(WINDOW as u64), ..RULES };
        let mut model = Model::default();
        block_in_place(|| {
            Handle::current().block_on(async {
                for step in steps {
                    match step {
                        Step::Publish { identity, keys } => {
                            let published = plain_bundle(identity, keys.clone());
                            let session = session("phone");
                            let now = at(model.now);
                            store.publish_bundle(&owner, OMEMO2, device(1), &session, &published, now).await.unwrap();
                            model.publish(identity, keys);
                        }
                        Step::Retract => {
                            let was_there =
                                store.retract_bundle(&owner, OMEMO2, device(1), at(model.now)).await.unwrap();
                            assert_eq!(was_there, model.bundle.take().is_some());
                            model.stock.clear();
                        }
                        Step::Claim { requester, strict } => {
                            let claim = Claim { owner: owner.clone(), strict, ..claim_by(&format!("r{requester}")) };
                            let answer = got(&store.claim(&claim, &rules, at(model.now)).await.unwrap());
                            assert_eq!(answer, model.claim(requester, strict));
                        }
                        Step::Wait(seconds) => model.now += seconds,
                    }
                    let stock = store.stock(&owner, OMEMO2, device(1)).await.unwrap();
                    assert_eq!(stock.unissued as usize, model.stock.len());
                }
            });
        });
        Ok(())
    };
    runner.run(&steps(), run).unwrap();
    assert_eq!(store.directory_totals().await.unwrap().issued_twice, 0);
}

#[derive(Debug, Clone)]
enum ListStep {
    Read(u8),
    Publish(u8, Vec<u32>),
    Delete,
}

fn list_steps() -> impl Strategy<Value = Vec<ListStep>> {
    let ids = prop::sample::subsequence((1..8_u32).collect::<Vec<_>>(), 0..5).prop_shuffle();
    let step = prop_oneof![
        3 => (0..3_u8).prop_map(ListStep::Read),
        4 => (0..3_u8, ids).prop_map(|(session, ids)| ListStep::Publish(session, ids)),
        1 => Just(ListStep::Delete),
    ];
    prop::collection::vec(step, 1..30)
}

pub async fn lists_behave_as_the_model(database: Database) {
    let store = database.open().await;
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let case = std::cell::Cell::new(0);
    let run = |steps: Vec<ListStep>| {
        case.set(case.get() + 1);
        let name = format!("l{}", case.get());
        let owner = owner(&name);
        let session =
            |number: u8| multiend::model::SessionJid::parse(&format!("{name}@example.org/r{number}")).unwrap();
        let mut in_force: Option<Vec<u32>> = None;
        let mut seen: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
        block_in_place(|| {
            Handle::current().block_on(async {
                for step in steps {
                    match step {
                        ListStep::Read(number) => {
                            let read = store.device_list(&owner, OMEMO2, Some(&session(number))).await.unwrap();
                            assert_eq!(read, in_force.as_deref().map(list));
                            seen.extend(in_force.clone().map(|ids| (number, ids)));
                        }
                        ListStep::Publish(number, ids) => {
                            let mut merged = ids.clone();
                            let base = seen.get(&number).cloned().unwrap_or_default();
                            let before = in_force.clone().unwrap_or_default();
                            merged.extend(before.iter().filter(|id| !ids.contains(id) && !base.contains(id)));
                            let answer = store
                                .publish_device_list(&owner, OMEMO2, &session(number), &list(&ids), 6, at(0))
                                .await
                                .unwrap();
                            if merged.len() > 6 {
                                assert_eq!(answer, ListPublished::TooManyDevices);
                                continue;
                            }
                            let changed = in_force.as_ref() != Some(&merged);
                            assert_eq!(answer, ListPublished::Accepted { list: list(&merged), changed });
                            // The heart of it: nothing that this session never saw has gone.
                            assert!(before.iter().all(|id| merged.contains(id) || base.contains(id)));
                            in_force = Some(merged);
                            seen.insert(number, ids);
                        }
                        ListStep::Delete => {
                            let was_there = store.delete_device_list(&owner, OMEMO2, at(0)).await.unwrap();
                            assert_eq!(was_there, in_force.take().is_some());
                            seen.clear();
                        }
                    }
                }
            });
        });
        Ok(())
    };
    runner.run(&list_steps(), run).unwrap();
}
