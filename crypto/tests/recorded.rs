//! Recorded conversations with Twomemo 2.1.0 and Oldmemo 2.1.0, the OMEMO implementations of slixmpp (`tests/interop`,
//! `--record`).
//!
//! They pin two things: that this crate reads what others write, and that it reads the states that it saved once.
#![allow(missing_docs, clippy::unwrap_used)]

use multiend_crypto::{
    bundle::Bundle,
    device::Device,
    error::DecryptError,
    generation::{Legacy, Omemo2},
    protocol::{EncryptedElement, Protocol},
};
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

fn its_messages_decrypt_once<P: Protocol>(recording: &Recording) {
    for step in &recording.steps {
        let mut device = Device::<P>::from_state(step.state.as_bytes()).unwrap();
        for message in &step.messages {
            let encrypted = P::Message::read(&message.xml).unwrap();
            let decrypted = device.decrypt(&recording.from, &encrypted).unwrap();
            assert_eq!(decrypted.plaintext.as_deref().map(Vec::as_slice), message.text.as_deref().map(str::as_bytes));
            assert_eq!(device.decrypt(&recording.from, &encrypted), Err(DecryptError::Duplicate));
        }
    }
}

fn its_bundle_is_accepted<P: Protocol>(recording: &Recording) {
    let bundle = Bundle::<P>::from_xml(&recording.bundle).unwrap();
    assert_eq!(bundle.verify(), Ok(()));
    assert!(bundle.prekeys.len() >= 99);
}

#[test]
fn twomemo() {
    let recording = serde_json::from_str(include_str!("data/twomemo.json")).unwrap();
    its_messages_decrypt_once::<Omemo2>(&recording);
    its_bundle_is_accepted::<Omemo2>(&recording);
}

#[test]
fn oldmemo() {
    let recording = serde_json::from_str(include_str!("data/oldmemo.json")).unwrap();
    its_messages_decrypt_once::<Legacy>(&recording);
    its_bundle_is_accepted::<Legacy>(&recording);
}
