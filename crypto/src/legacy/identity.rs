//! The public identity as legacy transfers it: a Curve25519 key, which does not say the sign of its Edwards form.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    curve25519::{KeyError, PublicKey},
    identity::IdentityKeyPair,
    protocol::PublicIdentity,
    signature::{LEGACY_KEY_LENGTH, decode_legacy_key, encode_legacy_key},
};

/// The public identity of a device in its Curve25519 form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdentityKey(PublicKey);

impl IdentityKey {
    /// Reads the 33 bytes that legacy transfers, 0x05 first.
    ///
    /// # Errors
    /// [`KeyError`] when the length or the type byte is wrong, or the key itself is refused.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, KeyError> {
        decode_legacy_key(bytes).map(Self)
    }

    /// The 33 bytes that legacy transfers.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; LEGACY_KEY_LENGTH] {
        encode_legacy_key(&self.0)
    }

    /// The key, for key agreement and for checking signatures.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.0
    }

    /// What users compare: the key in lowercase hex, 64 digits, without the type byte. OMEMO 2 has the same fingerprint
    /// for the same identity.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.0.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl From<&IdentityKeyPair> for IdentityKey {
    fn from(pair: &IdentityKeyPair) -> Self {
        Self(pair.curve25519_public_key())
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey({})", self.fingerprint())
    }
}

impl PublicIdentity for IdentityKey {
    fn fingerprint(&self) -> String {
        Self::fingerprint(self)
    }

    fn to_wire(&self) -> Vec<u8> {
        self.to_bytes().to_vec()
    }

    fn from_wire(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::from_slice(bytes)
    }

    fn agreement_key(&self) -> Result<PublicKey, KeyError> {
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_that_of_omemo2() {
        for byte in 0..8 {
            let pair = IdentityKeyPair::from_seed(&[byte; 32]);
            let identity = IdentityKey::from(&pair);
            assert_eq!(identity.fingerprint(), pair.public_key().fingerprint());
            assert_eq!(IdentityKey::from_slice(&identity.to_bytes()), Ok(identity));
        }
    }
}
