//! Who is spoken of: device ids, key ids, and the address of a device.

use core::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::random::{RandomError, random_bytes};

/// The largest id of a device or key: ids are 1 to 2^31 - 1 (XEP-0384, "Setup" and "Bundles").
pub const MAX_ID: u32 = 0x7FFF_FFFF;

/// The largest bare JID in bytes: two parts of 1023 and the sign between them (RFC 7622, section 3.1).
pub const MAX_JID_LENGTH: usize = 2047;

/// An id outside 1 to 2^31 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0} is not an id from 1 to 2147483647")]
pub struct InvalidId(pub u32);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u32", into = "u32")]
        pub struct $name(u32);

        impl $name {
            /// Takes an id from 1 to 2^31 - 1.
            ///
            /// # Errors
            /// [`InvalidId`] for any other number.
            pub const fn new(id: u32) -> Result<Self, InvalidId> {
                if id == 0 || id > MAX_ID { Err(InvalidId(id)) } else { Ok(Self(id)) }
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0
            }

            /// The id after this one; after the last comes 1.
            #[must_use]
            pub const fn following(self) -> Self {
                match self.0.checked_add(1) {
                    Some(next) if next <= MAX_ID => Self(next),
                    _ => Self(1),
                }
            }

            /// An id that nobody can guess.
            ///
            /// # Errors
            /// [`RandomError`] when there is no randomness.
            pub fn random() -> Result<Self, RandomError> {
                let number = u32::from_le_bytes(*random_bytes::<4>()?) & MAX_ID;
                Ok(Self(number.max(1)))
            }
        }

        impl TryFrom<u32> for $name {
            type Error = InvalidId;

            fn try_from(id: u32) -> Result<Self, InvalidId> {
                Self::new(id)
            }
        }

        impl From<$name> for u32 {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// The number of a device within its account.
    DeviceId
}

id! {
    /// The number of a prekey or signed prekey within a device. The two kinds are counted apart.
    KeyId
}

/// What was given is no address of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AddressError {
    /// The JID is empty, too long, or has a resource.
    #[error("not a bare JID of at most {MAX_JID_LENGTH} bytes")]
    Jid,
    /// The device id is out of range.
    #[error(transparent)]
    Id(#[from] InvalidId),
}

/// One device of one account.
///
/// The JID is bare. It is compared byte by byte: normalise it (RFC 7622) before it gets here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    jid: String,
    device: DeviceId,
}

impl Address {
    /// Joins a bare JID and a device id.
    ///
    /// # Errors
    /// [`AddressError`], saying which of the two is wrong.
    pub fn new(jid: &str, device: u32) -> Result<Self, AddressError> {
        Self::of_device(jid, DeviceId::new(device)?)
    }

    /// Joins a bare JID and a device id that is known to be one.
    ///
    /// # Errors
    /// [`AddressError::Jid`].
    pub fn of_device(jid: &str, device: DeviceId) -> Result<Self, AddressError> {
        check_jid(jid)?;
        Ok(Self { jid: jid.to_owned(), device })
    }

    /// The bare JID of the account.
    #[must_use]
    pub fn jid(&self) -> &str {
        &self.jid
    }

    /// The device within the account.
    #[must_use]
    pub const fn device(&self) -> DeviceId {
        self.device
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.jid, self.device)
    }
}

/// Whether the text could be a bare JID; whether it is one, the XMPP library knows better.
pub(crate) fn check_jid(jid: &str) -> Result<(), AddressError> {
    if jid.is_empty() || jid.len() > MAX_JID_LENGTH || jid.contains('/') { Err(AddressError::Jid) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_a_range() {
        assert_eq!(DeviceId::new(0), Err(InvalidId(0)));
        assert_eq!(DeviceId::new(MAX_ID + 1), Err(InvalidId(MAX_ID + 1)));
        assert_eq!(KeyId::new(MAX_ID).unwrap().following(), KeyId::new(1).unwrap());
        assert!(serde_json::from_str::<KeyId>("0").is_err());
    }

    #[test]
    fn addresses_have_bare_jids() {
        assert!(Address::new("juliet@capulet.lit", 1).is_ok());
        for jid in ["", "juliet@capulet.lit/balcony", &"a".repeat(MAX_JID_LENGTH + 1)] {
            assert_eq!(Address::new(jid, 1), Err(AddressError::Jid));
        }
    }
}
