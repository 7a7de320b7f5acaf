//! Directory invariants 6 and 8 together: random lives of a few devices, on the directory's own rules and a clock that the
//! test sets, against a model a page long. And what a dry run leaves behind.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use multiend::directory::{Directory, DirectoryMetrics, LifeRun, LifeSettings, Mode, Settings};
use multiend::model::{Clock, Owner, Requester, SessionJid, Timestamp};
use multiend::store::{ClaimRules, DevicePlace, DeviceState, QuarantineCause, Revived, SharedStore, Step as Due};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::database::Database;
use super::words::{OMEMO2, device, list, owner, plain_bundle};

const HOUR: i64 = 3600;
const GRACE: i64 = 40 * HOUR;
const UNSEEN: i64 = 100 * HOUR;
const REMOVAL: i64 = 50 * HOUR;
/// After so long without a look the watch begins anew.
const PAUSE: i64 = 24 * HOUR;
/// More than there are devices.
const LIMIT: usize = 6;

/// Seconds since some moment.
struct TestClock(AtomicI64);

impl TestClock {
    fn second(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
    fn wait(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        moment(self.second())
    }
}

fn moment(second: i64) -> Timestamp {
    Timestamp::from_micros((1_780_000_000 + second) * 1_000_000)
}

fn directory(store: &SharedStore, clock: &Arc<TestClock>, mode: Mode) -> (Directory, prometheus::Registry) {
    let seconds = |seconds: i64| Duration::from_secs(seconds as u64);
    let registry = prometheus::Registry::new();
    let settings = Settings {
        max_devices: LIMIT,
        claims: ClaimRules::default(),
        domains: BTreeSet::new(),
        max_subscriptions: 9,
        life: LifeSettings {
            mode,
            bundle_grace: seconds(GRACE),
            unseen_limit: seconds(UNSEEN),
            removal_delay: seconds(REMOVAL),
            seen_granularity: seconds(1),
            batch: 3,
        },
    };
    let metrics = DirectoryMetrics::register(&registry).unwrap();
    (Directory::new(store.clone(), clock.clone(), settings, metrics), registry)
}

#[derive(Debug, Clone)]
enum Step {
    /// Session n reads the list.
    Read(u32),
    /// Session n publishes these devices.
    Announce(u32, Vec<u32>),
    Bundle(u32),
    Retract(u32),
    /// A message with this sid.
    Sent(u32),
    Flush,
    Wait(i64),
    Run,
    Quarantine(u32),
    Revive(u32),
    Remove(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = || 1..6_u32;
    let ids = prop::sample::subsequence((1..6_u32).collect::<Vec<_>>(), 0..5).prop_shuffle();
    let step = prop_oneof![
        2 => id().prop_map(Step::Read),
        4 => (id(), ids).prop_map(|(session, ids)| Step::Announce(session, ids)),
        3 => id().prop_map(Step::Bundle),
        1 => id().prop_map(Step::Retract),
        4 => id().prop_map(Step::Sent),
        3 => Just(Step::Flush),
        5 => (1..30_i64).prop_map(|hours| Step::Wait(hours * HOUR)),
        5 => Just(Step::Run),
        1 => id().prop_map(Step::Quarantine),
        1 => id().prop_map(Step::Revive),
        1 => id().prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 1..50)
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Life {
    seen: i64,
    no_bundle: Option<i64>,
    quarantine: Option<(i64, QuarantineCause)>,
}

/// The rules of lives, said once more and as plainly as can be.
#[derive(Default)]
struct Model {
    lives: BTreeMap<u32, Life>,
    bundles: BTreeSet<u32>,
    base: BTreeMap<u32, BTreeSet<u32>>,
    waiting: BTreeMap<u32, i64>,
}

impl Model {
    fn listed(&self) -> BTreeSet<u32> {
        self.lives.iter().filter(|(_, life)| life.quarantine.is_none()).map(|(id, _)| *id).collect()
    }

    fn write(&mut self, list: &BTreeSet<u32>, now: i64) {
        let was = self.listed();
        self.lives.retain(|id, life| life.quarantine.is_some() || list.contains(id));
        for id in list.difference(&was) {
            let no_bundle = (!self.bundles.contains(id)).then_some(now);
            self.lives.insert(*id, Life { seen: now, no_bundle, quarantine: None });
        }
    }

    fn announce(&mut self, session: u32, ids: &[u32], now: i64) {
        let ids: BTreeSet<u32> = ids.iter().copied().collect();
        let base = self.base.insert(session, ids.clone()).unwrap_or_default();
        let was = self.listed();
        let unseen: BTreeSet<u32> = was.difference(&base).copied().collect();
        let merged: BTreeSet<u32> = ids.union(&unseen).copied().collect();
        self.write(&merged, now);
        let now_listed = self.listed();
        // Invariant 6: nothing that this session never saw has gone.
        assert!(was.iter().all(|id| now_listed.contains(id) || base.contains(id)));
        self.lives.retain(|id, _| now_listed.contains(id) || !base.contains(id));
    }

    fn flush(&mut self, now: i64) {
        for (id, at) in std::mem::take(&mut self.waiting) {
            let Some(life) = self.lives.get_mut(&id).filter(|life| life.seen < at) else { continue };
            life.seen = at;
            let Some((since, cause)) = life.quarantine else { continue };
            if (since < at || cause == QuarantineCause::Unseen)
                && !(cause == QuarantineCause::NoBundle && life.no_bundle.is_some())
            {
                self.revive(id, now);
            }
        }
    }

    fn revive(&mut self, id: u32, now: i64) -> bool {
        let was_quarantined = self.lives.get(&id).is_some_and(|life| life.quarantine.is_some());
        if was_quarantined {
            let list = self.listed().into_iter().chain([id]).collect();
            self.write(&list, now);
        }
        was_quarantined
    }

    fn remove(&mut self, id: u32) -> bool {
        let had_bundle = self.bundles.remove(&id);
        self.lives.remove(&id).is_some() || had_bundle
    }

    fn run(&mut self, now: i64, watched: i64) -> LifeRun {
        let mut run = LifeRun::default();
        if now - watched >= GRACE {
            for life in self.lives.values_mut().filter(|life| life.quarantine.is_none()) {
                if life.no_bundle.is_some_and(|since| since <= now - GRACE) {
                    life.quarantine = Some((now, QuarantineCause::NoBundle));
                    run.no_bundle += 1;
                }
            }
            let somebody_was_seen =
                self.lives.values().any(|life| life.quarantine.is_none() && life.seen > now - UNSEEN);
            for life in self.lives.values_mut().filter(|life| life.quarantine.is_none() && somebody_was_seen) {
                if life.seen <= now - UNSEEN {
                    life.quarantine = Some((now, QuarantineCause::Unseen));
                    run.unseen += 1;
                }
            }
        }
        let over = |life: &Life| life.quarantine.is_some_and(|(since, _)| since <= now - REMOVAL);
        let gone: Vec<u32> = self.lives.iter().filter(|(_, life)| over(life)).map(|(id, _)| *id).collect();
        for id in gone {
            self.remove(id);
            run.removed += 1;
        }
        run
    }
}

/// How long the runs of all cases, which share a database, have been watching.
#[derive(Default)]
struct Watch(Option<(i64, i64)>);

impl Watch {
    fn since(&mut self, now: i64) -> i64 {
        let since = self.0.filter(|(_, last)| *last >= now - PAUSE).map_or(now, |(since, _)| since);
        self.0 = Some((since, now));
        since
    }
}

async fn states(store: &SharedStore, owner: &Owner) -> BTreeMap<u32, Life> {
    let second = |at: Timestamp| at.micros() / 1_000_000 - 1_780_000_000;
    let records = store.device_records(owner).await.unwrap().unwrap_or_default();
    let lives = records.into_iter().filter_map(|record| {
        let quarantine = match record.state {
            DeviceState::Listed => None,
            DeviceState::Quarantined(at, cause) => Some((second(at), cause)),
            DeviceState::Unlisted => return None,
        };
        Some((record.device.get(), Life { seen: second(record.seen_at?), no_bundle: None, quarantine }))
    });
    lives.collect()
}

pub async fn directory_6_and_8_lives_behave_as_the_model(database: Database) {
    let store = database.open().await;
    let clock = Arc::new(TestClock(AtomicI64::new(0)));
    let (directory, _) = directory(&store, &clock, Mode::On);
    let watch = RefCell::new(Watch::default());
    let case = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let run = |steps: Vec<Step>| {
        case.set(case.get() + 1);
        let name = format!("m{}", case.get());
        let owner = owner(&name);
        let jid = |number: u32| format!("{name}@example.org/r{number}");
        let session = |number: u32| SessionJid::parse(&jid(number)).unwrap();
        let place = |id: u32| DevicePlace { owner: owner.clone(), protocol: OMEMO2, device: device(id) };
        let mut model = Model::default();
        block_in_place(|| {
            Handle::current().block_on(async {
                for step in steps {
                    clock.wait(60);
                    let (now, second) = (clock.now(), clock.second());
                    match step {
                        Step::Read(number) => {
                            let read = store.device_list(&owner, OMEMO2, Some(&session(number))).await.unwrap();
                            if read.is_some() {
                                model.base.insert(number, model.listed());
                            }
                        }
                        Step::Announce(number, ids) => {
                            store
                                .publish_device_list(&owner, OMEMO2, &session(number), &list(&ids), LIMIT, now)
                                .await
                                .unwrap();
                            model.announce(number, &ids, second);
                        }
                        Step::Bundle(id) => {
                            let published = plain_bundle(1, [id]);
                            store
                                .publish_bundle(&owner, OMEMO2, device(id), &session(id), &published, now)
                                .await
                                .unwrap();
                            model.bundles.insert(id);
                            if let Some(life) = model.lives.get_mut(&id) {
                                life.no_bundle = None;
                            }
                        }
                        Step::Retract(id) => {
                            let was_there = store.retract_bundle(&owner, OMEMO2, device(id), now).await.unwrap();
                            assert_eq!(was_there, model.bundles.remove(&id));
                            if let Some(life) = model.lives.get_mut(&id) {
                                life.no_bundle.get_or_insert(second);
                            }
                        }
                        Step::Sent(id) => {
                            let requester = Requester::parse(&jid(id)).unwrap();
                            directory.sent_with(&owner, &requester, OMEMO2, device(id)).await.unwrap();
                            model.waiting.insert(id, second);
                        }
                        Step::Flush => {
                            directory.flush_signs_of_life().await.unwrap();
                            model.flush(second);
                        }
                        Step::Wait(seconds) => clock.wait(seconds),
                        Step::Run => {
                            // The owners of other cases live and die in the same run.
                            directory.run_life_cycle(|| false).await.unwrap();
                            model.run(second, watch.borrow_mut().since(second));
                        }
                        Step::Quarantine(id) => {
                            let done = store.quarantine_device(&place(id), Due::Now, now).await.unwrap();
                            assert_eq!(done, model.listed().contains(&id));
                            if done {
                                let life = model.lives.get_mut(&id).unwrap();
                                life.quarantine = Some((second, QuarantineCause::Operator));
                            }
                        }
                        Step::Revive(id) => {
                            let done = store.revive_device(&place(id), LIMIT, now).await.unwrap();
                            assert_eq!(done == Revived::Listed, model.revive(id, second));
                        }
                        Step::Remove(id) => {
                            let done = store.retire_device(&place(id), Due::Now, now).await.unwrap();
                            assert_eq!(done, model.remove(id));
                        }
                    }
                    let expected: BTreeMap<u32, Life> =
                        model.lives.iter().map(|(id, life)| (*id, Life { no_bundle: None, ..life.clone() })).collect();
                    assert_eq!(states(&store, &owner).await, expected);
                    let list = store.device_list(&owner, OMEMO2, None).await.unwrap().unwrap_or_default();
                    assert_eq!(list.ids().map(|id| id.get()).collect::<BTreeSet<_>>(), model.listed());
                    let bundles = store.published_bundles(&owner, OMEMO2, None, 9).await.unwrap();
                    assert_eq!(bundles.iter().map(|bundle| bundle.0.get()).collect::<BTreeSet<_>>(), model.bundles);
                }
                // The next case begins with nothing waiting.
                directory.flush_signs_of_life().await.unwrap();
            });
        });
        Ok(())
    };
    runner.run(&steps(), run).unwrap();
}

/// A life of each kind: 1 is seen and has a bundle, 2 was not seen for long, 3 has no bundle, 4 is in quarantine for long.
async fn lives(store: &SharedStore) -> Arc<TestClock> {
    let clock = Arc::new(TestClock(AtomicI64::new(0)));
    let owner = owner("alice");
    let session = SessionJid::parse("alice@example.org/phone").unwrap();
    store.publish_device_list(&owner, OMEMO2, &session, &list(&[1, 2, 3, 4]), LIMIT, clock.now()).await.unwrap();
    for id in [1, 2, 4] {
        store.publish_bundle(&owner, OMEMO2, device(id), &session, &plain_bundle(1, [id]), clock.now()).await.unwrap();
    }
    let place = |id| DevicePlace { owner: owner.clone(), protocol: OMEMO2, device: device(id) };
    store.quarantine_device(&place(4), Due::Now, clock.now()).await.unwrap();
    clock.wait(UNSEEN + HOUR);
    let (directory, _) = directory(store, &clock, Mode::Off);
    let requester = Requester::parse("alice@example.org/phone").unwrap();
    directory.sent_with(&owner, &requester, OMEMO2, device(1)).await.unwrap();
    directory.flush_signs_of_life().await.unwrap();
    clock
}

fn metric(registry: &prometheus::Registry, name: &str) -> f64 {
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
}

pub async fn directory_8_a_dry_run_changes_nothing_and_says_what_would_be(database: Database) {
    let store = database.open().await;
    let clock = lives(&store).await;
    let before = database.dump().await;
    assert!(before.len() > 10, "{before:?}");
    for mode in [Mode::Off, Mode::DryRun] {
        let (directory, registry) = directory(&store, &clock, mode);
        let would = directory.run_life_cycle(|| false).await.unwrap();
        // Device 3 is both without a bundle and unseen.
        let expected = LifeRun { no_bundle: 1, unseen: 2, removed: 1 };
        assert_eq!(would, if mode == Mode::Off { LifeRun::default() } else { expected });
        assert_eq!(database.dump().await, before);
        let seen = [
            ("multiend_directory_devices{protocol=\"omemo2\",state=\"listed\"}", 3.0),
            ("multiend_directory_devices{protocol=\"omemo2\",state=\"quarantined\"}", 1.0),
            ("multiend_directory_would_quarantine_devices{cause=\"no-bundle\"}", 1.0),
            ("multiend_directory_would_quarantine_devices{cause=\"unseen\"}", 2.0),
            ("multiend_directory_would_remove_devices", 1.0),
            ("multiend_directory_quarantined_total{cause=\"unseen\"}", 0.0),
            ("multiend_directory_removed_total", 0.0),
        ];
        for (name, count) in seen {
            let shown = mode != Mode::Off || name.starts_with("multiend_directory_devices");
            assert_eq!(metric(&registry, name), if shown { count } else { 0.0 }, "{name}");
        }
    }
}

pub async fn directory_8_who_was_not_watched_gets_the_grace_period_first(database: Database) {
    let store = database.open().await;
    let clock = lives(&store).await;
    let (directory, registry) = directory(&store, &clock, Mode::On);
    // The first look: all have been listed for long, and nobody was there to see them. What is in quarantine has had its time.
    let first = directory.run_life_cycle(|| false).await.unwrap();
    assert_eq!(first, LifeRun { removed: 1, ..LifeRun::default() });
    for _ in 0..GRACE / (20 * HOUR) - 1 {
        clock.wait(20 * HOUR);
        assert_eq!(directory.run_life_cycle(|| false).await.unwrap(), LifeRun::default());
    }
    clock.wait(20 * HOUR);
    let due = directory.run_life_cycle(|| false).await.unwrap();
    assert_eq!(due, LifeRun { no_bundle: 1, unseen: 1, removed: 0 });
    let list = store.device_list(&owner("alice"), OMEMO2, None).await.unwrap().unwrap();
    assert_eq!(list.ids().map(|id| id.get()).collect::<Vec<_>>(), [1]);
    assert_eq!(metric(&registry, "multiend_directory_quarantined_total{cause=\"no-bundle\"}"), 1.0);
    assert_eq!(metric(&registry, "multiend_directory_removed_total"), 1.0);
}

pub async fn a_session_that_the_database_has_forgotten_is_learned_again(database: Database) {
    let store = database.open().await;
    let clock = Arc::new(TestClock(AtomicI64::new(0)));
    let (directory, _) = directory(&store, &clock, Mode::Off);
    let sent = async |resource: &str, id: u32| {
        let requester = Requester::parse(&format!("alice@example.org/{resource}")).unwrap();
        directory.sent_with(&owner("alice"), &requester, OMEMO2, device(id)).await.unwrap();
    };
    let phone = SessionJid::parse("alice@example.org/phone").unwrap();
    let known = async || store.session_devices(&owner("alice"), OMEMO2, &phone).await.unwrap().len();
    sent("phone", 1).await;
    assert_eq!(known().await, 1);
    for number in 2..150 {
        clock.wait(1);
        sent(&format!("r{number}"), number).await;
    }
    assert_eq!(known().await, 0);
    clock.wait(HOUR);
    sent("phone", 1).await;
    assert_eq!(known().await, 1);
}
