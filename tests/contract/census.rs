//! The figures of the whole database: every device is counted once, whatever the size of the pages.

use multiend::model::{DeviceId, Protocol, ProtocolDevice};
use multiend::store::{CensusPage, CensusPlace, DevicePlace, SharedStore, Step, StoreError};

use super::database::Database;
use super::words::{OMEMO2, alice, at, claim, copy, device, id, list, message, owner, plain_bundle, publish, session};

/// All that a walk finds in pages of `limit`.
async fn walk<T, R>(limit: u32, read: impl Fn(Option<CensusPlace>, u32) -> R) -> Vec<T>
where
    R: Future<Output = Result<CensusPage<T>, StoreError>>,
{
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = read(after, limit).await.unwrap();
        assert!(page.found.len() <= limit as usize);
        found.extend(page.found);
        match page.next {
            Some(next) => after = Some(next),
            None => return found,
        }
    }
}

async fn stocks(store: &SharedStore, limit: u32) -> Vec<(Protocol, u64)> {
    let mut stocks = walk(limit, |after, limit| store.stock_page(after, limit)).await;
    stocks.sort();
    stocks
}

pub async fn every_device_with_a_bundle_is_counted_once_with_its_stock(database: Database) {
    let store = database.open().await;
    assert!(stocks(&store, 10).await.is_empty());
    publish(&store, &plain_bundle(1, 1..=5)).await;
    let bob = owner("bob");
    let phone = multiend::model::SessionJid::parse("bob@example.org/phone").unwrap();
    for id in [7, 8, 9] {
        let bundle = plain_bundle(id as u8, id * 10..id * 10 + 3);
        store.publish_bundle(&bob, OMEMO2, device(id), &phone, &bundle, at(0)).await.unwrap();
    }
    claim(&store, "carol", at(1)).await;
    store.retract_bundle(&bob, OMEMO2, device(9), at(1)).await.unwrap();
    for limit in [1, 2, 3, 100] {
        assert_eq!(stocks(&store, limit).await, [(OMEMO2, 3), (OMEMO2, 3), (OMEMO2, 4)], "pages of {limit}");
    }
}

pub async fn what_devices_have_not_read_is_counted(database: Database) {
    let store = database.open().await;
    let batch: Vec<_> = (0..5).map(|n| message("m", at(0), vec![copy(format!("m{n}"), "bob@b")])).collect();
    store.append(&batch).await.unwrap();
    for (device, read) in [(1, "m1"), (2, "m4")] {
        let device = ProtocolDevice { protocol: OMEMO2, device: DeviceId::new(device).unwrap() };
        store.move_cursors(&alice(), &[device], &id(read), at(1)).await.unwrap();
    }
    for limit in [1, 2, 10] {
        let mut unread = walk(limit, |after, limit| store.unread_page(after, limit)).await;
        unread.sort_unstable();
        assert_eq!(unread, [0, 3]);
    }
}

pub async fn what_waits_is_counted_with_the_age_of_the_oldest(database: Database) {
    let store = database.open().await;
    let before = store.waiting(at(0)).await.unwrap();
    assert_eq!((before.notices.count, before.dead_letters.count, before.expired.count), (0, 0, 0));
    assert_eq!((before.notices.oldest, before.expired.oldest), (None, None));
    assert!(before.database_bytes > 10_000);

    let mut expiring = message("m", at(0), vec![copy("m0", "bob@b"), copy("m1", "carol@b")]);
    for copy in &mut expiring.copies {
        copy.expires_at = Some(at(5));
    }
    store.append(&[expiring]).await.unwrap();
    let letter = message("bad", at(0), vec![copy("bad", "bob@b")]);
    store.set_aside(&letter, "why", at(3)).await.unwrap();
    store.publish_device_list(&alice(), OMEMO2, &session("phone"), &list(&[1, 2]), 9, at(2)).await.unwrap();
    let place = DevicePlace { owner: alice(), protocol: OMEMO2, device: device(2) };
    assert!(store.quarantine_device(&place, Step::Now, at(4)).await.unwrap());

    let waiting = store.waiting(at(9)).await.unwrap();
    assert_eq!((waiting.expired.count, waiting.expired.oldest), (2, Some(at(5))));
    assert_eq!((waiting.dead_letters.count, waiting.dead_letters.oldest), (1, Some(at(3))));
    assert!(waiting.notices.count > 0);
    assert_eq!(waiting.notices.oldest, Some(at(4)));
    assert_eq!(store.waiting(at(4)).await.unwrap().expired.count, 0);
}
