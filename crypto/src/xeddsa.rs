//! XEdDSA: signatures by Curve25519 keys (signal.org/docs/specifications/xeddsa), as legacy OMEMO uses them.
//!
//! A Curve25519 public key lacks the sign of its Edwards form. The published specification makes the signer negate its
//! key so that the sign is always 0. libsignal's older code, which legacy OMEMO clients carry, does not: it puts the
//! sign into bit 7 of the last byte of the signature, a bit that is always 0 in Ed25519. A verifier that reads the bit
//! accepts both; one that assumes 0 fails on half of all legacy bundles.

use curve25519_dalek::{edwards::EdwardsPoint, scalar::Scalar};
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use crate::{
    curve25519::{PublicKey, SecretKey},
    identity::{IdentityKey, IdentityKeyPair, SIGNATURE_LENGTH},
    random::{RandomError, random_bytes},
    signature::SignatureError,
};

/// The bit of the signature's last byte that carries the sign of the public key.
const SIGN_BIT: u8 = 0x80;

/// `hash1` of the specification: the little-endian form of 2^256 - 1 - 1 before the input separates the nonce from
/// every other use of the hash.
const HASH1_PREFIX: [u8; 32] = {
    let mut prefix = [0xFF; 32];
    prefix[0] = 0xFE;
    prefix
};

/// Signs `message`, leaving the sign of the public key in the signature as libsignal does.
///
/// # Errors
/// [`RandomError`] when there is no randomness for the nonce.
pub fn sign(key: &SecretKey, message: &[u8]) -> Result<[u8; SIGNATURE_LENGTH], RandomError> {
    let clamped = Zeroizing::new(curve25519_dalek::scalar::clamp_integer(*key.expose()));
    let secret = Zeroizing::new(Scalar::from_bytes_mod_order(*clamped));
    let public = EdwardsPoint::mul_base(&secret).compress();
    let random = random_bytes::<64>()?;

    let nonce = Zeroizing::new(hash_to_scalar(&[&HASH1_PREFIX, clamped.as_slice(), message, random.as_slice()]));
    let commitment = EdwardsPoint::mul_base(&nonce).compress();
    let challenge = hash_to_scalar(&[commitment.as_bytes(), public.as_bytes(), message]);
    #[expect(clippy::arithmetic_side_effects, reason = "arithmetic modulo the group's order cannot overflow")]
    let response = challenge * *secret + *nonce;

    let mut signature = [0; SIGNATURE_LENGTH];
    let (first, second) = signature.split_at_mut(32);
    first.copy_from_slice(commitment.as_bytes());
    second.copy_from_slice(response.as_bytes());
    if let ([.., public_last], [.., signature_last]) = (public.as_bytes().as_slice(), second) {
        *signature_last |= public_last & SIGN_BIT;
    }
    Ok(signature)
}

/// Signs `message` with an identity whose Ed25519 form is at hand, and without randomness.
///
/// An Ed25519 signature is an XEdDSA signature with another choice of nonce, which the verifier cannot tell; what is
/// missing is only the sign of the public key, which is added as libsignal adds it.
#[must_use]
pub fn sign_as_ed25519(identity: &IdentityKeyPair, message: &[u8]) -> [u8; SIGNATURE_LENGTH] {
    let mut signature = identity.sign(message);
    if let ([.., public_last], [.., signature_last]) =
        (identity.public_key().as_bytes().as_slice(), signature.as_mut_slice())
    {
        *signature_last |= public_last & SIGN_BIT;
    }
    signature
}

/// Checks a signature over `message`, whichever of the two ways it was made.
///
/// # Errors
/// [`SignatureError`] when the key has no Edwards form or the signature is not its own over that message.
pub fn verify(key: &PublicKey, message: &[u8], signature: &[u8; SIGNATURE_LENGTH]) -> Result<(), SignatureError> {
    let mut signature = *signature;
    let sign_bit = match signature.as_mut_slice() {
        [.., last] => {
            let sign_bit = *last & SIGN_BIT != 0;
            *last &= !SIGN_BIT;
            sign_bit
        }
        [] => return Err(SignatureError::Mismatch),
    };
    IdentityKey::for_verifying(key, sign_bit).map_err(SignatureError::IdentityKey)?.verify(message, &signature)
}

/// SHA-512 over the concatenation of `parts`, reduced modulo the order of the group.
fn hash_to_scalar(parts: &[&[u8]]) -> Scalar {
    let mut hash = Sha512::new();
    for part in parts {
        hash.update(part);
    }
    Scalar::from_bytes_mod_order_wide(&Zeroizing::new(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use hex::FromHex;

    use super::*;

    /// The signature vector of libsignal-protocol-c (`test_curve25519_signature`); its sign bit is set.
    #[test]
    fn known_answer_with_sign_bit() {
        let key = PublicKey::from_slice(
            &<[u8; 32]>::from_hex("ab7e717d4a163b7d9a1d8071dfe9dcf8cdcd1cea3339b6356be84d887e322c64").unwrap(),
        )
        .unwrap();
        let message = hex::decode("05edce9d9c415ca78cb7252e72c2c4a554d3eb29485a0e1d503118d1a82d99fb4a").unwrap();
        let signature = <[u8; 64]>::from_hex(
            "5de88ca9a89b4a115da79109c67c9c7464a3e4180274f1cb8c63c2984e286dfb\
             ede82deb9dcd9fae0bfbb821569b3d9001bd8130cd11d486cef047bd60b86e88",
        )
        .unwrap();
        assert_eq!(signature[63] & SIGN_BIT, SIGN_BIT);
        assert_eq!(verify(&key, &message, &signature), Ok(()));
        for position in 0..64 {
            let mut altered = signature;
            altered[position] ^= 0x01;
            assert!(verify(&key, &message, &altered).is_err(), "byte {position}");
        }
        let mut sign_lost = signature;
        sign_lost[63] &= 0x7F;
        assert_eq!(verify(&key, &message, &sign_lost), Err(SignatureError::Mismatch));
    }

    #[test]
    fn own_signatures_verify_with_either_sign() {
        let mut signs = [0; 2];
        for byte in 0..32 {
            let key = SecretKey::from_bytes([byte; 32]);
            let signature = sign(&key, b"message").unwrap();
            signs[usize::from(signature[63] >> 7)] += 1;
            assert_eq!(verify(&key.public_key(), b"message", &signature), Ok(()));
            assert_eq!(verify(&key.public_key(), b"massage", &signature), Err(SignatureError::Mismatch));
        }
        assert!(signs[0] > 0 && signs[1] > 0, "both signs were tried: {signs:?}");
    }
}
