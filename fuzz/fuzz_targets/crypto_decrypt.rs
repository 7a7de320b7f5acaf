//! Whatever is in the header of a message, a device that refuses it is as it was before, and one that does not refuse it
//! reads what was sent.
//!
//! The devices and the genuine headers are those of the recorded conversations, so that an input does the same each time.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use multiend_crypto::{
    address::Address,
    device::Device,
    generation::{Legacy, Omemo2},
    message::MessageHeader,
    protocol::{EncryptedElement, Protocol},
};
use serde_json::Value;

/// A device in some state of a session, and a header that it can read.
struct Scene {
    state: Vec<u8>,
    sender: Address,
    genuine: MessageHeader,
    /// What the header carries.
    material: Vec<u8>,
}

impl Scene {
    fn all<P: Protocol>(recording: &str) -> Vec<Self> {
        let recording: Value = serde_json::from_str(recording).unwrap();
        let from = recording["from"].as_str().unwrap();
        let scene = |step: &Value| {
            let state = step["state"].as_str().unwrap().as_bytes();
            let mut device = Device::<P>::from_state(state).unwrap();
            let message = P::Message::read(step["messages"][0]["xml"].as_str().unwrap()).unwrap();
            let sender = Address::of_device(from, message.sender()).unwrap();
            let genuine = message.headers_for(device.owner(), device.id())[0].clone();
            let decrypted = device.decrypt_key_material(&sender, &genuine).unwrap();
            let material = decrypted.plaintext.unwrap().to_vec();
            // Without most of the prekeys, which would be read and written each time.
            let used = decrypted.used_prekey.map(|id| id.get().to_string());
            let mut state: Value = serde_json::from_slice(state).unwrap();
            let prekeys = state["prekeys"]["unused"].as_object_mut().unwrap();
            let kept = prekeys.keys().next().cloned();
            prekeys.retain(|id, _| used.as_ref() == Some(id) || kept.as_ref() == Some(id));
            // As it is saved now, which is what it is compared with.
            let state = Device::<P>::from_state(state.to_string().as_bytes()).unwrap().to_state().unwrap().to_vec();
            Self { state, sender, genuine, material }
        };
        recording["steps"].as_array().unwrap().iter().map(scene).collect()
    }

    /// `choice` says whether the header is the genuine one with changes or wholly made up, and what it claims to be.
    fn try_out<P: Protocol>(&self, choice: u8, rest: &[u8]) {
        let mut header = self.genuine.clone();
        header.kex ^= choice & 0x40 != 0;
        if choice & 0x80 != 0 {
            header.data = rest.to_vec();
        } else {
            for edit in rest.chunks_exact(2) {
                let position = usize::from(edit[0]) % header.data.len();
                header.data[position] ^= edit[1];
            }
        }
        let mut device = Device::<P>::from_state(&self.state).unwrap();
        match device.decrypt_key_material(&self.sender, &header) {
            Err(_) => assert_eq!(device.to_state().unwrap().as_slice(), self.state),
            // Not everything around a message is authenticated, as protobuf has many forms of the same.
            Ok(decrypted) => assert_eq!(decrypted.plaintext.unwrap().as_slice(), self.material),
        }
    }
}

static OMEMO2: LazyLock<Vec<Scene>> =
    LazyLock::new(|| Scene::all::<Omemo2>(include_str!("../../crypto/tests/data/twomemo.json")));
static LEGACY: LazyLock<Vec<Scene>> =
    LazyLock::new(|| Scene::all::<Legacy>(include_str!("../../crypto/tests/data/oldmemo.json")));

fuzz_target!(|input: &[u8]| {
    let Some((&choice, rest)) = input.split_first() else { return };
    let number = usize::from(choice & 0x1F);
    if choice & 0x20 == 0 {
        OMEMO2[number % OMEMO2.len()].try_out::<Omemo2>(choice, rest);
    } else {
        LEGACY[number % LEGACY.len()].try_out::<Legacy>(choice, rest);
    }
});
