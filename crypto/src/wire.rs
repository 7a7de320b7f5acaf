//! What the content of a `<key/>` says, whichever of the two protocols wrote it; how it is written is theirs to say.

use thiserror::Error;

use crate::{
    address::{InvalidId, KeyId},
    curve25519::{KeyError, PublicKey},
    message::MAX_HEADER_LENGTH,
    protocol::Protocol,
    ratchet,
};

/// The content of a `<key/>` is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// It is longer than [`MAX_HEADER_LENGTH`].
    #[error("{actual} bytes, more than {MAX_HEADER_LENGTH}")]
    TooLong {
        /// Number of bytes given.
        actual: usize,
    },
    /// It is truncated or no protobuf at all.
    #[error("not a protobuf of this kind")]
    Protobuf,
    /// A required field is missing.
    #[error("the required field {0} is missing")]
    Missing(&'static str),
    /// A number is larger than its type can hold. Cutting it off, as protobuf allows, would let one message have many
    /// forms.
    #[error("the number in field {0} is too large")]
    Number(&'static str),
    /// The authentication tag of OMEMO 2 does not have 16 bytes.
    #[error("the authentication tag has {actual} bytes, not 16")]
    MacLength {
        /// Number of bytes given.
        actual: usize,
    },
    /// The version in the first byte of a legacy message is not 3.
    #[error("version byte 0x{0:02x}, where 0x33 is known")]
    Version(u8),
    /// A public key is unusable; among the reasons: it is a low-order point.
    #[error("the key {field} is unusable: {error}")]
    Key {
        /// The field that holds the key.
        field: &'static str,
        /// What is wrong with it.
        error: KeyError,
    },
    /// The id of a prekey is out of range; 0 means that no prekey was used, which the XEP says MUST be rejected.
    #[error("field {field}: {error}")]
    Id {
        /// The field that holds the id.
        field: &'static str,
        /// The id given.
        error: InvalidId,
    },
}

/// The content of a `<key/>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming<P: Protocol> {
    pub(crate) exchange: Option<ExchangeHeader<P>>,
    pub(crate) message: AuthenticatedMessage,
}

/// A message of a session, with its tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticatedMessage {
    /// The tag, of exactly as many bytes as the protocol has.
    pub(crate) mac: Vec<u8>,
    /// The message as it came or will go: what the tag is over.
    pub(crate) message: Vec<u8>,
    pub(crate) header: ratchet::Header,
    pub(crate) ciphertext: Vec<u8>,
}

/// What a key exchange says besides its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExchangeHeader<P: Protocol> {
    pub(crate) prekey: KeyId,
    pub(crate) signed_prekey: KeyId,
    pub(crate) identity: P::Identity,
    pub(crate) ephemeral: PublicKey,
    /// The number of the sending device, which legacy repeats here as libsignal's registration id.
    pub(crate) registration: u32,
}

pub(crate) fn id(field: &'static str, value: Option<u64>) -> Result<KeyId, WireError> {
    KeyId::new(number(field, value)?).map_err(|error| WireError::Id { field, error })
}

pub(crate) fn number(field: &'static str, value: Option<u64>) -> Result<u32, WireError> {
    u32::try_from(value.ok_or(WireError::Missing(field))?).map_err(|_| WireError::Number(field))
}

pub(crate) const fn check_length(bytes: &[u8]) -> Result<(), WireError> {
    if bytes.len() > MAX_HEADER_LENGTH { Err(WireError::TooLong { actual: bytes.len() }) } else { Ok(()) }
}
