//! The long-term identity of a device, and its two public forms.
//!
//! OMEMO 2 transfers the Ed25519 form and signs with Ed25519; legacy OMEMO transfers the Curve25519 form and signs with
//! XEdDSA. Both are the same key seen through the birational map of RFC 7748, section 4.1 (XEP-0384, "Key Exchange",
//! on XEdDSA), so one [`IdentityKeyPair`] serves both generations and has one fingerprint.

use core::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use zeroize::Zeroizing;

use crate::{
    curve25519::{KEY_LENGTH, KeyError, PublicKey, SecretKey},
    random::{RandomError, random_bytes},
    secret::{Secret32, base64_32},
    signature::SignatureError,
};

/// Length in bytes of a signature (RFC 8032, section 5.1.6), Ed25519 and XEdDSA alike.
pub const SIGNATURE_LENGTH: usize = 64;

/// The public identity of a device in its Ed25519 form: canonical, and in the subgroup of prime order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdentityKey(VerifyingKey);

impl IdentityKey {
    /// Checks and takes 32 bytes, an Ed25519 public key as RFC 8032, section 5.1.2, encodes it.
    ///
    /// # Errors
    /// [`KeyError`] when the length is wrong, the form is not canonical, or the point has a low-order component (what
    /// libsodium's `crypto_sign_ed25519_pk_to_curve25519`, which the XEP names, refuses as well).
    pub fn from_slice(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes = <[u8; KEY_LENGTH]>::try_from(bytes)
            .map_err(|_| KeyError::Length { expected: KEY_LENGTH, actual: bytes.len() })?;
        let point = CompressedEdwardsY(bytes).decompress().ok_or(KeyError::Encoding)?;
        if point.compress().0 != bytes {
            return Err(KeyError::Encoding);
        }
        if point.is_small_order() || !point.is_torsion_free() {
            return Err(KeyError::LowOrder);
        }
        Ok(Self(VerifyingKey::from(point)))
    }

    /// The 32 bytes that OMEMO 2 transfers.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_LENGTH] {
        self.0.as_bytes()
    }

    /// The Curve25519 form, for key agreement.
    ///
    /// # Errors
    /// [`KeyError`] for a point that has none; an [`IdentityKey`] that was parsed always has one.
    pub fn to_curve25519(&self) -> Result<PublicKey, KeyError> {
        PublicKey::from_slice(self.0.to_montgomery().as_bytes())
    }

    /// The Ed25519 form of a Curve25519 key, whose sign (bit 255) has to be known from elsewhere.
    ///
    /// # Errors
    /// [`KeyError::Encoding`] when the key is not on the curve but on its twist.
    pub fn from_curve25519(key: &PublicKey, sign_bit: bool) -> Result<Self, KeyError> {
        let point = curve25519_dalek::MontgomeryPoint(*key.as_bytes())
            .to_edwards(u8::from(sign_bit))
            .ok_or(KeyError::Encoding)?;
        Self::from_slice(point.compress().as_bytes())
    }

    /// The same for checking a signature only, which a low-order component does not help to forge: to rule it out costs as
    /// much as the signature itself. Whole points of low order are refused then as well.
    pub(crate) fn for_verifying(key: &PublicKey, sign_bit: bool) -> Result<Self, KeyError> {
        let point = curve25519_dalek::MontgomeryPoint(*key.as_bytes())
            .to_edwards(u8::from(sign_bit))
            .ok_or(KeyError::Encoding)?;
        Ok(Self(VerifyingKey::from(point)))
    }

    /// Checks an Ed25519 signature over `message`.
    ///
    /// # Errors
    /// [`SignatureError`] when the signature has the wrong length or is not this identity's over that message.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let signature = <[u8; SIGNATURE_LENGTH]>::try_from(signature)
            .map_err(|_| SignatureError::Length { actual: signature.len() })?;
        self.0.verify_strict(message, &Signature::from_bytes(&signature)).map_err(|_| SignatureError::Mismatch)
    }

    /// What users compare: the Curve25519 form in lowercase hex, 64 digits (XEP-0384, "Security Considerations").
    ///
    /// It is the same for both generations of OMEMO. Shown in eight groups of eight digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.0.to_montgomery().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey({})", self.fingerprint())
    }
}

impl Serialize for IdentityKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.as_bytes()))
    }
}

impl<'de> Deserialize<'de> for IdentityKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_slice(base64_32(deserializer)?.as_slice()).map_err(D::Error::custom)
    }
}

/// The private identity of a device, kept as an Ed25519 seed (RFC 8032, section 5.1.5); wiped when dropped.
#[derive(Clone)]
pub struct IdentityKeyPair(SigningKey);

impl IdentityKeyPair {
    /// Generates an identity.
    ///
    /// # Errors
    /// [`RandomError`] when there is no randomness.
    pub fn generate() -> Result<Self, RandomError> {
        Ok(Self(SigningKey::from_bytes(&*random_bytes::<KEY_LENGTH>()?)))
    }

    /// Takes an Ed25519 seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; KEY_LENGTH]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> IdentityKey {
        IdentityKey(self.0.verifying_key())
    }

    /// The public half in its Curve25519 form: that of [`IdentityKeyPair::to_curve25519`], without computing it anew.
    #[must_use]
    pub fn curve25519_public_key(&self) -> PublicKey {
        PublicKey::own(&self.0.verifying_key().to_montgomery())
    }

    /// Signs with Ed25519, as OMEMO 2 wants it.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        self.0.sign(message).to_bytes()
    }

    /// The X25519 private key of this identity (libsodium's `crypto_sign_ed25519_sk_to_curve25519`).
    #[must_use]
    pub fn to_curve25519(&self) -> SecretKey {
        let scalar = Zeroizing::new(self.0.to_scalar_bytes());
        SecretKey::from_bytes(*scalar)
    }
}

impl fmt::Debug for IdentityKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKeyPair(public: {:?})", self.public_key())
    }
}

impl Serialize for IdentityKeyPair {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Secret32::new(self.0.to_bytes()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for IdentityKeyPair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        base64_32(deserializer).map(|seed| Self::from_seed(&seed))
    }
}

#[cfg(test)]
mod tests {
    use hex::FromHex;

    use super::*;

    /// RFC 8032, section 7.1, test 2.
    #[test]
    fn known_answer() {
        let seed = <[u8; 32]>::from_hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let pair = IdentityKeyPair::from_seed(&seed);
        assert_eq!(
            hex::encode(pair.public_key().as_bytes()),
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        );
        let signature = pair.sign(&[0x72]);
        assert_eq!(
            hex::encode(signature),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert_eq!(pair.public_key().verify(&[0x72], &signature), Ok(()));
        assert_eq!(pair.public_key().verify(&[0x73], &signature), Err(SignatureError::Mismatch));
    }

    #[test]
    fn both_forms_are_the_same_key() {
        for byte in 0..16 {
            let pair = IdentityKeyPair::from_seed(&[byte; 32]);
            let public = pair.public_key();
            let curve = public.to_curve25519().unwrap();
            assert_eq!(pair.to_curve25519().public_key(), curve);
            assert_eq!(pair.curve25519_public_key(), curve);
            let sign_bit = public.as_bytes()[31] & 0x80 != 0;
            assert_eq!(IdentityKey::from_curve25519(&curve, sign_bit), Ok(public));
            assert_ne!(IdentityKey::from_curve25519(&curve, !sign_bit), Ok(public));
            assert_eq!(public.fingerprint(), hex::encode(curve.as_bytes()));
        }
    }

    #[test]
    fn weak_identities_are_refused() {
        let identity_element = {
            let mut bytes = [0; 32];
            bytes[0] = 1;
            bytes
        };
        assert_eq!(IdentityKey::from_slice(&identity_element), Err(KeyError::LowOrder));
        assert_eq!(IdentityKey::from_slice(&[0; 32]), Err(KeyError::LowOrder));
        // Prime-order point plus a point of order two.
        let order_two = CompressedEdwardsY::from_slice(
            &<[u8; 32]>::from_hex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f").unwrap(),
        )
        .unwrap()
        .decompress()
        .unwrap();
        let mixed = curve25519_dalek::constants::ED25519_BASEPOINT_POINT + order_two;
        assert_eq!(IdentityKey::from_slice(mixed.compress().as_bytes()), Err(KeyError::LowOrder));
        assert_eq!(IdentityKey::from_slice(&[0xFF; 32]), Err(KeyError::Encoding));
    }
}
