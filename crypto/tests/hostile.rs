//! What strangers send: nothing of it may panic, change a device, or be taken for something else.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use multiend_crypto::{
    address::{Address, DeviceId},
    device::Device,
    generation::{Legacy, Omemo2},
    legacy,
    message::MessageHeader,
    omemo2,
    protocol::Protocol,
    sce::Envelope,
    signature::{verify_legacy_signature, verify_omemo2_signature},
};
use proptest::prelude::*;
use support::Spoken;

fn device<P: Protocol>(jid: &str, id: u32) -> Device<P> {
    Device::generate(jid, DeviceId::new(id).unwrap(), 0).unwrap()
}

/// A message to a device with whatever in its header.
fn message<P: Spoken>(kex: bool, data: Vec<u8>, payload: Option<Vec<u8>>) -> P::Message {
    let [sid, rid] = [1, 2].map(|id| DeviceId::new(id).unwrap());
    P::message(sid, "b@x.org", MessageHeader { rid, kex, data }, payload)
}

/// XML-like text: more likely to get past the first checks than any text.
fn markup() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "<encrypted xmlns='urn:xmpp:omemo:2'>",
        "<encrypted xmlns='eu.siacs.conversations.axolotl'>",
        "</encrypted>",
        "<header sid='1'>",
        "</header>",
        "<keys jid='a@b'>",
        "</keys>",
        "<key rid='1' kex='true'>",
        "</key>",
        "<payload>",
        "</payload>",
        "AQID",
        "<bundle xmlns='urn:xmpp:omemo:2'>",
        "<bundle xmlns='eu.siacs.conversations.axolotl'>",
        "<signedPreKeyPublic signedPreKeyId='1'>",
        "</signedPreKeyPublic>",
        "<identityKey>",
        "</identityKey>",
        "<list xmlns='eu.siacs.conversations.axolotl'>",
        "</list>",
        "<key rid='1' prekey='1'>",
        "<iv>",
        "</iv>",
        "</bundle>",
        "<spk id='1'>",
        "</spk>",
        "<devices xmlns='urn:xmpp:omemo:2'>",
        "<device id='1'/>",
        "</devices>",
        "<envelope xmlns='urn:xmpp:sce:1'>",
        "</envelope>",
        "<content>",
        "</content>",
        "<rpad/>",
        "<from jid='a'/>",
        "&amp;",
        "&#x41;",
        "&#0;",
        "&bad;",
        "<![CDATA[",
        "]]>",
        "<",
        ">",
        "'",
        "\"",
        " ",
        "\u{0}",
        "é",
        "<!--",
        "-->",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn readers_of_xml_refuse_in_peace(text in prop_oneof![markup(), any::<String>()]) {
        let _ = omemo2::EncryptedMessage::from_xml(&text);
        let _ = (omemo2::Bundle::from_xml(&text), omemo2::DeviceList::from_xml(&text));
        let _ = legacy::EncryptedMessage::from_xml(&text);
        let _ = (legacy::Bundle::from_xml(&text), legacy::DeviceList::from_xml(&text));
        if let Ok(envelope) = Envelope::from_xml(text.as_bytes()) {
            let _ = (envelope.body(), envelope.content_element(), envelope.check("a", "b", true));
        }
    }

    #[test]
    fn readers_of_bytes_refuse_in_peace(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Envelope::from_xml(&bytes).is_err());
        prop_assert!(omemo2::Device::from_state(&bytes).is_err());
        prop_assert!(legacy::Device::from_state(&bytes).is_err());
        for length in [32, 33] {
            if let (Some(key), Some(other)) = (bytes.get(..length), bytes.get(length..2 * length)) {
                prop_assert!(verify_omemo2_signature(key, other, &[1; 64]).is_err());
                prop_assert!(verify_legacy_signature(key, other, &[1; 64]).is_err());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn headers_of_strangers_change_nothing(
        kex in any::<bool>(),
        junk in prop::collection::vec(any::<u8>(), 0..300),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4),
    ) {
        refuses::<Omemo2>(kex, junk.clone(), &edits)?;
        refuses::<Legacy>(kex, junk, &edits)?;
    }
}

fn refuses<P: Spoken>(kex: bool, junk: Vec<u8>, edits: &[(prop::sample::Index, u8)]) -> Result<(), TestCaseError> {
    let (mut alice, mut bob) = (device::<P>("a@x.org", 1), device::<P>("b@x.org", 2));
    let to_bob = Address::new("b@x.org", 2).unwrap();
    alice.start_session(&to_bob, &bob.bundle()).unwrap();
    let mut genuine = alice.encrypt(b"x", &[to_bob]).unwrap();
    let payload = P::payload(&mut genuine).clone();
    let before = bob.to_state().unwrap();

    prop_assert!(bob.decrypt("a@x.org", &message::<P>(kex, junk.clone(), payload.clone())).is_err());
    // Past the first byte, where legacy has its version.
    let versioned = [&[0x33], junk.as_slice()].concat();
    prop_assert!(bob.decrypt("a@x.org", &message::<P>(kex, versioned, payload.clone())).is_err());
    for kex in [true, false] {
        let mut edited = genuine.clone();
        let header = P::headers(&mut edited).swap_remove(0);
        header.kex = kex;
        for (index, edit) in edits {
            *index.get_mut(&mut header.data) ^= edit;
        }
        prop_assume!(header.data != P::headers(&mut genuine)[0].data);
        let mut reader = Device::<P>::from_state(&before).unwrap();
        match reader.decrypt("a@x.org", &edited) {
            Err(_) => prop_assert_eq!(reader.to_state().unwrap(), before.clone()),
            // Around the `SignalMessage` of a key exchange, legacy has bytes that mean nothing and are not authenticated.
            Ok(decrypted) => {
                prop_assert_eq!(P::NAME, "legacy");
                prop_assert_eq!(decrypted.plaintext.unwrap().to_vec(), b"x".to_vec());
            }
        }
    }
    prop_assert_eq!(bob.to_state().unwrap(), before);
    prop_assert!(bob.decrypt("a@x.org", &genuine).is_ok());
    Ok(())
}
