//! Whatever is in the header or the payload of a message, a device that refuses it is as it was before, and one that does
//! not refuse it reads what was sent.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use multiend_crypto::{
    address::{Address, DeviceId},
    device::Device,
    generation::{Legacy, Omemo2},
    message::MessageHeader,
    protocol::Protocol,
};

/// The key that the genuine header carries.
const MATERIAL: &[u8] = b"the key of a payload, and its tag";

/// Two devices whose sessions stand, and two headers to the second of them: a key exchange and an answer to an answer.
struct Scene<P: Protocol> {
    fresh: Vec<u8>,
    exchange: MessageHeader,
    settled: Vec<u8>,
    answer: MessageHeader,
    sender: Address,
    protocol: core::marker::PhantomData<P>,
}

impl<P: Protocol> Scene<P> {
    fn new() -> Self {
        let id = DeviceId::new(1).unwrap();
        let mut alice = Device::<P>::generate("a@x.org", id, 0).unwrap();
        let mut bob = Device::<P>::generate("b@x.org", id, 0).unwrap();
        let [sender, to_bob] = ["a@x.org", "b@x.org"].map(|jid| Address::of_device(jid, id).unwrap());
        alice.start_session(&to_bob, &bob.bundle()).unwrap();
        let exchange = alice.encrypt_key_material(MATERIAL, &to_bob).unwrap();
        let fresh = bob.to_state().unwrap().to_vec();
        bob.decrypt_key_material(&sender, &exchange).unwrap();
        let reply = bob.encrypt_key_material(MATERIAL, &sender).unwrap();
        alice.decrypt_key_material(&to_bob, &reply).unwrap();
        let answer = alice.encrypt_key_material(MATERIAL, &to_bob).unwrap();
        let settled = bob.to_state().unwrap().to_vec();
        Self { fresh, exchange, settled, answer, sender, protocol: core::marker::PhantomData }
    }

    fn try_out(&self, choice: u8, rest: &[u8]) {
        let (state, genuine) =
            if choice & 1 == 0 { (&self.fresh, &self.exchange) } else { (&self.settled, &self.answer) };
        let mut header = genuine.clone();
        header.kex ^= choice & 2 != 0;
        if choice & 4 != 0 {
            header.data = rest.to_vec();
        } else {
            for edit in rest.chunks_exact(2) {
                let position = usize::from(edit[0]) % header.data.len();
                header.data[position] ^= edit[1];
            }
        }
        let mut bob = Device::<P>::from_state(state).unwrap();
        match bob.decrypt_key_material(&self.sender, &header) {
            Err(_) => assert_eq!(bob.to_state().unwrap().as_slice(), state.as_slice()),
            // Not everything around a message is authenticated, as protobuf has many forms of the same.
            Ok(decrypted) => assert_eq!(decrypted.plaintext.unwrap().as_slice(), MATERIAL),
        }
    }
}

static OMEMO2: LazyLock<Scene<Omemo2>> = LazyLock::new(Scene::new);
static LEGACY: LazyLock<Scene<Legacy>> = LazyLock::new(Scene::new);

fuzz_target!(|input: &[u8]| {
    let Some((&choice, rest)) = input.split_first() else { return };
    OMEMO2.try_out(choice, rest);
    LEGACY.try_out(choice, rest);
});
