//! Prekeys that key exchanges have used up (directory invariants 3 and 4).

use multiend::model::{Claimant, KeyExchange, PrekeyId, Requester};
use multiend::store::{Claim, SharedStore};

use super::database::Database;
use super::words::{
    Got, OMEMO2, RULES, alice, at, bundle, claim, claim_by, device, got, message, owner, plain_bundle, publish,
};

fn exchange(sender: &str, prekey: u32) -> KeyExchange {
    KeyExchange {
        owner: alice(),
        protocol: OMEMO2,
        device: device(1),
        prekey: PrekeyId::new(prekey).unwrap(),
        sender: Requester::parse(sender).unwrap(),
        sender_device: None,
    }
}

/// Stores a message that makes key exchanges, for nobody's archive.
async fn arrives(store: &SharedStore, key_exchanges: Vec<KeyExchange>) {
    let mut message = message("", at(0), Vec::new());
    message.key_exchanges = key_exchanges;
    store.append(&[message]).await.unwrap();
}

async fn consumed(store: &SharedStore) -> Vec<u32> {
    let ids = store.consumed_prekeys(&alice(), OMEMO2, device(1), 100).await.unwrap();
    ids.into_iter().map(PrekeyId::get).collect()
}

pub async fn a_key_exchange_uses_up_the_prekey_of_its_sender(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=3)).await;
    assert_eq!(claim(&store, "bob", at(0)).await, Got::Fresh(1));
    assert_eq!(claim(&store, "carol", at(0)).await, Got::Fresh(2));
    arrives(&store, vec![exchange("bob@example.net/phone", 1)]).await;
    assert_eq!(consumed(&store).await, [1]);
    assert_eq!(claim(&store, "bob", at(1)).await, Got::Fresh(3));
    // Never again, not even as the last resort; and a message that comes twice changes nothing.
    arrives(&store, vec![exchange("bob@example.net/phone", 1), exchange("bob@example.net/phone", 3)]).await;
    for name in ["d", "e", "f"] {
        assert_eq!(claim(&store, name, at(2)).await, Got::LastResort(2));
    }
    assert_eq!(store.consumed_prekeys(&alice(), OMEMO2, device(1), 1).await.unwrap().len(), 1);
    let mut both = consumed(&store).await;
    both.sort_unstable();
    assert_eq!(both, [1, 3]);
    // Withdrawn by its device, it still counts: its private half may go.
    publish(&store, &plain_bundle(1, [2])).await;
    assert_eq!(consumed(&store).await.len(), 2);
}

pub async fn nobody_uses_up_the_prekeys_of_others(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=4)).await;
    assert_eq!(claim(&store, "bob", at(0)).await, Got::Fresh(1));
    assert_eq!(claim(&store, "eve", at(0)).await, Got::Fresh(2));
    // Of others, of nobody, not there at all, of another device or account; and names that begin alike.
    let mut elsewhere = exchange("bob@example.net/phone", 1);
    elsewhere.device = device(2);
    let mut other = exchange("bob@example.net/phone", 1);
    other.owner = owner("nobody");
    let guesses = (1..=9).filter(|id| *id != 2).map(|id| exchange("eve@example.net/phone", id));
    let alike =
        ["bob@example.ne/phone", "bob@example.net.org/phone", "ob@example.net/phone"].map(|from| exchange(from, 1));
    arrives(&store, guesses.chain(alike).chain([elsewhere, other]).collect()).await;
    assert_eq!(consumed(&store).await, [0_u32; 0]);
    assert_eq!(claim(&store, "bob", at(1)).await, Got::Repeat(1));
    // Another session of the account speaks for it.
    arrives(&store, vec![exchange("bob@example.net/laptop", 1)]).await;
    assert_eq!(consumed(&store).await, [1]);
}

pub async fn of_prekeys_with_one_id_the_one_that_was_issued_to_the_sender_is_used_up(database: Database) {
    let store = database.open().await;
    publish(&store, &bundle(1, &[(1, 1001)])).await;
    let tablet = Claimant::Device(owner("bob"), device(7));
    let by_tablet = Claim { claimant: tablet, foreign: false, ..claim_by("x") };
    assert_eq!(got(&store.claim(&by_tablet, &RULES, at(0)).await.unwrap()), Got::Fresh(1001));
    // The id comes back with a new key, which another session of the same account gets.
    publish(&store, &bundle(1, &[(1, 1002), (2, 1001)])).await;
    publish(&store, &bundle(1, &[(1, 1002), (2, 1003)])).await;
    let laptop =
        Claim { claimant: Claimant::Address(Requester::parse("bob@example.org/laptop").unwrap()), ..by_tablet.clone() };
    assert_eq!(got(&store.claim(&laptop, &RULES, at(1)).await.unwrap()), Got::Fresh(1002));
    publish(&store, &bundle(1, &[(1, 1001), (3, 1002), (2, 1003)])).await;
    publish(&store, &bundle(1, &[(1, 1002), (2, 1003)])).await;
    // Now both 1001, withdrawn, and 1002 have had the id 1: the device that sent it tells which it was.
    let mut from_tablet = exchange("bob@example.org/anywhere", 1);
    from_tablet.sender_device = Some(device(7));
    arrives(&store, vec![from_tablet]).await;
    assert_eq!(got(&store.claim(&laptop, &RULES, at(2)).await.unwrap()), Got::Repeat(1002));
    arrives(&store, vec![exchange("bob@example.org/laptop", 1)]).await;
    assert_eq!(got(&store.claim(&laptop, &RULES, at(3)).await.unwrap()), Got::Fresh(1003));
    assert_eq!(consumed(&store).await, [1, 1]);
}

pub async fn who_was_given_a_last_resort_can_use_it_up(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, [1])).await;
    assert_eq!(claim(&store, "bob", at(0)).await, Got::Fresh(1));
    assert_eq!(claim(&store, "carol", at(1)).await, Got::LastResort(1));
    arrives(&store, vec![exchange("eve@example.net/phone", 1)]).await;
    assert_eq!(claim(&store, "carol", at(2)).await, Got::Repeat(1));
    arrives(&store, vec![exchange("carol@example.net/other", 1)]).await;
    assert_eq!(claim(&store, "carol", at(3)).await, Got::NoPrekey);
    assert_eq!(claim(&store, "bob", at(3)).await, Got::NoPrekey);
}

/// A device that comes back under another resource gets its same prekey, and one that uses it up there does so here.
pub async fn a_device_is_one_claimant_from_wherever_it_asks(database: Database) {
    let store = database.open().await;
    publish(&store, &plain_bundle(1, 1..=30)).await;
    for number in [1, 2] {
        store.learn_session(&owner("bob"), OMEMO2, &bobs("phone"), device(number), at(0)).await.unwrap();
    }
    for resource in ["a", "b"] {
        store.learn_session(&owner("bob"), OMEMO2, &bobs(resource), device(7), at(0)).await.unwrap();
    }
    let sessions = ["a", "phone", "unheard-of", "b"].map(|resource| (bobs(resource), OMEMO2));
    let certain = store.certain_devices(&sessions).await.unwrap();
    assert_eq!(certain, [Some(device(7)), None, None, Some(device(7))]);
    assert_eq!(store.certain_devices(&[]).await.unwrap(), []);
    let claim = Claim { claimant: Claimant::Device(owner("bob"), device(7)), foreign: false, ..claim_by("x") };
    assert_eq!(got(&store.claim(&claim, &RULES, at(0)).await.unwrap()), Got::Fresh(1));
    assert_eq!(got(&store.claim(&claim, &RULES, at(1)).await.unwrap()), Got::Repeat(1));
    arrives(&store, vec![exchange("bob@example.org/anywhere", 1)]).await;
    assert_eq!(got(&store.claim(&claim, &RULES, at(2)).await.unwrap()), Got::Fresh(2));
}

fn bobs(resource: &str) -> multiend::model::SessionJid {
    multiend::model::SessionJid::parse(&format!("bob@example.org/{resource}")).unwrap()
}

/// A session goes on with its key exchange until it is answered, and servers bring messages twice.
pub async fn a_key_exchange_that_comes_again_uses_up_nothing_more(database: Database) {
    let store = database.open().await;
    publish(&store, &bundle(1, &[(1, 1001)])).await;
    let from = |resource: &str| Claim {
        claimant: Claimant::Address(Requester::parse(&format!("bob@example.org/{resource}")).unwrap()),
        foreign: false,
        ..claim_by("x")
    };
    assert_eq!(got(&store.claim(&from("phone"), &RULES, at(0)).await.unwrap()), Got::Fresh(1001));
    arrives(&store, vec![exchange("bob@example.org/phone", 1)]).await;
    // Another key has the id now, and another session of the account has that.
    publish(&store, &bundle(1, &[(1, 1002), (2, 1003)])).await;
    assert_eq!(got(&store.claim(&from("laptop"), &RULES, at(1)).await.unwrap()), Got::Fresh(1002));
    arrives(&store, vec![exchange("bob@example.org/phone", 1)]).await;
    assert_eq!(got(&store.claim(&from("laptop"), &RULES, at(2)).await.unwrap()), Got::Repeat(1002));
    assert_eq!(consumed(&store).await, [1]);
    arrives(&store, vec![exchange("bob@example.org/laptop", 1)]).await;
    assert_eq!(got(&store.claim(&from("laptop"), &RULES, at(3)).await.unwrap()), Got::Fresh(1003));
}
