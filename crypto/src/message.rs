//! What the messages of both protocols are made of: the header for a device, and the key in it.

use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::address::DeviceId;

/// The largest `<encrypted/>` in bytes of XML: room for the largest payload and [`MAX_HEADERS`] headers.
pub const MAX_MESSAGE_LENGTH: usize = 4 * 1024 * 1024;

/// How many headers a message may have: enough for a room of a thousand people with four devices each.
pub const MAX_HEADERS: usize = 4096;

/// The largest plaintext in bytes that is encrypted, and the largest payload that is decrypted: 1 MiB, several times
/// what servers let through in one stanza.
pub const MAX_PLAINTEXT_LENGTH: usize = 1024 * 1024;

/// The largest content of a `<key/>` in bytes. A key exchange has about 230; fields that we do not know may follow.
pub const MAX_HEADER_LENGTH: usize = 16 * 1024;

/// The longest key material in bytes that fits into a header. OMEMO itself sends at most 48.
pub const MAX_KEY_MATERIAL_LENGTH: usize = 15 * 1024;

/// The header for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageHeader {
    /// The receiving device.
    pub rid: DeviceId,
    /// Whether `data` is a key exchange (`OMEMOKeyExchange`, `PreKeySignalMessage`); else it is a message of a session
    /// that stands (`OMEMOAuthenticatedMessage`, `SignalMessage`).
    pub kex: bool,
    /// What is in the `<key/>`, at most [`MAX_HEADER_LENGTH`] bytes.
    pub data: Vec<u8>,
}

/// What goes through the sessions: the key of the payload and its tag, or whatever an empty message has instead.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct KeyMaterial(Vec<u8>);

impl KeyMaterial {
    /// Takes over bytes that nobody else has a copy of.
    pub(crate) const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// A payload and what came through the session do not belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// What came through the session is no key and tag.
    #[error("the key material has {0} bytes")]
    KeyMaterial(usize),
    /// The payload is not the one that the key was made for.
    #[error("the payload is not what the sender encrypted")]
    Forged,
    /// The payload is longer than [`MAX_PLAINTEXT_LENGTH`].
    #[error("the payload is too long")]
    TooLong,
}
