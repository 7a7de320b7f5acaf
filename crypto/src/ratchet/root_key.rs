//! The root chain: mixes every fresh Diffie-Hellman secret into the session.

use core::marker::PhantomData;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::chain_key::ChainKey;
use crate::{
    curve25519::{NonContributory, PublicKey, SecretKey},
    generation::Generation,
    kdf::hkdf_sha256,
    secret::Secret32,
};

/// A root key of a session of generation `G`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub(super) struct RootKey<G> {
    key: Secret32,
    #[serde(skip)]
    generation: PhantomData<G>,
}

impl<G: Generation> RootKey<G> {
    pub(super) const fn new(key: Secret32) -> Self {
        Self { key, generation: PhantomData }
    }

    /// The root key and the chain that follow when `own` and `peer` agree (XEP-0384, "Double Ratchet", KDF_RK).
    pub(super) fn step(&self, own: &SecretKey, peer: &PublicKey) -> Result<(Self, ChainKey), NonContributory> {
        let shared = own.diffie_hellman(peer)?;
        let output: Zeroizing<[u8; 64]> = hkdf_sha256(self.key.expose(), shared.expose(), G::ROOT_INFO);
        let mut root = Zeroizing::new([0; 32]);
        let mut chain = Zeroizing::new([0; 32]);
        for (target, source) in root.iter_mut().chain(chain.iter_mut()).zip(output.iter()) {
            *target = *source;
        }
        Ok((Self::new(Secret32::new(*root)), ChainKey::new(Secret32::new(*chain))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::Legacy;

    fn bytes(hex: &str) -> [u8; 32] {
        hex::decode(hex).unwrap().try_into().unwrap()
    }

    /// The order of HKDF's arguments. Whole conversations with another implementation are in `tests/recorded.rs`.
    #[test]
    fn salt_is_the_root_key() {
        let own = SecretKey::from_bytes([1; 32]);
        let peer = SecretKey::from_bytes([2; 32]).public_key();
        let root = RootKey::<Legacy>::new(Secret32::new(bytes(&"ab".repeat(32))));
        let (next, chain) = root.step(&own, &peer).unwrap();
        let expected: Zeroizing<[u8; 64]> =
            hkdf_sha256(&[0xAB; 32], own.diffie_hellman(&peer).unwrap().expose(), b"WhisperRatchet");
        assert_eq!(next.key.expose(), &expected[..32]);
        assert_eq!(chain.counter(), 0);
    }
}
