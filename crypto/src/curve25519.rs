//! X25519 keys and key agreement (RFC 7748).
//!
//! All Diffie-Hellman of this crate goes through [`SecretKey::diffie_hellman`], which refuses results that the peer
//! could have forced (RFC 7748, section 6.1; the bug that vodozemac 0.10 fixed). Public keys are checked once, when they
//! are parsed, so that a [`PublicKey`] is never of low order and has exactly one byte form.

use core::{
    fmt,
    hash::{Hash, Hasher},
};
use std::sync::OnceLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;
use x25519_dalek::StaticSecret;

use crate::{
    random::{RandomError, random_bytes},
    secret::{Secret32, base64_32},
};

/// Length in bytes of public keys, private keys and shared secrets.
pub const KEY_LENGTH: usize = 32;

/// The canonical forms of all points of low order on the curve and its twist (Bernstein, "May the Fourth Be With You",
/// cr.yp.to/ecdh.html): 0, 1, the two of order 8, and p - 1. Comparing is a thousand times cheaper than trying.
const LOW_ORDER_POINTS: [[u8; KEY_LENGTH]; 5] = [
    [0; KEY_LENGTH],
    {
        let mut one = [0; KEY_LENGTH];
        one[0] = 1;
        one
    },
    [
        0xE0, 0xEB, 0x7A, 0x7C, 0x3B, 0x41, 0xB8, 0xAE, 0x16, 0x56, 0xE3, 0xFA, 0xF1, 0x9F, 0xC4, 0x6A, 0xDA, 0x09,
        0x8D, 0xEB, 0x9C, 0x32, 0xB1, 0xFD, 0x86, 0x62, 0x05, 0x16, 0x5F, 0x49, 0xB8, 0x00,
    ],
    [
        0x5F, 0x9C, 0x95, 0xBC, 0xA3, 0x50, 0x8C, 0x24, 0xB1, 0xD0, 0xB1, 0x55, 0x9C, 0x83, 0xEF, 0x5B, 0x04, 0x44,
        0x5C, 0xC4, 0x58, 0x1C, 0x8E, 0x86, 0xD8, 0x22, 0x4E, 0xDD, 0xD0, 0x9F, 0x11, 0x57,
    ],
    {
        let mut minus_one = [0xFF; KEY_LENGTH];
        minus_one[0] = 0xEC;
        minus_one[KEY_LENGTH - 1] = 0x7F;
        minus_one
    },
];

/// A public key was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The key has another number of bytes than its kind has.
    #[error("a key of this kind has {expected} bytes, not {actual}")]
    Length {
        /// Number of bytes that a key of this kind has.
        expected: usize,
        /// Number of bytes given.
        actual: usize,
    },
    /// The bytes do not begin with the type byte 0x05 of legacy OMEMO.
    #[error("the key's type byte is not 0x05")]
    Type,
    /// The bytes are not the one canonical form of a point on the curve.
    #[error("the key is not the canonical form of a point on the curve")]
    Encoding,
    /// The point is of low order, or has a low-order component: agreeing with it would not protect anything.
    #[error("the key is a low-order point")]
    LowOrder,
}

/// An X25519 public key: canonical and not of low order.
#[derive(Clone, Copy)]
pub struct PublicKey(x25519_dalek::PublicKey);

/// The form is canonical, so the bytes tell. The library would reduce both to elements of the field first, each time.
impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for PublicKey {}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl PublicKey {
    /// Checks and takes 32 bytes, the little-endian u-coordinate (RFC 7748, section 5).
    ///
    /// # Errors
    /// [`KeyError`] when the length is wrong, the form is not canonical, or the point is of low order.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes = <[u8; KEY_LENGTH]>::try_from(bytes)
            .map_err(|_| KeyError::Length { expected: KEY_LENGTH, actual: bytes.len() })?;
        if !is_canonical(&bytes) {
            return Err(KeyError::Encoding);
        }
        if LOW_ORDER_POINTS.contains(&bytes) {
            return Err(KeyError::LowOrder);
        }
        Ok(Self(bytes.into()))
    }

    /// The public half of an own key, which needs no check: a multiple of the base point by a clamped scalar is never of low
    /// order.
    pub(crate) fn own(point: &curve25519_dalek::MontgomeryPoint) -> Self {
        Self(point.to_bytes().into())
    }

    /// The 32 bytes that [`PublicKey::from_slice`] takes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_LENGTH] {
        self.0.as_bytes()
    }
}

/// Whether the little-endian integer is below p = 2^255 - 19.
fn is_canonical(bytes: &[u8; KEY_LENGTH]) -> bool {
    let [lowest, middle @ .., highest] = bytes;
    let not_below_p = *highest == 0x7F && *lowest >= 0xED && middle.iter().all(|byte| *byte == 0xFF);
    *highest < 0x80 && !not_below_p
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", STANDARD.encode(self.as_bytes()))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.as_bytes()))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_slice(base64_32(deserializer)?.as_slice()).map_err(D::Error::custom)
    }
}

/// A shared secret would have been one that anybody can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the key agreement gave a secret that the peer forced")]
pub struct NonContributory;

/// An X25519 private key, wiped when dropped.
#[derive(Clone)]
pub struct SecretKey {
    secret: StaticSecret,
    /// The public half, once it was asked for: every message that is sent carries one.
    public: OnceLock<PublicKey>,
}

impl SecretKey {
    /// Generates a key.
    ///
    /// # Errors
    /// [`RandomError`] when there is no randomness.
    pub fn generate() -> Result<Self, RandomError> {
        Ok(Self::from_bytes(*random_bytes::<KEY_LENGTH>()?))
    }

    /// Takes the 32 bytes of a private key; they are clamped when used, as RFC 7748, section 5, wants it.
    #[must_use]
    pub fn from_bytes(bytes: [u8; KEY_LENGTH]) -> Self {
        Self { secret: StaticSecret::from(bytes), public: OnceLock::new() }
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        // A multiple of the base point by a clamped scalar is never of low order.
        *self.public.get_or_init(|| PublicKey((&self.secret).into()))
    }

    /// Agrees on a secret with the holder of `public`.
    ///
    /// # Errors
    /// [`NonContributory`] when the result is all zero. A [`PublicKey`] never brings this about; the check stays,
    /// because every later secret rests on it.
    pub fn diffie_hellman(&self, public: &PublicKey) -> Result<Secret32, NonContributory> {
        let shared = self.secret.diffie_hellman(&public.0);
        if !shared.was_contributory() {
            return Err(NonContributory);
        }
        Ok(Secret32::new(shared.to_bytes()))
    }

    /// The private bytes, for signing and for saving.
    pub(crate) fn expose(&self) -> &[u8; KEY_LENGTH] {
        self.secret.as_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(public: {:?})", self.public_key())
    }
}

impl Serialize for SecretKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Secret32::new(self.secret.to_bytes()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SecretKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        base64_32(deserializer).map(|bytes| Self::from_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use hex::FromHex;

    use super::*;

    fn bytes(hex: &str) -> [u8; 32] {
        <[u8; 32]>::from_hex(hex).unwrap()
    }

    /// RFC 7748, section 6.1.
    #[test]
    fn known_answer() {
        let alice = SecretKey::from_bytes(bytes("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
        let bob = SecretKey::from_bytes(bytes("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
        assert_eq!(
            alice.public_key().as_bytes(),
            &bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
        );
        let expected = bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(alice.diffie_hellman(&bob.public_key()).unwrap().expose(), &expected);
        assert_eq!(bob.diffie_hellman(&alice.public_key()).unwrap().expose(), &expected);
    }

    /// The list is right, as far as it goes: each point forces the secret that all keys agree on.
    #[test]
    fn low_order_points_are_refused() {
        for bytes in LOW_ORDER_POINTS {
            assert_eq!(PublicKey::from_slice(&bytes), Err(KeyError::LowOrder), "{bytes:02x?}");
            let point = PublicKey(bytes.into());
            assert_eq!(SecretKey::from_bytes([0x55; 32]).diffie_hellman(&point), Err(NonContributory), "{bytes:02x?}");
        }
    }

    #[test]
    fn only_the_canonical_form_is_taken() {
        for hex in [
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "0900000000000000000000000000000000000000000000000000000000000080",
        ] {
            assert_eq!(PublicKey::from_slice(&bytes(hex)), Err(KeyError::Encoding), "{hex}");
        }
        assert_eq!(PublicKey::from_slice(&[9; 31]), Err(KeyError::Length { expected: 32, actual: 31 }));
    }

    #[test]
    fn debug_shows_no_private_key() {
        let key = SecretKey::from_bytes([0x55; 32]);
        assert!(!format!("{key:?}").contains(&STANDARD.encode([0x55; 32])));
    }
}
