//! Conversations between devices of OMEMO 2, through the public interface only.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use multiend_crypto::omemo2::{
    Address, Bundle, BundleError, DecryptError, Device, DeviceId, EncryptError, EncryptedMessage, SessionError,
};

const NOW: u64 = 1_800_000_000;

fn device(jid: &str, id: u32) -> Device {
    Device::generate(jid, DeviceId::new(id).unwrap(), NOW).unwrap()
}

fn address(device: &Device) -> Address {
    Address::of_device(device.owner(), device.id()).unwrap()
}

fn start(from: &mut Device, to: &Device) {
    from.start_session(&address(to), &one_prekey(to, 0)).unwrap();
}

/// The bundle as a server that hands out single prekeys gives it.
fn one_prekey(device: &Device, index: usize) -> Bundle {
    let bundle = Bundle::from_xml(&device.bundle().to_xml()).unwrap();
    Bundle { prekeys: vec![bundle.prekeys[index]], ..bundle }
}

fn send(from: &mut Device, to: &Device, text: &str) -> EncryptedMessage {
    let message = from.encrypt(text.as_bytes(), &[address(to)]).unwrap();
    EncryptedMessage::from_xml(&message.to_xml()).unwrap()
}

fn read(to: &mut Device, from: &Device, message: &EncryptedMessage) -> Result<String, DecryptError> {
    to.decrypt(from.owner(), message).map(|decrypted| String::from_utf8(decrypted.plaintext.unwrap().to_vec()).unwrap())
}

fn reply(from: &mut Device, to: &mut Device) {
    let empty = from.encrypt_empty(&address(to)).unwrap();
    assert!(to.decrypt(from.owner(), &empty).unwrap().plaintext.is_none());
}

fn state(device: &Device) -> String {
    String::from_utf8(device.to_state().unwrap().to_vec()).unwrap()
}

fn is_exchange(message: &EncryptedMessage) -> bool {
    message.keys[0].headers[0].kex
}

fn pair() -> (Device, Device) {
    let (mut romeo, juliet) = (device("romeo@montague.lit", 1), device("juliet@capulet.lit", 2));
    start(&mut romeo, &juliet);
    (romeo, juliet)
}

#[test]
fn the_key_exchange_goes_along_until_it_is_answered() {
    let (mut romeo, mut juliet) = pair();
    let first = send(&mut romeo, &juliet, "one");
    let second = send(&mut romeo, &juliet, "two");
    assert!(is_exchange(&first) && is_exchange(&second));

    // The second comes first: it builds the session, the first one only uses it.
    let decrypted = juliet.decrypt(romeo.owner(), &second).unwrap();
    assert!(decrypted.new_session && decrypted.reply_due && decrypted.used_prekey.is_some());
    assert_eq!(decrypted.identity, romeo.identity());
    let decrypted = juliet.decrypt(romeo.owner(), &first).unwrap();
    assert!(!decrypted.new_session && decrypted.used_prekey.is_none());

    assert_eq!(juliet.replies_due(), [address(&romeo)]);
    reply(&mut juliet, &mut romeo);
    assert_eq!(juliet.replies_due(), []);
    assert!(!is_exchange(&send(&mut romeo, &juliet, "three")));
}

#[test]
fn repetitions_are_named_and_change_nothing() {
    let (mut romeo, mut juliet) = pair();
    let first = send(&mut romeo, &juliet, "one");
    assert_eq!(read(&mut juliet, &romeo, &first).unwrap(), "one");
    reply(&mut juliet, &mut romeo);
    let second = send(&mut romeo, &juliet, "two");
    assert_eq!(read(&mut juliet, &romeo, &second).unwrap(), "two");
    reply(&mut juliet, &mut romeo);
    let third = send(&mut romeo, &juliet, "three");
    assert_eq!(read(&mut juliet, &romeo, &third).unwrap(), "three");

    let before = state(&juliet);
    for message in [&first, &second, &third] {
        assert_eq!(read(&mut juliet, &romeo, message), Err(DecryptError::Duplicate));
    }
    assert_eq!(state(&juliet), before);
}

#[test]
fn failures_change_nothing_and_keep_the_prekey() {
    let (mut romeo, mut juliet) = pair();
    let good = send(&mut romeo, &juliet, "one");
    let before = state(&juliet);
    let prekeys = juliet.prekey_count();

    let mut bad_payload = good.clone();
    bad_payload.payload.as_mut().unwrap()[0] ^= 1;
    assert_eq!(read(&mut juliet, &romeo, &bad_payload), Err(DecryptError::PayloadForged));
    let mut no_header = good.clone();
    no_header.keys.clear();
    assert_eq!(read(&mut juliet, &romeo, &no_header), Err(DecryptError::NotForThisDevice));
    let length = good.keys[0].headers[0].data.len();
    let mut seen_forged = 0;
    for position in 0..length {
        let mut bad = good.clone();
        bad.keys[0].headers[0].data[position] ^= 0x01;
        match read(&mut juliet, &romeo, &bad) {
            Err(DecryptError::Forged) => seen_forged += 1,
            Err(_) => {}
            Ok(text) => panic!("byte {position} altered, and yet: {text}"),
        }
        assert_eq!(state(&juliet), before, "byte {position}");
    }
    assert!(seen_forged > 64, "{seen_forged}");
    let mut truncated = good.clone();
    truncated.keys[0].headers[0].data.truncate(length - 1);
    assert!(matches!(read(&mut juliet, &romeo, &truncated), Err(DecryptError::Malformed(_))));

    assert_eq!((state(&juliet), juliet.prekey_count()), (before, prekeys));
    assert_eq!(read(&mut juliet, &romeo, &good).unwrap(), "one");
    assert_eq!(juliet.prekey_count(), prekeys - 1);
}

#[test]
fn a_message_to_several_devices_has_one_payload() {
    let (mut romeo, mut juliet) = pair();
    let mut tablet = device("romeo@montague.lit", 3);
    start(&mut romeo, &tablet);
    let recipients = [address(&juliet), address(&tablet), address(&romeo), address(&juliet)];
    let message = romeo.encrypt(b"both", &recipients).unwrap();
    assert_eq!(message.keys.iter().map(|keys| keys.headers.len()).sum::<usize>(), 2);
    assert_eq!(read(&mut juliet, &romeo, &message).unwrap(), "both");
    assert_eq!(read(&mut tablet, &romeo, &message).unwrap(), "both");

    let stranger = Address::new("nurse@capulet.lit", 9).unwrap();
    assert_eq!(
        romeo.encrypt(b"x", &[address(&juliet), stranger.clone()]),
        Err(EncryptError::NoSession(stranger.clone()))
    );
    assert_eq!(romeo.encrypt(b"x", &[address(&romeo)]), Err(EncryptError::NoRecipients));
    assert_eq!(romeo.encrypt_empty(&stranger), Err(EncryptError::NoSession(stranger)));
}

#[test]
fn without_a_session_there_is_nothing_to_decrypt_with() {
    let (mut romeo, mut juliet) = pair();
    let first = send(&mut romeo, &juliet, "one");
    read(&mut juliet, &romeo, &first).unwrap();
    reply(&mut juliet, &mut romeo);
    let second = send(&mut romeo, &juliet, "two");
    juliet.forget(&address(&romeo));
    assert_eq!(read(&mut juliet, &romeo, &second), Err(DecryptError::NoSession(address(&romeo))));
    // The prekey is gone, so the old key exchange does not bring the session back.
    assert!(matches!(read(&mut juliet, &romeo, &first), Err(DecryptError::UnknownPrekey(_))));
}

#[test]
fn nobody_can_claim_to_be_this_device() {
    let (mut romeo, mut juliet) = pair();
    let mut message = send(&mut romeo, &juliet, "x");
    message.sid = juliet.id();
    let own = juliet.owner().to_owned();
    assert_eq!(juliet.decrypt(&own, &message), Err(DecryptError::OwnDevice));
    assert!(Device::generate("romeo@montague.lit/orchard", DeviceId::new(1).unwrap(), NOW).is_err());
}

#[test]
fn heartbeats_are_due_at_53() {
    let (mut romeo, mut juliet) = pair();
    let first = send(&mut romeo, &juliet, "0");
    read(&mut juliet, &romeo, &first).unwrap();
    reply(&mut juliet, &mut romeo);
    for number in 0..60 {
        let message = send(&mut romeo, &juliet, "x");
        let decrypted = juliet.decrypt(romeo.owner(), &message).unwrap();
        assert_eq!(decrypted.reply_due, number >= 53, "{number}");
    }
    reply(&mut juliet, &mut romeo);
    let message = send(&mut romeo, &juliet, "x");
    assert!(!juliet.decrypt(romeo.owner(), &message).unwrap().reply_due);
}

#[test]
fn a_prekey_given_twice_works_during_a_catch_up() {
    let mut juliet = device("juliet@capulet.lit", 2);
    let mut romeo = device("romeo@montague.lit", 1);
    let mut nurse = device("nurse@capulet.lit", 3);
    let mut tybalt = device("tybalt@capulet.lit", 4);
    for sender in [&mut romeo, &mut nurse, &mut tybalt] {
        start(sender, &juliet);
    }
    juliet.catch_up_started();
    let from_romeo = send(&mut romeo, &juliet, "from romeo");
    assert_eq!(read(&mut juliet, &romeo, &from_romeo).unwrap(), "from romeo");
    let mut juliet = Device::from_state(state(&juliet).as_bytes()).unwrap();
    let from_nurse = send(&mut nurse, &juliet, "from nurse");
    assert_eq!(read(&mut juliet, &nurse, &from_nurse).unwrap(), "from nurse");

    // Not even now, with the key still there, is anything decrypted twice.
    juliet.forget(&address(&romeo));
    assert_eq!(read(&mut juliet, &romeo, &from_romeo), Err(DecryptError::Duplicate));

    assert_eq!(juliet.catch_up_finished(), 1);
    let from_tybalt = send(&mut tybalt, &juliet, "from tybalt");
    assert!(matches!(read(&mut juliet, &tybalt, &from_tybalt), Err(DecryptError::UnknownPrekey(_))));
}

#[test]
fn a_rotated_signed_prekey_serves_for_one_more_period() {
    let week = 7 * 24 * 60 * 60;
    let (mut romeo, mut juliet) = pair();
    assert!(!juliet.rotate_signed_prekey_if_due(NOW + week - 1).unwrap());
    assert!(juliet.rotate_signed_prekey_if_due(NOW + week).unwrap());
    juliet.bundle().verify().unwrap();
    let late = send(&mut romeo, &juliet, "late");
    let mut too_late = Device::from_state(state(&juliet).as_bytes()).unwrap();
    assert_eq!(read(&mut juliet, &romeo, &late).unwrap(), "late");
    assert!(too_late.rotate_signed_prekey_if_due(NOW + 2 * week).unwrap());
    assert!(matches!(read(&mut too_late, &romeo, &late), Err(DecryptError::UnknownSignedPrekey(_))));
}

#[test]
fn sessions_started_by_both_at_once_heal() {
    let (mut romeo, mut juliet) = pair();
    start(&mut juliet, &romeo);
    let from_romeo = send(&mut romeo, &juliet, "from romeo");
    let from_juliet = send(&mut juliet, &romeo, "from juliet");
    assert_eq!(read(&mut juliet, &romeo, &from_romeo).unwrap(), "from romeo");
    assert_eq!(read(&mut romeo, &juliet, &from_juliet).unwrap(), "from juliet");

    // Both answers cross as well.
    let romeos = romeo.encrypt_empty(&address(&juliet)).unwrap();
    let juliets = juliet.encrypt_empty(&address(&romeo)).unwrap();
    juliet.decrypt(romeo.owner(), &romeos).unwrap();
    romeo.decrypt(juliet.owner(), &juliets).unwrap();
    for turn in 0..4 {
        let message = send(&mut romeo, &juliet, "x");
        assert!(!is_exchange(&message), "turn {turn}");
        read(&mut juliet, &romeo, &message).unwrap();
        let message = send(&mut juliet, &romeo, "y");
        assert!(!is_exchange(&message), "turn {turn}");
        read(&mut romeo, &juliet, &message).unwrap();
    }
}

#[test]
fn a_repaired_session_replaces_the_broken_one() {
    let (mut romeo, mut juliet) = pair();
    let first = send(&mut romeo, &juliet, "one");
    read(&mut juliet, &romeo, &first).unwrap();
    reply(&mut juliet, &mut romeo);
    let late = send(&mut romeo, &juliet, "late");
    start(&mut romeo, &juliet);
    let repaired = romeo.encrypt_empty(&address(&juliet)).unwrap();
    assert!(juliet.decrypt(romeo.owner(), &repaired).unwrap().new_session);
    assert_eq!(read(&mut juliet, &romeo, &late).unwrap(), "late");
    reply(&mut juliet, &mut romeo);
}

#[test]
fn a_late_message_does_not_undo_a_repair() {
    let (mut romeo, mut juliet) = pair();
    let first = send(&mut romeo, &juliet, "one");
    read(&mut juliet, &romeo, &first).unwrap();
    reply(&mut juliet, &mut romeo);
    let late = send(&mut juliet, &romeo, "late");
    let later = send(&mut juliet, &romeo, "later");

    start(&mut romeo, &juliet);
    assert_eq!(read(&mut romeo, &juliet, &late).unwrap(), "late");
    let repaired = send(&mut romeo, &juliet, "repaired");
    assert!(is_exchange(&repaired));
    read(&mut juliet, &romeo, &repaired).unwrap();
    reply(&mut juliet, &mut romeo);
    assert_eq!(read(&mut romeo, &juliet, &later).unwrap(), "later");
    let next = send(&mut romeo, &juliet, "next");
    // As a peer that keeps one session only: the others are forgotten, the new one is there.
    let saved: serde_json::Value = serde_json::from_str(&state(&juliet)).unwrap();
    let mut only = saved.clone();
    only["peers"]["romeo@montague.lit"]["1"]["sessions"].as_array_mut().unwrap().truncate(1);
    let mut juliet = Device::from_state(only.to_string().as_bytes()).unwrap();
    assert_eq!(read(&mut juliet, &romeo, &next).unwrap(), "next");
}

#[test]
fn a_changed_identity_is_refused_until_it_is_forgotten() {
    let (mut romeo, mut juliet) = pair();
    let first = send(&mut romeo, &juliet, "one");
    read(&mut juliet, &romeo, &first).unwrap();
    let mut impostor = device("romeo@montague.lit", 1);
    start(&mut impostor, &juliet);
    let forged = send(&mut impostor, &juliet, "trust me");
    assert!(matches!(read(&mut juliet, &impostor, &forged), Err(DecryptError::IdentityChanged { .. })));
    assert!(matches!(
        juliet.start_session(&address(&impostor), &impostor.bundle()),
        Err(SessionError::IdentityChanged { .. })
    ));
    assert!(juliet.forget(&address(&romeo)));
    assert_eq!(read(&mut juliet, &impostor, &forged).unwrap(), "trust me");
}

#[test]
fn bundles_are_checked_before_use() {
    let (mut romeo, juliet) = pair();
    let mut bundle = juliet.bundle();
    bundle.signed_prekey.signature[0] ^= 1;
    assert!(matches!(
        romeo.start_session(&address(&juliet), &bundle),
        Err(SessionError::Bundle(BundleError::Signature(_)))
    ));
    let empty = Bundle { prekeys: vec![], ..juliet.bundle() };
    assert_eq!(romeo.start_session(&address(&juliet), &empty), Err(SessionError::Bundle(BundleError::NoPrekey)));
    let own = romeo.bundle();
    assert_eq!(romeo.start_session(&address(&romeo), &own), Err(SessionError::OwnDevice));
}

#[test]
fn the_bundle_says_when_it_changed() {
    let (mut romeo, mut juliet) = pair();
    assert!(juliet.bundle_changed());
    juliet.bundle_published();
    let message = send(&mut romeo, &juliet, "one");
    read(&mut juliet, &romeo, &message).unwrap();
    assert!(juliet.bundle_changed());
    assert_eq!((juliet.prekey_count(), juliet.replenish().unwrap(), juliet.prekey_count()), (99, 1, 100));
    juliet.bundle_published();
    assert!(!juliet.bundle_changed());
    let before = juliet.bundle();
    juliet.replace_prekeys().unwrap();
    assert!(juliet.bundle_changed());
    assert!(juliet.bundle().prekeys.iter().all(|prekey| !before.prekeys.contains(prekey)));
}

#[test]
fn nothing_secret_is_printed() {
    let (mut romeo, mut juliet) = pair();
    let message = send(&mut romeo, &juliet, "top secret");
    let decrypted = juliet.decrypt(romeo.owner(), &message).unwrap();
    assert!(!format!("{decrypted:?}").contains("116"), "no bytes of the plaintext");
    let printed = format!("{juliet:?}");
    let saved: serde_json::Value = serde_json::from_slice(&juliet.to_state().unwrap()).unwrap();
    let mut secrets = vec![saved["identity"].clone(), saved["signed_prekeys"]["key"].clone()];
    secrets.extend(saved["prekeys"]["unused"].as_object().unwrap().values().cloned());
    let session = &saved["peers"]["romeo@montague.lit"]["1"]["sessions"][0]["ratchet"];
    secrets.extend([session["root"].clone(), session["own"].clone(), session["sending"]["key"].clone()]);
    for secret in secrets {
        assert!(!printed.contains(secret.as_str().unwrap()), "{secret}");
    }
}

#[test]
fn states_of_other_versions_are_refused() {
    use multiend_crypto::omemo2::StateError;
    let (romeo, _) = pair();
    let newer = state(&romeo).replace("\"version\":1", "\"version\":2");
    assert_eq!(Device::from_state(newer.as_bytes()).unwrap_err(), StateError::Version(2));
    assert!(matches!(Device::from_state(b"{}"), Err(StateError::Malformed(_))));
    assert_eq!(state(&Device::from_state(state(&romeo).as_bytes()).unwrap()), state(&romeo));
}
