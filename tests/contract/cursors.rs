//! How far devices have read (DESIGN, "cursor").

use multiend::model::{DeviceId, Protocol, ProtocolDevice};
use multiend::store::{Appended, SharedStore};

use super::database::Database;
use super::words::{OMEMO2, alice, at, copy, id, list, message, owner, session};

fn device(protocol: Protocol, id: u32) -> ProtocolDevice {
    ProtocolDevice { protocol, device: DeviceId::new(id).unwrap() }
}

async fn archive_of(store: &SharedStore, messages: usize) -> Vec<i64> {
    let batch: Vec<_> = (0..messages).map(|n| message("m", at(0), vec![copy(format!("m{n}"), "bob@b")])).collect();
    let place = |copies: Vec<Appended>| match copies[0] {
        Appended::Stored(sequence) => sequence,
        other => panic!("{other:?}"),
    };
    store.append(&batch).await.unwrap().into_iter().map(place).collect()
}

pub async fn a_cursor_moves_forward_only(database: Database) {
    let store = database.open().await;
    let places = archive_of(&store, 5).await;
    let devices = [device(OMEMO2, 1), device(Protocol::Legacy, 2)];
    assert_eq!(store.move_cursors(&alice(), &devices, &id("nowhere"), at(1)).await.unwrap(), None);
    assert_eq!(store.move_cursors(&owner("bob"), &devices, &id("m1"), at(1)).await.unwrap(), None);
    assert!(store.cursors(&alice()).await.unwrap().is_empty());
    assert_eq!(store.move_cursors(&alice(), &devices, &id("m3"), at(1)).await.unwrap(), Some(1));
    assert_eq!(store.move_cursors(&alice(), &devices, &id("m1"), at(2)).await.unwrap(), Some(3));
    assert_eq!(store.move_cursors(&alice(), &devices[..1], &id("m4"), at(3)).await.unwrap(), Some(0));
    let cursors = store.cursors(&alice()).await.unwrap();
    let facts: Vec<_> =
        cursors.iter().map(|cursor| (cursor.device, cursor.read, cursor.behind, cursor.listed)).collect();
    assert_eq!(
        facts,
        [(devices[1], Some((places[3], at(1))), 1, false), (devices[0], Some((places[4], at(3))), 0, false)]
    );
    // Concurrent words of one device end at the furthest.
    let (one, two) = (database.open().await, database.open().await);
    for _ in 0..5 {
        let devices = [device(OMEMO2, 7), device(OMEMO2, 8)];
        let turned = [devices[1], devices[0]];
        let (owner, first, last) = (alice(), id("m0"), id("m4"));
        let (a, b) = tokio::join!(
            one.move_cursors(&owner, &devices, &last, at(4)),
            two.move_cursors(&owner, &turned, &first, at(4))
        );
        a.unwrap();
        b.unwrap();
        let cursors = store.cursors(&alice()).await.unwrap();
        let at_end = cursors.iter().filter(|cursor| cursor.device.device.get() >= 7).all(|cursor| cursor.behind == 0);
        assert!(at_end, "{cursors:?}");
    }
}

pub async fn listed_devices_without_a_cursor_are_shown(database: Database) {
    let store = database.open().await;
    archive_of(&store, 3).await;
    store.publish_device_list(&alice(), OMEMO2, &session("phone"), &list(&[1, 2]), 9, at(0)).await.unwrap();
    store.move_cursors(&alice(), &[device(OMEMO2, 2), device(OMEMO2, 3)], &id("m2"), at(1)).await.unwrap();
    let cursors = store.cursors(&alice()).await.unwrap();
    let facts: Vec<_> =
        cursors.iter().map(|cursor| (cursor.device.device.get(), cursor.listed, cursor.behind)).collect();
    assert_eq!(facts, [(1, true, 3), (2, true, 0), (3, false, 0)]);
    assert_eq!(cursors[0].read, None);
}

pub async fn cursors_beyond_the_bound_are_forgotten(database: Database) {
    let store = database.open().await;
    archive_of(&store, 1).await;
    for n in 1..=210 {
        store.move_cursors(&alice(), &[device(OMEMO2, n)], &id("m0"), at(i64::from(n))).await.unwrap();
    }
    let cursors = store.cursors(&alice()).await.unwrap();
    assert_eq!(cursors.len(), 200);
    assert_eq!(cursors[0].device.device.get(), 11);
}
