//! What the two protocols do differently, in one place; everything else is written once, for both.
//!
//! [`Protocol`] cannot be implemented outside of this crate: its rules are those of [`omemo2`](crate::omemo2) and
//! [`legacy`](crate::legacy). It is public so that a client can be written once for both, too.

use core::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::{
    address::DeviceId,
    bundle::{Bundle, BundleError},
    curve25519::{KeyError, PublicKey},
    generation::{Generation, Legacy, Omemo2},
    identity::{IdentityKeyPair, SIGNATURE_LENGTH},
    message::{KeyMaterial, MessageHeader, PayloadError},
    random::RandomError,
    ratchet,
    signature::SignatureError,
    wire::{ExchangeHeader, Incoming, WireError},
    xml::XmlError,
};

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::Omemo2 {}
    impl Sealed for super::Legacy {}
}

/// A public identity in the form that a protocol transfers.
pub trait PublicIdentity: Copy + Eq + Debug + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What users compare: the Curve25519 form in lowercase hex, 64 digits. It is the same in both protocols.
    fn fingerprint(&self) -> String;

    /// The bytes in the protocol's own encoding.
    fn to_wire(&self) -> Vec<u8>;

    /// Reads the protocol's own encoding.
    ///
    /// # Errors
    /// [`KeyError`] when it is not the encoding of an identity.
    fn from_wire(bytes: &[u8]) -> Result<Self, KeyError>;

    /// The Curve25519 form, for key agreement.
    ///
    /// # Errors
    /// [`KeyError`] for a point that has none.
    fn agreement_key(&self) -> Result<PublicKey, KeyError>;
}

/// The `<encrypted/>` element of a protocol.
pub trait EncryptedElement: Clone + Debug + PartialEq + Eq + Send + Sync + 'static {
    /// The sending device.
    fn sender(&self) -> DeviceId;

    /// The headers that may be for one device. OMEMO 2 has at most one for each; legacy names devices by number only,
    /// and two accounts can have devices of the same number.
    fn headers_for(&self, jid: &str, device: DeviceId) -> Vec<&MessageHeader>;

    /// The element as XML, to be put into a `<message/>` as it is.
    fn write(&self) -> String;

    /// Reads the element.
    ///
    /// # Errors
    /// [`XmlError`] when it is not an `<encrypted/>` of the protocol, or beyond its limits.
    fn read(xml: &str) -> Result<Self, XmlError>;
}

/// Who takes part in a session, and who of them sends.
#[derive(Debug, Clone, Copy)]
pub struct Parties<'a, I> {
    pub(crate) initiator: &'a I,
    pub(crate) responder: &'a I,
    pub(crate) initiator_sends: bool,
}

/// One of the two protocols of OMEMO.
pub trait Protocol: Generation + sealed::Sealed {
    /// The name under which the state of a device is saved.
    const NAME: &'static str;
    /// The XML namespace of its elements.
    const NAMESPACE: &'static str;

    /// A public identity as it is transferred.
    type Identity: PublicIdentity;
    /// The `<encrypted/>` element.
    type Message: EncryptedElement;
    /// What the element has besides its headers.
    #[doc(hidden)]
    type Payload;

    /// The public identity of a pair of keys.
    fn identity_of(pair: &IdentityKeyPair) -> Self::Identity;

    /// A public key as a bundle of the protocol transfers it.
    fn encode_key(key: &PublicKey) -> Vec<u8>;

    /// Reads a public key as a bundle of the protocol transfers it.
    ///
    /// # Errors
    /// [`KeyError`] when it is not the encoding of a usable key.
    fn decode_key(bytes: &[u8]) -> Result<PublicKey, KeyError>;

    #[doc(hidden)]
    fn sign_prekey(pair: &IdentityKeyPair, key: &PublicKey) -> [u8; SIGNATURE_LENGTH];
    #[doc(hidden)]
    fn verify_prekey(
        identity: &Self::Identity,
        key: &PublicKey,
        signature: &[u8; SIGNATURE_LENGTH],
    ) -> Result<(), SignatureError>;

    #[doc(hidden)]
    fn write_bundle(bundle: &Bundle<Self>) -> String;
    #[doc(hidden)]
    fn read_bundle(xml: &str) -> Result<Bundle<Self>, BundleError>;

    /// The message without its tag: what the tag is over, after [`Protocol::associated`].
    #[doc(hidden)]
    fn encode_message(header: &ratchet::Header, ciphertext: Vec<u8>) -> Vec<u8>;
    /// What the tag is over before the message.
    #[doc(hidden)]
    fn associated(parties: Parties<'_, Self::Identity>) -> Vec<u8>;
    /// The message with its tag, truncated as the protocol wants it.
    #[doc(hidden)]
    fn encode_tagged(message: Vec<u8>, tag: &[u8; 32]) -> Vec<u8>;
    /// A key exchange around a message with its tag.
    #[doc(hidden)]
    fn encode_exchange(exchange: &ExchangeHeader<Self>, tagged: Vec<u8>) -> Vec<u8>;
    #[doc(hidden)]
    fn decode(header: &MessageHeader) -> Result<Incoming<Self>, WireError>;

    #[doc(hidden)]
    fn seal(plaintext: &[u8]) -> Result<(KeyMaterial, Self::Payload), RandomError>;
    #[doc(hidden)]
    fn seal_empty() -> Result<(KeyMaterial, Self::Payload), RandomError>;
    #[doc(hidden)]
    fn open(material: &[u8], message: &Self::Message) -> Result<Option<Zeroizing<Vec<u8>>>, PayloadError>;
    /// Puts a message together. The headers are sorted by account.
    #[doc(hidden)]
    fn assemble(sid: DeviceId, headers: Vec<(&str, MessageHeader)>, payload: Self::Payload) -> Self::Message;
}
