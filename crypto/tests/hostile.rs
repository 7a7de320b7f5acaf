//! What strangers send: nothing of it may panic, change a device, or be taken for something else.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use multiend_crypto::{
    omemo2::{Address, Bundle, Device, DeviceId, DeviceList, EncryptedMessage, MessageHeader, RecipientHeaders},
    sce::Envelope,
    signature::{verify_legacy_signature, verify_omemo2_signature},
};
use proptest::prelude::*;

fn device(jid: &str) -> Device {
    Device::generate(jid, DeviceId::new(1).unwrap(), 0).unwrap()
}

/// A message to a device with whatever in its header.
fn message(kex: bool, data: Vec<u8>, payload: Option<Vec<u8>>) -> EncryptedMessage {
    let id = DeviceId::new(1).unwrap();
    let headers = vec![MessageHeader { rid: id, kex, data }];
    EncryptedMessage { sid: id, keys: vec![RecipientHeaders { jid: "b@x.org".to_owned(), headers }], payload }
}

/// XML-like text: more likely to get past the first checks than any text.
fn markup() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "<encrypted xmlns='urn:xmpp:omemo:2'>",
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
        let _ = (EncryptedMessage::from_xml(&text), Bundle::from_xml(&text), DeviceList::from_xml(&text));
        if let Ok(envelope) = Envelope::from_xml(text.as_bytes()) {
            let _ = (envelope.body(), envelope.content_element(), envelope.check("a", "b", true));
        }
    }

    #[test]
    fn readers_of_bytes_refuse_in_peace(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Envelope::from_xml(&bytes).is_err());
        prop_assert!(Device::from_state(&bytes).is_err());
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
        let (mut alice, mut bob) = (device("a@x.org"), device("b@x.org"));
        let to_bob = Address::new("b@x.org", 1).unwrap();
        alice.start_session(&to_bob, &bob.bundle()).unwrap();
        let genuine = alice.encrypt(b"x", &[to_bob]).unwrap();
        let before = bob.to_state().unwrap();

        prop_assert!(bob.decrypt("a@x.org", &message(kex, junk, genuine.payload.clone())).is_err());
        let mut edited = genuine.keys[0].headers[0].data.clone();
        for (index, edit) in edits {
            *index.get_mut(&mut edited) ^= edit;
        }
        prop_assume!(edited != genuine.keys[0].headers[0].data);
        prop_assert!(bob.decrypt("a@x.org", &message(true, edited.clone(), genuine.payload.clone())).is_err());
        prop_assert!(bob.decrypt("a@x.org", &message(false, edited, genuine.payload.clone())).is_err());
        prop_assert_eq!(bob.to_state().unwrap(), before);
        prop_assert!(bob.decrypt("a@x.org", &genuine).is_ok());
    }
}
