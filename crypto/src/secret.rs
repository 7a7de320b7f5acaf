//! Thirty-two secret bytes that are wiped when dropped.
//!
//! Chain keys, message keys, root keys and payload keys all have this shape. The type never prints its bytes and
//! compares in constant time. It is serialised (as base64) only into the state of a device, which is secret as a whole.

use core::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A 32-byte secret.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret32([u8; 32]);

impl Secret32 {
    /// Takes over bytes that the caller should wipe if it keeps its own copy of them.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes. Whoever copies them has to wipe the copy.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for Secret32 {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret32 {}

impl fmt::Debug for Secret32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret32(..)")
    }
}

impl Serialize for Secret32 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(self.0)))
    }
}

impl<'de> Deserialize<'de> for Secret32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        base64_32(deserializer).map(|bytes| Self(*bytes))
    }
}

/// Deserialises exactly 32 bytes from base64.
pub(crate) fn base64_32<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<[u8; 32]>, D::Error> {
    let text = Zeroizing::new(String::deserialize(deserializer)?);
    let decoded = Zeroizing::new(STANDARD.decode(text.as_bytes()).map_err(D::Error::custom)?);
    let bytes = <[u8; 32]>::try_from(decoded.as_slice()).map_err(|_| D::Error::custom("expected 32 bytes"))?;
    Ok(Zeroizing::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_and_zeroize_wipes() {
        let mut secret = Secret32::new([0xAB; 32]);
        assert_eq!(format!("{secret:?}"), "Secret32(..)");
        secret.zeroize();
        assert_eq!(secret.expose(), &[0; 32]);
    }

    #[test]
    fn serialised_form_is_base64_of_exactly_32_bytes() {
        let json = serde_json::to_string(&Secret32::new([1; 32])).unwrap();
        assert_eq!(serde_json::from_str::<Secret32>(&json).unwrap(), Secret32::new([1; 32]));
        assert!(serde_json::from_str::<Secret32>("\"AAAA\"").is_err());
    }
}
