//! The life cycle of devices (directory invariant 8).

use multiend::model::{Clock, Device, DeviceList, SystemClock, Timestamp};
use multiend::store::{
    DevicePlace, DeviceState, Due, DuePage, ListPublished, NoticeKind, QuarantineCause, Revived, SharedStore,
    SignOfLife, Step, StoreError,
};

use super::database::Database;
use super::words::{
    DAY, Got, OMEMO2, alice, at, bundle, claim, device, list, owner, plain_bundle, publish as publish_bundle, session,
};

const LIMIT: usize = 5;

fn place(id: u32) -> DevicePlace {
    DevicePlace { owner: alice(), protocol: OMEMO2, device: device(id) }
}

async fn publish(store: &SharedStore, resource: &str, ids: &[u32], now: Timestamp) -> ListPublished {
    store.publish_device_list(&alice(), OMEMO2, &session(resource), &list(ids), LIMIT, now).await.unwrap()
}

async fn in_force(store: &SharedStore) -> Vec<u32> {
    let list = store.device_list(&alice(), OMEMO2, None).await.unwrap().unwrap_or_default();
    list.ids().map(|id| id.get()).collect()
}

async fn sign(store: &SharedStore, id: u32, now: Timestamp) -> Vec<DevicePlace> {
    store.note_signs_of_life(&[SignOfLife { place: place(id), at: now }]).await.unwrap()
}

async fn due(store: &SharedStore, due: Due) -> Vec<u32> {
    let page = store.due_devices(due, None, 100).await.unwrap();
    assert_eq!(page.next, None);
    page.devices.iter().map(|place| place.device.get()).collect()
}

/// What waits to be told, as (kind, device); taken away.
async fn told(store: &SharedStore) -> Vec<(NoticeKind, Option<u32>)> {
    let notices = store.take_notices(100, DAY, Timestamp::from_micros(i64::MAX / 2)).await.unwrap();
    store.settle_notices(&notices).await.unwrap();
    let mut told: Vec<_> = notices.iter().map(|notice| (notice.kind, notice.device.map(|id| id.get()))).collect();
    told.sort();
    told
}

async fn state(store: &SharedStore, id: u32) -> Option<DeviceState> {
    let records = store.device_records(&alice()).await.unwrap().unwrap();
    records.into_iter().find(|record| record.device.get() == id && record.protocol == OMEMO2).map(|record| record.state)
}

pub async fn a_device_without_a_bundle_is_due_until_it_has_one(database: Database) {
    let store = database.open().await;
    publish(&store, "phone", &[1, 2], at(0)).await;
    publish_bundle(&store, &plain_bundle(1, [1])).await;
    assert_eq!(due(&store, Due::NoBundleSince(at(-1))).await, [] as [u32; 0]);
    assert_eq!(due(&store, Due::NoBundleSince(at(0))).await, [2]);
    store.retract_bundle(&alice(), OMEMO2, device(1), at(50)).await.unwrap();
    assert_eq!(due(&store, Due::NoBundleSince(at(49))).await, [2]);
    assert_eq!(due(&store, Due::NoBundleSince(at(50))).await, [2, 1]);
    // A list that names it again is no bundle.
    publish(&store, "phone", &[2, 1], at(60)).await;
    assert_eq!(due(&store, Due::NoBundleSince(at(50))).await, [2, 1]);
}

pub async fn an_unseen_device_is_due_only_while_another_is_seen(database: Database) {
    let store = database.open().await;
    publish(&store, "phone", &[1, 2], at(0)).await;
    // The owner is away altogether.
    assert_eq!(due(&store, Due::UnseenSince(at(100))).await, [] as [u32; 0]);
    assert!(sign(&store, 1, at(150)).await.is_empty());
    assert_eq!(due(&store, Due::UnseenSince(at(100))).await, [2]);
    assert!(!store.quarantine_device(&place(1), Step::IfDue(Due::UnseenSince(at(100))), at(151)).await.unwrap());
    assert!(store.quarantine_device(&place(2), Step::IfDue(Due::UnseenSince(at(100))), at(151)).await.unwrap());
    // An older sign than the one known says nothing new, and a device that is not listed has no life.
    sign(&store, 1, at(120)).await;
    sign(&store, 9, at(151)).await;
    assert_eq!(due(&store, Due::UnseenSince(at(149))).await, [] as [u32; 0]);
    assert_eq!(state(&store, 9).await, None);
}

pub async fn a_quarantined_device_leaves_the_list_and_a_sign_of_life_brings_it_back(database: Database) {
    let store = database.open().await;
    let named = Device { id: device(2), label: Some("old".to_owned()), label_signature: Some("c2ln".to_owned()) };
    let published = DeviceList::new(vec![named.clone(), Device::unlabelled(device(1))]).unwrap();
    store.publish_device_list(&alice(), OMEMO2, &session("phone"), &published, LIMIT, at(0)).await.unwrap();
    store.publish_bundle(&alice(), OMEMO2, device(2), &session("old"), &plain_bundle(2, [5]), at(0)).await.unwrap();
    told(&store).await;
    assert!(store.quarantine_device(&place(2), Step::Now, at(10)).await.unwrap());
    assert!(!store.quarantine_device(&place(2), Step::Now, at(11)).await.unwrap(), "it is not listed any more");
    assert_eq!(in_force(&store).await, [1]);
    assert_eq!(told(&store).await, [(NoticeKind::ListChanged, None), (NoticeKind::Quarantined, Some(2))]);
    assert_eq!(state(&store, 2).await, Some(DeviceState::Quarantined(at(10), QuarantineCause::Operator)));
    assert_eq!(store.published_bundles(&alice(), OMEMO2, None, 9).await.unwrap().len(), 1, "its bundle is there");
    // What was seen before the quarantine and written late is no sign.
    assert!(sign(&store, 2, at(10)).await.is_empty());
    assert_eq!(sign(&store, 2, at(12)).await, [place(2)]);
    assert_eq!(store.revive_device(&place(2), 1, at(12)).await.unwrap(), Revived::NoRoom);
    assert_eq!(store.revive_device(&place(2), LIMIT, at(12)).await.unwrap(), Revived::Listed);
    assert_eq!(store.revive_device(&place(2), LIMIT, at(12)).await.unwrap(), Revived::NotQuarantined);
    let list = store.device_list(&alice(), OMEMO2, None).await.unwrap().unwrap();
    assert_eq!(list.devices(), [Device::unlabelled(device(1)), named], "label and signature as they were");
    assert_eq!(told(&store).await, [(NoticeKind::ListChanged, None)]);
    assert_eq!(state(&store, 2).await, Some(DeviceState::Listed));
}

pub async fn a_device_quarantined_for_want_of_a_bundle_needs_one_to_come_back(database: Database) {
    let store = database.open().await;
    publish(&store, "phone", &[1, 2], at(0)).await;
    let step = Step::IfDue(Due::NoBundleSince(at(0)));
    assert!(store.quarantine_device(&place(1), step, at(10)).await.unwrap());
    assert!(sign(&store, 1, at(11)).await.is_empty());
    publish_bundle(&store, &plain_bundle(1, [1])).await;
    assert_eq!(sign(&store, 1, at(12)).await, [place(1)]);
}

pub async fn a_list_that_names_a_quarantined_device_revives_it_and_one_that_leaves_it_out_does_not(database: Database) {
    let store = database.open().await;
    publish(&store, "phone", &[1, 2, 3], at(0)).await;
    store.device_list(&alice(), OMEMO2, Some(&session("laptop"))).await.unwrap();
    for id in [2, 3] {
        store.quarantine_device(&place(id), Step::Now, at(10)).await.unwrap();
    }
    // A session that never saw them says nothing about them.
    assert!(matches!(publish(&store, "tablet", &[4], at(11)).await, ListPublished::Accepted { .. }));
    assert_eq!(in_force(&store).await, [4, 1]);
    assert!(matches!(state(&store, 2).await, Some(DeviceState::Quarantined(..))));
    // This one saw 2 and 3, lists 2 and gives up 3: that is gone, as a listed one would be, and no sign brings it back.
    publish(&store, "laptop", &[1, 2], at(12)).await;
    assert_eq!(in_force(&store).await, [1, 2, 4]);
    assert_eq!(state(&store, 2).await, Some(DeviceState::Listed));
    assert_eq!(state(&store, 3).await, None);
    assert!(sign(&store, 3, at(13)).await.is_empty());
    // Whoever reads the list now has not seen what is in quarantine, and keeps it there by publishing what it read.
    store.quarantine_device(&place(4), Step::Now, at(14)).await.unwrap();
    let read = store.device_list(&alice(), OMEMO2, Some(&session("phone"))).await.unwrap().unwrap();
    assert_eq!(read, list(&[1, 2]));
    publish(&store, "phone", &[1, 2, 5], at(15)).await;
    assert!(matches!(state(&store, 4).await, Some(DeviceState::Quarantined(..))));
    // With the list goes what is in quarantine.
    store.delete_device_list(&alice(), OMEMO2, at(16)).await.unwrap();
    assert_eq!(state(&store, 4).await, None);
}

pub async fn a_removed_device_is_gone_and_its_tombstones_stay(database: Database) {
    let store = database.open().await;
    publish(&store, "phone", &[1, 2], at(0)).await;
    publish_bundle(&store, &plain_bundle(1, [1, 2])).await;
    assert_eq!(claim(&store, "bob", at(1)).await, Got::Fresh(1));
    let step = |moment| Step::IfDue(Due::QuarantinedSince(at(moment)));
    assert!(!store.retire_device(&place(1), step(100), at(5)).await.unwrap(), "it is not in quarantine");
    store.quarantine_device(&place(1), Step::Now, at(10)).await.unwrap();
    told(&store).await;
    assert_eq!(due(&store, Due::QuarantinedSince(at(9))).await, [] as [u32; 0]);
    assert_eq!(due(&store, Due::QuarantinedSince(at(10))).await, [1]);
    assert!(!store.retire_device(&place(1), step(9), at(11)).await.unwrap());
    assert!(store.retire_device(&place(1), step(10), at(11)).await.unwrap());
    assert!(!store.retire_device(&place(1), Step::Now, at(12)).await.unwrap());
    assert_eq!(told(&store).await, [(NoticeKind::Removed, Some(1))]);
    assert_eq!(claim(&store, "carol", at(12)).await, Got::NoBundle);
    // It comes back from a backup with the bundle it had: what was issued stays issued.
    publish(&store, "phone", &[1, 2], at(13)).await;
    publish_bundle(&store, &plain_bundle(1, [1, 2])).await;
    assert_eq!(claim(&store, "dave", at(14)).await, Got::Fresh(2));
    told(&store).await;
    // A listed one is removed at once if an operator says so.
    assert!(store.retire_device(&place(2), Step::Now, at(15)).await.unwrap());
    assert_eq!(in_force(&store).await, [1]);
    assert_eq!(told(&store).await, [(NoticeKind::ListChanged, None), (NoticeKind::Removed, Some(2))]);
    assert!(!store.retire_device(&place(77), Step::Now, at(15)).await.unwrap());
}

pub async fn due_devices_come_in_pages_that_miss_none(database: Database) {
    let store = database.open().await;
    for number in 0..30 {
        let owner = owner(&format!("o{}", number % 10));
        let ids: Vec<u32> = (1..=number / 10 + 1).collect();
        let now = at(i64::from(number % 3));
        store.publish_device_list(&owner, OMEMO2, &session("x"), &list(&ids), 9, now).await.unwrap();
    }
    let (mut all, mut after) = (Vec::new(), None);
    for _ in 0..100 {
        let DuePage { devices, next } = store.due_devices(Due::NoBundleSince(at(5)), after, 4).await.unwrap();
        all.extend(devices);
        after = next;
        if after.is_none() {
            break;
        }
    }
    let read = all.len();
    all.sort();
    all.dedup();
    assert_eq!((read, all.len(), after), (30, 30, None));
}

pub async fn two_instances_take_each_step_once(database: Database) {
    let stores = [database.open().await, database.open().await];
    publish(&stores[0], "phone", &[1, 2, 3, 4, 5], at(0)).await;
    let mut steps = tokio::task::JoinSet::new();
    for number in 0..40_usize {
        let store = stores[number % 2].clone();
        let id = number as u32 / 8 + 1;
        steps.spawn(async move {
            match number % 4 {
                // Signs of life of the same devices, all at once, in both orders.
                0 => {
                    let mut signs: Vec<_> = (1..=5).map(|id| SignOfLife { place: place(id), at: at(5) }).collect();
                    if number % 8 == 0 {
                        signs.reverse();
                    }
                    store.note_signs_of_life(&signs).await.unwrap();
                    false
                }
                _ => store.quarantine_device(&place(id), Step::IfDue(Due::NoBundleSince(at(0))), at(10)).await.unwrap(),
            }
        });
    }
    let taken = steps.join_all().await.into_iter().filter(|taken| *taken).count();
    assert_eq!((taken, in_force(&stores[0]).await.len()), (5, 0));
    let states = stores[1].device_states().await.unwrap();
    assert_eq!((states.listed, states.quarantined), ([0, 0], [0, 5]));
}

pub async fn a_long_pause_of_the_watch_begins_it_anew(database: Database) {
    let (one, two) = (database.open().await, database.open().await);
    let watch = async |store: &SharedStore, second: i64| {
        store.watched_since(std::time::Duration::from_secs(100), at(second)).await.unwrap()
    };
    assert_eq!(watch(&one, 0).await, at(0));
    for (store, second) in [(&two, 90), (&one, 190), (&two, 150), (&one, 290)] {
        assert_eq!(watch(store, second).await, at(0));
    }
    assert_eq!(watch(&one, 391).await, at(391));
    assert_eq!(watch(&two, 400).await, at(391));
}

pub async fn bundles_of_unlisted_devices_are_bounded(database: Database) {
    let store = database.open().await;
    let put = async |id: u32, second: i64| {
        store.publish_bundle(&alice(), OMEMO2, device(id), &session("x"), &bundle(1, &[(1, id)]), at(second)).await
    };
    publish(&store, "phone", &[100, 101, 102], at(0)).await;
    for id in 1..=16 {
        put(id, i64::from(id)).await.unwrap();
    }
    assert!(matches!(put(17, 20).await, Err(StoreError::TooManyBundles)));
    // Listed ones always find room, as does one that is there, and one that was retracted gives its place away.
    for id in [100, 101, 5] {
        put(id, 20).await.unwrap();
    }
    store.quarantine_device(&place(102), Step::Now, at(20)).await.unwrap();
    put(102, 20).await.unwrap();
    store.retract_bundle(&alice(), OMEMO2, device(5), at(21)).await.unwrap();
    put(17, 22).await.unwrap();
    assert!(matches!(put(18, 23).await, Err(StoreError::TooManyBundles)));
    // After a week the oldest makes room.
    put(18, 1 + 7 * 24 * 3600).await.unwrap();
    let mut there = Vec::new();
    for (device, ..) in store.published_bundles(&alice(), OMEMO2, None, 99).await.unwrap() {
        there.push(device.get());
    }
    assert_eq!(there, [2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 100, 101, 102]);
}

pub async fn devices_that_were_are_remembered_up_to_a_bound(database: Database) {
    let store = database.open().await;
    let put = async |id: u32| {
        store.publish_bundle(&alice(), OMEMO2, device(id), &session("x"), &bundle(1, &[(1, id)]), at(0)).await
    };
    publish_bundle(&store, &plain_bundle(1, [1])).await;
    assert_eq!(claim(&store, "bob", at(1)).await, Got::Fresh(1));
    store.retract_bundle(&alice(), OMEMO2, device(1), at(2)).await.unwrap();
    // As they are after a thousand devices; none of their prekeys was ever issued.
    database
        .execute(
            "INSERT INTO bundle (account, protocol, device, item_id, payload, identity_key, next_upload, signed_prekey_id,
                 signed_prekey, signed_prekey_signature, published_at)
             WITH RECURSIVE n (id) AS (SELECT 1000 UNION ALL SELECT id + 1 FROM n WHERE id < 1998)
             SELECT account, protocol, n.id, item_id, NULL, identity_key, 0, 1, signed_prekey, signed_prekey_signature, 0
             FROM bundle, n",
        )
        .await;
    put(5000).await.unwrap();
    // The one with an issued prekey is remembered.
    publish_bundle(&store, &plain_bundle(1, [1])).await;
    assert_eq!(claim(&store, "carol", at(3)).await, Got::LastResort(1));
}

pub async fn devices_from_before_there_were_lives_count_as_seen_when_the_schema_came(database: Database) {
    let store = database.open().await;
    publish(&store, "phone", &[1, 2], at(-1_000_000)).await;
    publish_bundle(&store, &plain_bundle(1, [1])).await;
    // As an older program leaves them, and then what the migration does.
    database.execute("DELETE FROM device_life").await;
    assert_eq!(state(&store, 1).await, Some(DeviceState::Listed));
    let migration = match database.is_sqlite() {
        true => include_str!("../../migrations/sqlite/0006_lifecycle.sql"),
        false => include_str!("../../migrations/postgres/0006_lifecycle.sql"),
    };
    let begin = migration.find("INSERT INTO device_life").unwrap();
    let end = begin + migration[begin..].find(';').unwrap();
    database.execute(&migration[begin..end]).await;
    let now = SystemClock.now();
    let records = store.device_records(&alice()).await.unwrap().unwrap();
    for record in records {
        assert_eq!((record.state, record.listed_at), (DeviceState::Listed, Some(at(-1_000_000))));
        assert!(now.since(record.seen_at.unwrap()) < DAY);
    }
    assert_eq!(due(&store, Due::NoBundleSince(now)).await, [2]);
}

pub async fn what_an_older_program_lists_and_delists_confuses_nobody(database: Database) {
    let store = database.open().await;
    publish(&store, "phone", &[1, 2, 3], at(0)).await;
    // It has listed 1 and taken 2 out of the list, and knows nothing of lives.
    database.execute("DELETE FROM device_life WHERE device = 1").await;
    database.execute("DELETE FROM listed_device WHERE device = 2").await;
    assert!(!store.quarantine_device(&place(2), Step::IfDue(Due::NoBundleSince(at(0))), at(1)).await.unwrap());
    assert_eq!(due(&store, Due::NoBundleSince(at(0))).await, [3]);
    assert!(store.quarantine_device(&place(1), Step::Now, at(1)).await.unwrap());
    assert_eq!(in_force(&store).await, [3]);
}

/// One instance writes down that a device was seen, while another one quarantines it because it was not.
pub async fn whoever_shows_itself_while_it_is_quarantined_as_unseen_comes_back(database: Database) {
    let (store, other) = (database.open().await, database.open().await);
    publish(&store, "phone", &[1, 2], at(0)).await;
    let mut quarantined = 0;
    for round in 1..=150 {
        let now = |second: i64| at(round * 86_400 + second);
        sign(&store, 2, now(0)).await;
        let step = Step::IfDue(Due::UnseenSince(now(-1)));
        let first = place(1);
        let quarantine = store.quarantine_device(&first, step, now(10));
        // What was seen before the quarantine may be written after it.
        let sign = sign(&other, 1, now(if round % 2 == 0 { 5 } else { 15 }));
        let (done, back) = if round % 3 == 0 {
            let back = sign.await;
            (quarantine.await, back)
        } else {
            tokio::join!(quarantine, sign)
        };
        assert_eq!(done.unwrap(), !back.is_empty(), "round {round}: quarantined, and seen but not back");
        for place in back {
            assert_eq!(store.revive_device(&place, LIMIT, now(20)).await.unwrap(), Revived::Listed);
            quarantined += 1;
        }
        assert_eq!(in_force(&store).await.len(), 2);
    }
    assert!(quarantined < 150, "it was never seen in time");
}
