//! What owners want archived (XEP-0441; archive invariant 3).

use std::collections::BTreeSet;

use multiend::model::{ArchiveDefault, ArchivePreferences, Copy, Direction};
use multiend::store::Appended;

use super::append::all_of;
use super::database::Database;
use super::words::{alice, at, copy, jid, message, owner};

fn preferences(otherwise: ArchiveDefault, always: &[&str], never: &[&str]) -> ArchivePreferences {
    let set = |jids: &[&str]| jids.iter().map(|text| jid(text)).collect::<BTreeSet<_>>();
    ArchivePreferences::new(otherwise, set(always), set(never)).unwrap()
}

pub async fn preferences_are_what_was_set(database: Database) {
    let (one, two) = (database.open().await, database.open().await);
    assert_eq!(one.preferences(&alice()).await.unwrap(), ArchivePreferences::default());
    let first = preferences(ArchiveDefault::Never, &["bob@example.net", "läptop@example.net/1"], &["example.com"]);
    one.set_preferences(&alice(), &first, at(0)).await.unwrap();
    assert_eq!(two.preferences(&alice()).await.unwrap(), first);
    assert_eq!(two.preferences(&owner("bob")).await.unwrap(), ArchivePreferences::default());
    let second = preferences(ArchiveDefault::Always, &[], &["bob@example.net"]);
    two.set_preferences(&alice(), &second, at(1)).await.unwrap();
    assert_eq!(one.preferences(&alice()).await.unwrap(), second);
}

/// What an owner has set is never taken for what it had on another server, not even where it set what is the default.
pub async fn preferences_from_elsewhere_stay_behind_the_owner_s_own(database: Database) {
    let store = database.open().await;
    let elsewhere = preferences(ArchiveDefault::Never, &["bob@example.net"], &[]);
    assert!(store.adopt_preferences(&alice(), &elsewhere, at(0)).await.unwrap());
    assert_eq!(store.preferences(&alice()).await.unwrap(), elsewhere);
    let later = preferences(ArchiveDefault::Never, &[], &["bob@example.net"]);
    assert!(!store.adopt_preferences(&alice(), &later, at(1)).await.unwrap());
    store.set_preferences(&alice(), &ArchivePreferences::default(), at(2)).await.unwrap();
    assert!(!store.adopt_preferences(&alice(), &elsewhere, at(3)).await.unwrap());
    assert_eq!(store.preferences(&alice()).await.unwrap(), ArchivePreferences::default());
}

/// Preferences set by one instance count for the very next append of another: they are read in its transaction.
pub async fn preferences_are_applied_before_storing(database: Database) {
    let (one, two) = (database.open().await, database.open().await);
    let mut number = 0;
    let mut stored_with = async |peer: &str| {
        number += 1;
        let appended = two.append(&[message("m", at(0), vec![copy(number, peer)])]).await.unwrap();
        match appended[0][0] {
            Appended::Stored(_) => true,
            Appended::Unwanted => false,
            Appended::Duplicate => panic!("{peer}"),
        }
    };
    assert!(stored_with("bob@example.net/phone").await);
    let set = preferences(
        ArchiveDefault::Always,
        &["eve@example.net/phone"],
        &["bob@example.net", "eve@example.net", "carol@example.net/phone"],
    );
    one.set_preferences(&alice(), &set, at(0)).await.unwrap();
    for (peer, stored) in [
        ("bob@example.net/phone", false),
        ("bob@example.net", false),
        ("dave@example.net/phone", true),
        ("carol@example.net/phone", false),
        ("carol@example.net/laptop", true),
        ("eve@example.net/phone", true),
        ("eve@example.net/laptop", false),
    ] {
        assert_eq!(stored_with(peer).await, stored, "{peer}");
    }
    one.set_preferences(&alice(), &preferences(ArchiveDefault::Never, &["bob@example.net"], &[]), at(1)).await.unwrap();
    assert!(stored_with("bob@example.net/phone").await && !stored_with("dave@example.net").await);
    assert_eq!(all_of(&one, &alice()).await.len(), 5);
}

/// Each owner decides on its own copy only, and what it has stays a duplicate.
pub async fn preferences_concern_the_owner_s_copy_only(database: Database) {
    let store = database.open().await;
    let local = |name: &str| {
        let sent = Copy { direction: Direction::Sent, ..copy(format!("{name}-a"), "bob@example.org") };
        let received = Copy { owner: owner("bob"), ..copy(format!("{name}-b"), "alice@example.org/phone") };
        message(name, at(0), vec![sent, received])
    };
    store.append(&[local("before")]).await.unwrap();
    let never = preferences(ArchiveDefault::Never, &[], &[]);
    store.set_preferences(&owner("bob"), &never, at(0)).await.unwrap();
    let appended = store.append(&[local("after"), local("before"), local("after")]).await.unwrap();
    assert!(matches!(appended[0][..], [Appended::Stored(_), Appended::Unwanted]));
    assert_eq!(appended[1], [Appended::Duplicate, Appended::Duplicate]);
    assert_eq!(appended[2], [Appended::Duplicate, Appended::Unwanted]);
    assert_eq!(all_of(&store, &alice()).await.len(), 2);
    assert_eq!(all_of(&store, &owner("bob")).await.len(), 1);
    assert_eq!(store.archive_totals().await.unwrap().bodies, 2);
}
