//! What can go wrong, one variant for each thing that a client would do differently.

use thiserror::Error;

use crate::{
    address::{Address, AddressError, KeyId},
    bundle::BundleError,
    cbc_hmac::Forged,
    curve25519::{KeyError, NonContributory},
    message::PayloadError,
    random::RandomError,
    ratchet::RatchetError,
    wire::WireError,
};

/// Why a device was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GenerateError {
    /// The owner is not a bare JID.
    #[error("the owner: {0}")]
    Owner(#[from] AddressError),
    /// There is no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Why a message was not decrypted. Whatever the reason, nothing has changed: no session moved, no prekey is gone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecryptError {
    /// No `<key/>` is addressed to this device. Show a warning.
    #[error("the message was not encrypted for this device")]
    NotForThisDevice,
    /// The sender is no address of a device.
    #[error("the sender: {0}")]
    Sender(#[from] AddressError),
    /// The sender claims to be this device, which never writes to itself.
    #[error("the sender claims to be this device")]
    OwnDevice,
    /// The message came before. Show nothing (XEP-0384, "Business Rules").
    #[error("the message was received before, or is too old")]
    Duplicate,
    /// There is no session with the sender, and the message starts none. Start one and send an empty message.
    #[error("no session with {0}")]
    NoSession(Address),
    /// The header is malformed: truncated, oversized, or lacking a field, or a key in it is unusable.
    #[error("malformed header: {0}")]
    Malformed(#[from] WireError),
    /// The key exchange names a prekey that this device does not have, or no longer.
    #[error("unknown prekey {0}")]
    UnknownPrekey(KeyId),
    /// The key exchange names a signed prekey that this device does not have, or no longer.
    #[error("unknown signed prekey {0}")]
    UnknownSignedPrekey(KeyId),
    /// The key exchange uses a prekey that too many key exchanges have used during one catch-up.
    #[error("prekey {0} was used too often")]
    PrekeyOverused(KeyId),
    /// The key exchange comes with another identity than the device has shown before. Ask the user; if it is trusted,
    /// [`forget`](crate::device::Device::forget) the device and decrypt again.
    #[error("{address} shows another identity, {offered}, than before, {known}")]
    IdentityChanged {
        /// The device.
        address: Address,
        /// Fingerprint of the identity known so far.
        known: String,
        /// Fingerprint of the identity in this message.
        offered: String,
    },
    /// A key of the peer forces a known secret.
    #[error(transparent)]
    NonContributory(#[from] NonContributory),
    /// A public key cannot be used for key agreement.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The message skips too many others.
    #[error("the message skips {skipped} others")]
    CounterJump {
        /// How many.
        skipped: u32,
    },
    /// The header was not made with any session that this device has with the sender: it is forged, or a session is
    /// broken. Tell the user; never start a session because of it (XEP-0384, "Security Considerations").
    #[error("the header is not from this sender's session")]
    Forged,
    /// The header is genuine, the payload is not the one that it belongs to.
    #[error("the payload is not what the sender encrypted")]
    PayloadForged,
    /// The header is genuine but carries no key of a payload.
    #[error("the header carries {0} bytes, which is no key of a payload")]
    KeyMaterial(usize),
    /// The payload is larger than [`MAX_PLAINTEXT_LENGTH`](crate::message::MAX_PLAINTEXT_LENGTH) allows.
    #[error("the payload is too long")]
    PayloadTooLong,
    /// There is no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Why one header was not decrypted within one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum HeaderError {
    #[error(transparent)]
    Ratchet(#[from] RatchetError),
    #[error(transparent)]
    Forged(#[from] Forged),
}

impl From<HeaderError> for DecryptError {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Forged(Forged) => Self::Forged,
            HeaderError::Ratchet(RatchetError::Duplicate) => Self::Duplicate,
            HeaderError::Ratchet(RatchetError::CounterJump { skipped }) => Self::CounterJump { skipped },
            HeaderError::Ratchet(RatchetError::NonContributory(error)) => Self::NonContributory(error),
            HeaderError::Ratchet(RatchetError::Random(error)) => Self::Random(error),
            // The end of a chain of 2^32 messages, or sending, which is not done here.
            HeaderError::Ratchet(RatchetError::Exhausted | RatchetError::NothingReceived) => Self::Forged,
        }
    }
}

impl From<PayloadError> for DecryptError {
    fn from(error: PayloadError) -> Self {
        match error {
            PayloadError::KeyMaterial(length) => Self::KeyMaterial(length),
            PayloadError::Forged => Self::PayloadForged,
            PayloadError::TooLong => Self::PayloadTooLong,
        }
    }
}

/// Why a message was not encrypted. Nothing that was encrypted has left the device.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncryptError {
    /// There is no session with this device: fetch its bundle and start one.
    #[error("no session with {0}")]
    NoSession(Address),
    /// There is nobody to encrypt for.
    #[error("no recipients")]
    NoRecipients,
    /// There are more recipients than [`MAX_HEADERS`](crate::message::MAX_HEADERS).
    #[error("{0} recipients are too many")]
    TooManyRecipients(usize),
    /// The plaintext is longer than [`MAX_PLAINTEXT_LENGTH`](crate::message::MAX_PLAINTEXT_LENGTH).
    #[error("{0} bytes of plaintext are too many")]
    TooLong(usize),
    /// The session's ratchet gave no key.
    #[error(transparent)]
    Ratchet(#[from] RatchetError),
    /// There is no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Why a session was not started. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The address is this device's own.
    #[error("a device has no session with itself")]
    OwnDevice,
    /// The bundle is not usable: its signature is wrong, or it has no prekey.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The bundle shows another identity than the device has shown before. Ask the user; if it is trusted,
    /// [`forget`](crate::device::Device::forget) the device and start again.
    #[error("{address} shows another identity, {offered}, than before, {known}")]
    IdentityChanged {
        /// The device.
        address: Address,
        /// Fingerprint of the identity known so far.
        known: String,
        /// Fingerprint of the identity in the bundle.
        offered: String,
    },
    /// A key of the peer forces a known secret.
    #[error(transparent)]
    NonContributory(#[from] NonContributory),
    /// A public key cannot be used for key agreement.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The session's ratchet could not be made.
    #[error(transparent)]
    Ratchet(#[from] RatchetError),
    /// There is no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Why a saved state is not the state of a device.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StateError {
    /// It is not what [`to_state`](crate::device::Device::to_state) gives, or it was damaged.
    #[error("not the state of a device: {0}")]
    Malformed(String),
    /// It was saved by a later version of this crate.
    #[error("state version {0} is not known")]
    Version(u32),
    /// It is the state of a device of the other protocol.
    #[error("the state is that of a device of the protocol {0}")]
    Protocol(String),
}
