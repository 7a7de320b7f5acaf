//! Random histories of one device, and of one list, against models a page long.

use std::collections::{BTreeMap, BTreeSet};

use multiend::model::{KeyExchange, PrekeyId};
use multiend::store::{Claim, ClaimRules, ListPublished};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::database::Database;
use super::words::{
    Got, OMEMO2, RULES, at, claim_by, device, got, list, message, owner, plain_bundle, requester as requester_named,
    session,
};

const WINDOW: i64 = 20;

#[derive(Debug, Clone)]
enum Step {
    Publish {
        device: u32,
        identity: u8,
        keys: BTreeSet<u32>,
    },
    Retract {
        device: u32,
    },
    Claim {
        device: u32,
        requester: u8,
        strict: bool,
    },
    /// The answers are lost after they were given: the requesters know nothing of them, and ask again.
    LoseReply {
        device: u32,
        requester: u8,
    },
    /// Several claims at once.
    Batch(Vec<(u32, u8)>),
    /// A message of a requester that uses up the prekey with an id, whether it was given it or not.
    Consume {
        device: u32,
        requester: u8,
        key: u32,
    },
    Restart,
    Wait(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let device = || 1..3_u32;
    let requester = || 0..4_u8;
    let keys = prop::collection::btree_set(1..8_u32, 1..6);
    let publish =
        (device(), 0..2_u8, keys).prop_map(|(device, identity, keys)| Step::Publish { device, identity, keys });
    let claim = (device(), requester(), any::<bool>()).prop_map(|(device, requester, strict)| Step::Claim {
        device,
        requester,
        strict,
    });
    let lose = (device(), requester()).prop_map(|(device, requester)| Step::LoseReply { device, requester });
    let batch = prop::collection::vec((device(), requester()), 1..5).prop_map(Step::Batch);
    let consume =
        (device(), requester(), 1..8_u32).prop_map(|(device, requester, key)| Step::Consume { device, requester, key });
    let step = prop_oneof![
        3 => publish,
        1 => device().prop_map(|device| Step::Retract { device }),
        8 => claim,
        2 => lose,
        3 => batch,
        4 => consume,
        1 => Just(Step::Restart),
        2 => (1..WINDOW).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..40)
}

/// The rules of one device's prekeys, said once more and as plainly as can be.
#[derive(Default)]
struct Model {
    bundle: Option<BTreeSet<u32>>,
    identity: Option<u8>,
    /// Unissued prekeys, oldest first.
    stock: Vec<u32>,
    /// When each issued one was last handed out, with its turn, which breaks ties as the upload order does.
    issued: BTreeMap<u32, (i64, u64)>,
    /// To whom each was ever handed out.
    given: BTreeMap<u32, BTreeSet<u8>>,
    consumed: BTreeSet<u32>,
    issued_first_to: BTreeMap<u32, u8>,
    uploads: u64,
    upload_of: BTreeMap<u32, u64>,
    /// Which key each requester got last as its own, and when; and which as the last resort.
    own: BTreeMap<u8, (u32, i64)>,
    shared: BTreeMap<u8, (u32, i64)>,
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
        // Nobody gets again what it got under another identity.
        if self.identity.replace(identity).is_some_and(|before| before != identity) {
            self.own.clear();
            // What was shared is forgotten; who was issued a prekey as its own never is.
            let shared = std::mem::take(&mut self.shared);
            for (requester, (key, _)) in shared {
                if self.issued_first_to.get(&key) != Some(&requester) {
                    self.given.get_mut(&key).unwrap().remove(&requester);
                }
            }
        }
        self.bundle = Some(keys);
    }

    fn claim(&mut self, requester: u8, strict: bool, now: i64) -> Got {
        let Some(keys) = self.bundle.clone() else { return Got::NoBundle };
        let holds =
            |(key, when): &(u32, i64)| now - when < WINDOW && keys.contains(key) && !self.consumed.contains(key);
        if let Some((key, _)) = self.own.get(&requester).filter(|got| holds(got)) {
            return Got::Repeat(*key);
        }
        if let Some((key, _)) = self.shared.get(&requester).filter(|got| !strict && holds(got)) {
            return Got::Repeat(*key);
        }
        if !self.stock.is_empty() {
            let key = self.stock.remove(0);
            self.issued.insert(key, (now, self.upload_of[&key]));
            self.issued_first_to.insert(key, requester);
            self.given.entry(key).or_default().insert(requester);
            self.own.insert(requester, (key, now));
            return Got::Fresh(key);
        }
        let may = |key: &u32| keys.contains(key) && !self.consumed.contains(key);
        let oldest = self.issued.iter().filter(|(key, _)| may(key)).min_by_key(|(_, last)| **last);
        let Some((key, _)) = oldest.filter(|_| !strict) else { return Got::NoPrekey };
        let key = *key;
        self.issued.insert(key, (now, self.upload_of[&key]));
        // Only the newest of those is remembered.
        if let Some((before, _)) = self.shared.insert(requester, (key, now))
            && before != key
            && self.issued_first_to.get(&before) != Some(&requester)
        {
            self.given.get_mut(&before).unwrap().remove(&requester);
        }
        self.given.entry(key).or_default().insert(requester);
        Got::LastResort(key)
    }

    fn consume(&mut self, requester: u8, key: u32) {
        if self.given.get(&key).is_some_and(|given| given.contains(&requester)) {
            self.consumed.insert(key);
        }
    }
}

pub async fn claims_and_publishes_behave_as_the_model(database: Database) {
    let mut store = database.open().await;
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let case = std::cell::Cell::new(0);
    let store = std::cell::RefCell::new(&mut store);
    let run = |steps: Vec<Step>| {
        // A fresh owner for each case, so that all run on one database.
        case.set(case.get() + 1);
        let owner = owner(&format!("c{}", case.get()));
        let rules = ClaimRules { repeat_window: std::time::Duration::from_secs(WINDOW as u64), ..RULES };
        let mut models: BTreeMap<u32, Model> = (1..3).map(|number| (number, Model::default())).collect();
        let mut now = 0;
        let mut slot = store.borrow_mut();
        let claim = |number: u32, requester: u8, strict| Claim {
            owner: owner.clone(),
            device: device(number),
            strict,
            ..claim_by(&format!("r{requester}"))
        };
        block_in_place(|| {
            Handle::current().block_on(async {
                for step in steps {
                    let store = slot.clone();
                    match step {
                        Step::Publish { device: number, identity, keys } => {
                            let published = plain_bundle(identity, keys.clone());
                            let (session, place) = (session("phone"), device(number));
                            store.publish_bundle(&owner, OMEMO2, place, &session, &published, at(now)).await.unwrap();
                            models.get_mut(&number).unwrap().publish(identity, keys);
                        }
                        Step::Retract { device: number } => {
                            let model = models.get_mut(&number).unwrap();
                            let was_there =
                                store.retract_bundle(&owner, OMEMO2, device(number), at(now)).await.unwrap();
                            assert_eq!(was_there, model.bundle.take().is_some());
                            model.stock.clear();
                        }
                        Step::Claim { device: number, requester, strict } => {
                            let answer = store.claim(&claim(number, requester, strict), &rules, at(now)).await.unwrap();
                            assert_eq!(got(&answer), models.get_mut(&number).unwrap().claim(requester, strict, now));
                        }
                        Step::LoseReply { device: number, requester } => {
                            store.claim(&claim(number, requester, false), &rules, at(now)).await.unwrap();
                            let model = models.get_mut(&number).unwrap();
                            let lost = model.claim(requester, false, now);
                            let answer = store.claim(&claim(number, requester, false), &rules, at(now)).await.unwrap();
                            let again = got(&answer);
                            assert_eq!(again, model.claim(requester, false, now));
                            // What was lost is not lost.
                            if let Got::Fresh(key) | Got::Repeat(key) | Got::LastResort(key) = lost {
                                assert_eq!(again, Got::Repeat(key));
                            }
                        }
                        Step::Batch(wanted) => {
                            let claims: Vec<Claim> =
                                wanted.iter().map(|(number, requester)| claim(*number, *requester, false)).collect();
                            let answers = store.claim_many(&claims, &rules, at(now)).await;
                            let answers = answers.into_iter().map(|answer| got(&answer.unwrap()));
                            // Claims at once have no order but the one that their answers show.
                            let mut answered: Vec<_> = wanted.into_iter().zip(answers).collect();
                            answered.sort_by_key(|((number, _), answer)| {
                                match answer {
                                    Got::Fresh(key) => models[number].stock.iter().position(|unissued| unissued == key),
                                    _ => None,
                                }
                                .unwrap_or(usize::MAX)
                            });
                            for ((number, requester), answer) in answered {
                                assert_eq!(answer, models.get_mut(&number).unwrap().claim(requester, false, now));
                            }
                        }
                        Step::Consume { device: number, requester, key } => {
                            let mut message = message("", at(now), Vec::new());
                            message.key_exchanges.push(KeyExchange {
                                owner: owner.clone(),
                                protocol: OMEMO2,
                                device: device(number),
                                prekey: PrekeyId::new(key).unwrap(),
                                sender: requester_named(&format!("r{requester}")),
                                sender_device: None,
                            });
                            store.append(&[message]).await.unwrap();
                            models.get_mut(&number).unwrap().consume(requester, key);
                        }
                        Step::Restart => **slot = database.open().await,
                        Step::Wait(seconds) => now += seconds,
                    }
                    for (number, model) in &models {
                        let stock = store.stock(&owner, OMEMO2, device(*number)).await.unwrap();
                        assert_eq!(stock.unissued as usize, model.stock.len());
                        let consumed = store.consumed_prekeys(&owner, OMEMO2, device(*number), 50).await.unwrap();
                        let consumed: BTreeSet<u32> = consumed.into_iter().map(PrekeyId::get).collect();
                        assert_eq!(consumed, model.consumed);
                    }
                }
            });
        });
        Ok(())
    };
    runner.run(&steps(), run).unwrap();
    let store = store.borrow().clone();
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
