//! Is this signed prekey really signed by that identity? The one question that a server asks of this crate.
//!
//! The functions take bytes as they come out of a bundle's base64. They never accept a key of low order, however well
//! it is signed, and never a key that is not in its one canonical form.

use thiserror::Error;

use crate::{
    curve25519::{KEY_LENGTH, KeyError, PublicKey, SecretKey},
    identity::{IdentityKey, SIGNATURE_LENGTH},
    random::RandomError,
    xeddsa,
};

/// The type byte before a Curve25519 key of legacy OMEMO (libsignal's `DJB_TYPE`).
pub const LEGACY_KEY_TYPE: u8 = 0x05;

/// Length in bytes of a Curve25519 key as legacy OMEMO transfers it: the type byte and the key.
pub const LEGACY_KEY_LENGTH: usize = 33;

/// Why a signature was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The identity key is no key that could be trusted to sign.
    #[error("the identity key is unusable: {0}")]
    IdentityKey(KeyError),
    /// The signed prekey is no key that anybody should agree on a secret with.
    #[error("the signed prekey is unusable: {0}")]
    SignedPrekey(KeyError),
    /// The signature does not have 64 bytes.
    #[error("a signature has 64 bytes, not {actual}")]
    Length {
        /// Number of bytes given.
        actual: usize,
    },
    /// The signature was not made by this identity over this message.
    #[error("the signature does not belong to this identity and key")]
    Mismatch,
}

/// Checks the signature in an OMEMO 2 bundle: Ed25519 over the 32 bytes of the signed prekey (XEP-0384, "Key Exchange").
///
/// `identity_key` is an Ed25519 key of 32 bytes, `signed_prekey` an X25519 key of 32 bytes, `signature` has 64 bytes.
///
/// # Errors
/// [`SignatureError`], saying which of the three is wrong.
pub fn verify_omemo2_signature(
    identity_key: &[u8],
    signed_prekey: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let identity = IdentityKey::from_slice(identity_key).map_err(SignatureError::IdentityKey)?;
    let prekey = PublicKey::from_slice(signed_prekey).map_err(SignatureError::SignedPrekey)?;
    identity.verify(prekey.as_bytes(), signature)
}

/// Checks the signature in a legacy bundle: XEdDSA over the 33 bytes of the signed prekey (XEP-0384 0.3, libsignal).
///
/// Both keys have 33 bytes, 0x05 first, as legacy OMEMO transfers them: libsignal's decoder knows no form without the
/// type byte, so a bundle with 32-byte keys is of no use to any client and is refused. `signature` has 64 bytes and may
/// carry the identity key's sign in its last bit.
///
/// # Errors
/// [`SignatureError`], saying which of the three is wrong.
pub fn verify_legacy_signature(
    identity_key: &[u8],
    signed_prekey: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let identity = decode_legacy_key(identity_key).map_err(SignatureError::IdentityKey)?;
    decode_legacy_key(signed_prekey).map_err(SignatureError::SignedPrekey)?;
    let signature = <[u8; SIGNATURE_LENGTH]>::try_from(signature)
        .map_err(|_| SignatureError::Length { actual: signature.len() })?;
    xeddsa::verify(&identity, signed_prekey, &signature)
}

/// Signs a prekey for a legacy bundle, so that [`verify_legacy_signature`] and libsignal accept it.
///
/// # Errors
/// [`RandomError`] when there is no randomness for the nonce.
pub fn sign_legacy(identity_key: &SecretKey, signed_prekey: &PublicKey) -> Result<[u8; SIGNATURE_LENGTH], RandomError> {
    xeddsa::sign(identity_key, &encode_legacy_key(signed_prekey))
}

/// The 33-byte form of a Curve25519 key that legacy OMEMO transfers and signs.
#[must_use]
pub fn encode_legacy_key(key: &PublicKey) -> [u8; LEGACY_KEY_LENGTH] {
    let mut encoded = [LEGACY_KEY_TYPE; LEGACY_KEY_LENGTH];
    if let Some(rest) = encoded.last_chunk_mut::<KEY_LENGTH>() {
        *rest = *key.as_bytes();
    }
    encoded
}

/// Reads the 33-byte form of a Curve25519 key.
///
/// # Errors
/// [`KeyError`] when the length or the type byte is wrong, or the key itself is refused.
pub fn decode_legacy_key(encoded: &[u8]) -> Result<PublicKey, KeyError> {
    if encoded.len() != LEGACY_KEY_LENGTH {
        return Err(KeyError::Length { expected: LEGACY_KEY_LENGTH, actual: encoded.len() });
    }
    match encoded.split_first() {
        Some((&LEGACY_KEY_TYPE, key)) => PublicKey::from_slice(key),
        _ => Err(KeyError::Type),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentityKeyPair;

    #[test]
    fn omemo2_accepts_the_right_and_names_the_wrong() {
        let identity = IdentityKeyPair::from_seed(&[1; 32]);
        let identity_key = *identity.public_key().as_bytes();
        let prekey = *SecretKey::from_bytes([2; 32]).public_key().as_bytes();
        let signature = identity.sign(&prekey);
        assert_eq!(verify_omemo2_signature(&identity_key, &prekey, &signature), Ok(()));

        let other = *SecretKey::from_bytes([3; 32]).public_key().as_bytes();
        assert_eq!(verify_omemo2_signature(&identity_key, &other, &signature), Err(SignatureError::Mismatch));
        assert_eq!(
            verify_omemo2_signature(&identity_key, &prekey, &signature[..63]),
            Err(SignatureError::Length { actual: 63 })
        );
        assert_eq!(
            verify_omemo2_signature(&identity_key, &[0; 32], &identity.sign(&[0; 32])),
            Err(SignatureError::SignedPrekey(KeyError::LowOrder))
        );
        assert_eq!(
            verify_omemo2_signature(&[0; 32], &prekey, &[0; 64]),
            Err(SignatureError::IdentityKey(KeyError::LowOrder))
        );
        assert!(matches!(
            verify_omemo2_signature(&identity_key[1..], &prekey, &signature),
            Err(SignatureError::IdentityKey(KeyError::Length { expected: 32, actual: 31 }))
        ));
    }

    #[test]
    fn legacy_accepts_the_right_and_names_the_wrong() {
        for seed in 0..16 {
            let identity = SecretKey::from_bytes([seed; 32]);
            let identity_key = encode_legacy_key(&identity.public_key());
            let prekey = SecretKey::from_bytes([99; 32]).public_key();
            let encoded = encode_legacy_key(&prekey);
            let signature = sign_legacy(&identity, &prekey).unwrap();
            assert_eq!(verify_legacy_signature(&identity_key, &encoded, &signature), Ok(()));
            assert!(matches!(
                verify_legacy_signature(&identity_key[1..], &encoded, &signature),
                Err(SignatureError::IdentityKey(KeyError::Length { expected: 33, actual: 32 }))
            ));
            let mut wrong_type = encoded;
            wrong_type[0] = 6;
            assert_eq!(
                verify_legacy_signature(&identity_key, &wrong_type, &signature),
                Err(SignatureError::SignedPrekey(KeyError::Type))
            );
            let mut altered = signature;
            altered[63] ^= 0x80;
            assert_eq!(verify_legacy_signature(&identity_key, &encoded, &altered), Err(SignatureError::Mismatch));
        }
    }

    #[test]
    fn legacy_refuses_low_order_keys_even_if_signed() {
        let identity = SecretKey::from_bytes([7; 32]);
        let mut zero = [0; 33];
        zero[0] = LEGACY_KEY_TYPE;
        let signature = xeddsa::sign(&identity, &zero).unwrap();
        assert_eq!(
            verify_legacy_signature(&encode_legacy_key(&identity.public_key()), &zero, &signature),
            Err(SignatureError::SignedPrekey(KeyError::LowOrder))
        );
    }
}
