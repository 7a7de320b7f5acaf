//! AES-256-CBC with HMAC-SHA-256: how OMEMO encrypts, both a payload and the key to it (XEP-0384, "Message Encryption"
//! and "Double Ratchet", ENCRYPT).
//!
//! CBC without its HMAC is broken, therefore [`CipherKeys::open`] checks the tag before it decrypts anything, and there
//! is no way to decrypt without.

use aes::Aes256;
use cbc::{
    Decryptor, Encryptor,
    cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, block_padding::Pkcs7},
};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::kdf::{HASH_LENGTH, hkdf_sha256, hmac_sha256};

/// Length in bytes of all the key material that one secret expands to: 32 to encrypt, 32 to authenticate, 16 of IV.
const MATERIAL_LENGTH: usize = 80;

/// The shortest tag in bytes of either protocol. That a tag has as many as its protocol wants is for its parser to say;
/// this makes sure that no mistake there lets a shorter one pass.
const MIN_TAG_LENGTH: usize = 8;

/// What was to be decrypted is not what was encrypted, or not under this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the authentication tag is wrong")]
pub(crate) struct Forged;

/// The keys for one encryption, derived from one secret that is used once.
pub(crate) struct CipherKeys {
    encryption: Zeroizing<[u8; 32]>,
    authentication: Zeroizing<[u8; 32]>,
    iv: [u8; 16],
}

impl CipherKeys {
    /// Expands `secret` with HKDF under 32 zero bytes of salt; `info` separates one use from another.
    pub(crate) fn derive(secret: &[u8; 32], info: &[u8]) -> Self {
        let material: Zeroizing<[u8; MATERIAL_LENGTH]> = hkdf_sha256(&[0; HASH_LENGTH], secret, info);
        let mut keys =
            Self { encryption: Zeroizing::new([0; 32]), authentication: Zeroizing::new([0; 32]), iv: [0; 16] };
        let targets = keys.encryption.iter_mut().chain(keys.authentication.iter_mut()).chain(keys.iv.iter_mut());
        for (target, source) in targets.zip(material.iter()) {
            *target = *source;
        }
        keys
    }

    /// Encrypts with AES-256-CBC and PKCS#7 padding. Authenticating is up to the caller: see [`CipherKeys::tag`].
    pub(crate) fn encrypt(&self, plaintext: &[u8]) -> Vec<u8> {
        Encryptor::<Aes256>::new((&*self.encryption).into(), (&self.iv).into()).encrypt_padded_vec::<Pkcs7>(plaintext)
    }

    /// The whole HMAC over the concatenation of `parts`; OMEMO transfers the first bytes of it.
    pub(crate) fn tag(&self, parts: &[&[u8]]) -> Zeroizing<[u8; HASH_LENGTH]> {
        hmac_sha256(&self.authentication, parts)
    }

    /// Decrypts `ciphertext`, provided that `tag` begins the HMAC over `authenticated`.
    ///
    /// Bad padding under a right tag is a sender's mistake and reported in the same way.
    pub(crate) fn open(
        &self,
        ciphertext: &[u8],
        authenticated: &[&[u8]],
        tag: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Forged> {
        let full = self.tag(authenticated);
        let expected = full.get(..tag.len()).filter(|expected| expected.len() >= MIN_TAG_LENGTH).ok_or(Forged)?;
        if !bool::from(expected.ct_eq(tag)) {
            return Err(Forged);
        }
        Decryptor::<Aes256>::new((&*self.encryption).into(), (&self.iv).into())
            .decrypt_padded_vec::<Pkcs7>(ciphertext)
            .map(Zeroizing::new)
            .map_err(|_| Forged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// libsignal-protocol-c's `test_chain_key_derivation_v3`: the keys for the first message of a chain.
    #[test]
    fn known_answer() {
        use crate::generation::{Generation, Legacy};
        let chain_key = <[u8; 32]>::try_from(
            hex::decode("8ab72d6f4cc5ac0d387eaf463378ddb28edd07385b1cb01250c715982e7ad48f").unwrap(),
        );
        let message_key = hmac_sha256(&chain_key.unwrap(), &[&[0x01]]);
        let keys = CipherKeys::derive(&message_key, Legacy::MESSAGE_INFO);
        assert_eq!(
            hex::encode(keys.encryption.as_slice()),
            "bf51e9d75e0e31031051f82a2491ffc084fa298b7793bd9db620056febf45217"
        );
        assert_eq!(
            hex::encode(keys.authentication.as_slice()),
            "c6c77d6a73a354337a56435e34607dfe48e3ace14e77314dc6abc172e7a7030b"
        );
    }

    #[test]
    fn opens_what_it_encrypted_and_nothing_else() {
        let keys = CipherKeys::derive(&[7; 32], b"info");
        let ciphertext = keys.encrypt(b"plaintext");
        let tag: [u8; 16] = *keys.tag(&[&ciphertext]).first_chunk().unwrap();
        assert_eq!(keys.open(&ciphertext, &[&ciphertext], &tag).unwrap().as_slice(), b"plaintext");

        let mut altered = ciphertext.clone();
        altered[0] ^= 1;
        assert_eq!(keys.open(&altered, &[&altered], &tag).unwrap_err(), Forged);
        let other = CipherKeys::derive(&[7; 32], b"other info");
        assert_eq!(other.open(&ciphertext, &[&ciphertext], &tag).unwrap_err(), Forged);
    }

    #[test]
    fn a_tagged_ciphertext_that_is_no_ciphertext_is_refused() {
        let keys = CipherKeys::derive(&[7; 32], b"info");
        for length in [0, 1, 15, 17] {
            let junk = vec![0; length];
            let tag: [u8; 16] = *keys.tag(&[&junk]).first_chunk().unwrap();
            assert_eq!(keys.open(&junk, &[&junk], &tag).unwrap_err(), Forged);
        }
    }
}
