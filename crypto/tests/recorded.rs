//! A recorded conversation with Twomemo 2.1.0, the OMEMO 2 implementation of slixmpp (`tests/interop`, `--record`).
//!
//! It pins two things: that this crate reads what others write, and that it reads the states that it saved once.
#![allow(missing_docs, clippy::unwrap_used)]

use multiend_crypto::omemo2::{Bundle, DecryptError, Device, EncryptedMessage};
use serde::Deserialize;

#[derive(Deserialize)]
struct Recording {
    from: String,
    bundle: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    state: String,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    xml: String,
    text: Option<String>,
}

fn recording() -> Recording {
    serde_json::from_str(include_str!("data/twomemo.json")).unwrap()
}

#[test]
fn its_messages_decrypt_once() {
    let recording = recording();
    for step in recording.steps {
        let mut device = Device::from_state(step.state.as_bytes()).unwrap();
        for message in &step.messages {
            let encrypted = EncryptedMessage::from_xml(&message.xml).unwrap();
            let decrypted = device.decrypt(&recording.from, &encrypted).unwrap();
            assert_eq!(decrypted.plaintext.as_deref().map(Vec::as_slice), message.text.as_deref().map(str::as_bytes));
            assert_eq!(device.decrypt(&recording.from, &encrypted), Err(DecryptError::Duplicate));
        }
    }
}

#[test]
fn its_bundle_is_accepted() {
    let bundle = Bundle::from_xml(&recording().bundle).unwrap();
    assert_eq!(bundle.verify(), Ok(()));
    assert!(bundle.prekeys.len() >= 99);
}
