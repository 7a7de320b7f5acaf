//! Whatever is in the header or the payload of a message, a device that refuses it is as it was before.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use multiend_crypto::omemo2::{Address, Device, DeviceId, EncryptedMessage};

/// The state of a receiver, and a genuine message to it.
static GENUINE: LazyLock<(Vec<u8>, EncryptedMessage)> = LazyLock::new(|| {
    let id = DeviceId::new(1).unwrap();
    let mut alice = Device::generate("a@x.org", id, 0).unwrap();
    let bob = Device::generate("b@x.org", id, 0).unwrap();
    let to_bob = Address::new("b@x.org", 1).unwrap();
    alice.start_session(&to_bob, &bob.bundle()).unwrap();
    (bob.to_state().unwrap().to_vec(), alice.encrypt(b"genuine", &[to_bob]).unwrap())
});

fuzz_target!(|input: &[u8]| {
    let (state, genuine) = &*GENUINE;
    let Some((&choice, rest)) = input.split_first() else { return };
    let mut message = genuine.clone();
    let header = &mut message.keys[0].headers[0];
    header.kex = choice & 1 != 0;
    if choice & 2 != 0 {
        header.data = rest.to_vec();
    } else {
        for edit in rest.chunks_exact(2) {
            let position = usize::from(edit[0]) % header.data.len();
            header.data[position] ^= edit[1];
        }
    }
    let mut bob = Device::from_state(state).unwrap();
    if bob.decrypt("a@x.org", &message).is_err() {
        assert_eq!(bob.to_state().unwrap().as_slice(), state.as_slice());
    } else {
        assert_eq!(&message, genuine);
    }
});
