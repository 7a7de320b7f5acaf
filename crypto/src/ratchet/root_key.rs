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
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::*;
    use crate::generation::{Legacy, Omemo2};

    fn bytes(hex: &str) -> [u8; 32] {
        hex::decode(hex).unwrap().try_into().unwrap()
    }

    /// The keys are those of libsignal-protocol-c (`test_root_key_derivation_v2`), which publishes the result for its
    /// protocol version 2 only. For version 3 and for OMEMO 2 the result is what Oldmemo 2.1.0 and Twomemo 2.1.0 give.
    #[test]
    fn known_answer() {
        let own = SecretKey::from_bytes(bytes("216822ec67eb38049ebae7b939baeaebb151bbb32db80fd389245ac37a948e50"));
        let peer = PublicKey::from_slice(&bytes("abb8eb29cc80b47109a2265abe9798485406e32da268934a9555e84757708a30"));
        let seed = "7ba6debc2bc1bbf91abbc1367404176ca623095b7ec66b45f602d93538942dcc";
        check::<Legacy>(
            (seed, &own, &peer.unwrap()),
            "2eb9435d09e493e6b0fddf10f985a32777e327791714844264a40355666f9a8c",
            "113927a745a4ec92f314939b47c639b0396ee6634c0d680d42e119a22a73387b",
        );
        check::<Omemo2>(
            (seed, &own, &peer.unwrap()),
            "bd56698cf22995922112a08801cdfe91f30fb87fbdd48b742f56a670157a5b72",
            "21be30a26144d1820c500116852f4b494c1ff4a14a6588d102bfc250070063ca",
        );
    }

    fn check<G: Generation>((seed, own, peer): (&str, &SecretKey, &PublicKey), root: &str, chain: &str) {
        let (next_root, next_chain) = RootKey::<G>::new(Secret32::new(bytes(seed))).step(own, peer).unwrap();
        assert_eq!(hex::encode(next_root.key.expose()), root);
        assert_eq!(serde_json::to_value(&next_chain).unwrap()["key"], STANDARD.encode(bytes(chain)));
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
