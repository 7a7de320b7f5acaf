//! What is to be told outside of an answer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use multiend::directory::{Directory, DirectoryMetrics, LifeSettings, Settings};
use multiend::model::SystemClock;
use multiend::store::{DevicePlace, Notice, NoticeKind, Revived, Step};

use super::database::Database;
use super::words::{OMEMO2, RULES, alice, at, device, list, owner, session};

const LEASE: Duration = Duration::from_secs(30);

fn notice(number: u32, kind: NoticeKind, second: i64) -> Notice {
    let device = (number > 0).then(|| device(number));
    Notice { owner: alice(), protocol: OMEMO2, device, kind, at: at(second) }
}

pub async fn a_notice_waits_until_it_is_settled(database: Database) {
    let store = database.open().await;
    let stranger = Notice { owner: owner("nobody"), ..notice(1, NoticeKind::LowStock, 0) };
    assert!(!store.add_notice(&stranger).await.unwrap());
    store.register_account(&alice(), at(0)).await.unwrap();
    let all: Vec<Notice> =
        (0..).zip(NoticeKind::ALL).map(|(number, kind)| notice(number, kind, i64::from(number))).collect();
    for notice in &all {
        assert!(store.add_notice(notice).await.unwrap());
    }
    assert_eq!(store.take_notices(2, LEASE, at(10)).await.unwrap(), all[..2]);
    assert_eq!(store.take_notices(9, LEASE, at(10)).await.unwrap(), all[2..]);
    assert!(store.take_notices(9, LEASE, at(39)).await.unwrap().is_empty(), "all are somebody's to send");
    store.settle_notices(&all[..4]).await.unwrap();
    assert_eq!(store.take_notices(9, LEASE, at(40)).await.unwrap(), all[4..], "what was not settled is taken again");
    store.settle_notices(&all).await.unwrap();
    assert!(store.take_notices(9, LEASE, at(1000)).await.unwrap().is_empty());
}

pub async fn a_notice_that_is_renewed_while_it_is_sent_is_sent_again(database: Database) {
    let store = database.open().await;
    store.register_account(&alice(), at(0)).await.unwrap();
    let first = notice(7, NoticeKind::LowStock, 5);
    store.add_notice(&first).await.unwrap();
    store.add_notice(&first).await.unwrap();
    let taken = store.take_notices(9, LEASE, at(6)).await.unwrap();
    assert_eq!(taken.len(), 1, "the same notice is one while it waits");
    // By a clock that stands still: a renewed notice differs all the same.
    store.add_notice(&notice(7, NoticeKind::LowStock, 5)).await.unwrap();
    store.settle_notices(&taken).await.unwrap();
    let again = store.take_notices(9, LEASE, at(6)).await.unwrap();
    assert_eq!(again.len(), 1);
    assert!(again[0].at > taken[0].at);
    store.settle_notices(&again).await.unwrap();
    assert!(store.take_notices(9, LEASE, at(1000)).await.unwrap().is_empty());
}

pub async fn two_instances_never_take_the_same_notice(database: Database) {
    const NOTICES: u32 = 200;
    let stores = [database.open().await, database.open().await];
    stores[0].register_account(&alice(), at(0)).await.unwrap();
    for number in 1..=NOTICES {
        stores[0].add_notice(&notice(number, NoticeKind::Quarantined, i64::from(number))).await.unwrap();
    }
    let takers: Vec<_> = (0..8)
        .map(|taker| {
            let store = stores[taker % 2].clone();
            tokio::spawn(async move {
                let mut devices = Vec::new();
                loop {
                    let taken = store.take_notices(7, LEASE, at(500)).await.unwrap();
                    if taken.is_empty() {
                        return devices;
                    }
                    devices.extend(taken.iter().filter_map(|notice| notice.device));
                    store.settle_notices(&taken).await.unwrap();
                }
            })
        })
        .collect();
    let mut devices = Vec::new();
    for taker in takers {
        devices.extend(taker.await.unwrap());
    }
    // One that came away empty-handed because others held the rest has not lost it: nothing is left.
    assert!(stores[0].take_notices(9, LEASE, at(500)).await.unwrap().is_empty());
    assert_eq!(devices.len(), NOTICES as usize, "each once");
    assert_eq!(devices.iter().collect::<BTreeSet<_>>().len(), NOTICES as usize);
}

pub async fn a_notice_of_a_state_that_has_passed_is_moot(database: Database) {
    let store = database.open().await;
    store.publish_device_list(&alice(), OMEMO2, &session("phone"), &list(&[1, 2, 3]), 9, at(0)).await.unwrap();
    let place = |id| DevicePlace { owner: alice(), protocol: OMEMO2, device: device(id) };
    for id in [1, 2, 3] {
        assert!(store.quarantine_device(&place(id), Step::Now, at(1)).await.unwrap());
    }
    assert!(store.retire_device(&place(3), Step::Now, at(2)).await.unwrap());
    // Device 1 is back before anybody was told; device 3 comes back after it was removed.
    assert_eq!(store.revive_device(&place(1), 9, at(3)).await.unwrap(), Revived::Listed);
    store.publish_device_list(&alice(), OMEMO2, &session("laptop"), &list(&[1, 3]), 9, at(4)).await.unwrap();

    let metrics = DirectoryMetrics::register(&prometheus::Registry::new()).unwrap();
    let settings = Settings {
        max_devices: 9,
        claims: RULES,
        domains: Default::default(),
        max_subscriptions: 9,
        life: LifeSettings::default(),
    };
    let directory = Directory::new(store, Arc::new(SystemClock), settings, metrics);
    let due = directory.take_notices(100).await.unwrap();
    let told: Vec<_> = due
        .into_iter()
        .filter(|due| matches!(due.notice.kind, NoticeKind::Quarantined | NoticeKind::Removed))
        .map(|due| (due.notice.kind, due.notice.device.unwrap(), due.told.is_some(), due.to.is_empty()))
        .collect();
    let quarantined = |id| told.iter().find(|told| told.0 == NoticeKind::Quarantined && told.1 == device(id));
    assert_eq!(quarantined(1), Some(&(NoticeKind::Quarantined, device(1), false, true)), "{told:?}");
    assert_eq!(quarantined(2), Some(&(NoticeKind::Quarantined, device(2), true, false)), "{told:?}");
    assert!(told.contains(&(NoticeKind::Removed, device(3), false, true)), "{told:?}");
}
