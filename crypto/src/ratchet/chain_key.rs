//! A chain of message keys, each known only to who knows the chain before it.

use serde::{Deserialize, Serialize};

use crate::{kdf::hmac_sha256, secret::Secret32};

/// What HMAC is given to make a message key (XEP-0384, "Double Ratchet", KDF_CK).
const MESSAGE_KEY_SEED: &[u8] = &[0x01];

/// What HMAC is given to make the next chain key (ibidem).
const CHAIN_KEY_SEED: &[u8] = &[0x02];

/// A chain key and the number of the message key that it will yield next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ChainKey {
    key: Secret32,
    counter: u32,
}

impl ChainKey {
    pub(super) const fn new(key: Secret32) -> Self {
        Self { key, counter: 0 }
    }

    /// The number of the message key that [`ChainKey::next`] will give, counted from 0.
    pub(super) const fn counter(&self) -> u32 {
        self.counter
    }

    /// Gives the next message key with its number and forgets how to make it again. `None` at the end of the numbers.
    pub(super) fn next(&mut self) -> Option<(u32, Secret32)> {
        let number = self.counter;
        self.counter = number.checked_add(1)?;
        let message_key = Secret32::new(*hmac_sha256(self.key.expose(), &[MESSAGE_KEY_SEED]));
        self.key = Secret32::new(*hmac_sha256(self.key.expose(), &[CHAIN_KEY_SEED]));
        Some((number, message_key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chain key vector of libsignal-protocol-c (`test_chain_key_derivation_v3`), whose KDF_CK is the same.
    #[test]
    fn known_answer() {
        let seed = "8ab72d6f4cc5ac0d387eaf463378ddb28edd07385b1cb01250c715982e7ad48f";
        let mut chain = ChainKey::new(Secret32::new(hex::decode(seed).unwrap().try_into().unwrap()));
        let (number, _) = chain.next().unwrap();
        assert_eq!(number, 0);
        assert_eq!(hex::encode(chain.key.expose()), "28e8f8fee54b801eef7c5cfb2f17f32c7b334485bbb70fac6ec10342a246d15d");
        assert_eq!(chain.counter(), 1);
    }

    #[test]
    fn ends_instead_of_wrapping() {
        let mut chain = ChainKey { key: Secret32::new([1; 32]), counter: u32::MAX };
        assert!(chain.next().is_none());
    }
}
