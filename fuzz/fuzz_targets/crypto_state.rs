//! Saved states that were damaged: whatever is accepted is saved again, and can be used without harm.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use multiend_crypto::{
    address::{Address, DeviceId},
    device::Device,
    generation::{Legacy, Omemo2},
    protocol::Protocol,
};

/// The saved state of a device with a session.
fn saved<P: Protocol>() -> Vec<u8> {
    let id = DeviceId::new(1).unwrap();
    let mut alice = Device::<P>::generate("a@x.org", id, 0).unwrap();
    let bob = Device::<P>::generate("b@x.org", id, 0).unwrap();
    alice.start_session(&Address::of_device("b@x.org", id).unwrap(), &bob.bundle()).unwrap();
    alice.to_state().unwrap().to_vec()
}

static OMEMO2: LazyLock<Vec<u8>> = LazyLock::new(saved::<Omemo2>);
static LEGACY: LazyLock<Vec<u8>> = LazyLock::new(saved::<Legacy>);

fuzz_target!(|input: &[u8]| {
    try_out::<Omemo2>(input, &OMEMO2);
    try_out::<Legacy>(input, &LEGACY);
});

fn try_out<P: Protocol>(input: &[u8], genuine: &[u8]) {
    let mut edited = genuine.to_vec();
    for edit in input.chunks_exact(3) {
        let position = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % edited.len();
        edited[position] = edit[2];
    }
    for state in [input, edited.as_slice()] {
        let Ok(mut device) = Device::<P>::from_state(state) else { continue };
        let again = Device::<P>::from_state(&device.to_state().unwrap()).unwrap();
        assert_eq!(again.to_state().unwrap(), device.to_state().unwrap());
        let _ = device.bundle();
        for peer in device.sessions() {
            let _ = device.encrypt_empty(&peer);
        }
    }
}
