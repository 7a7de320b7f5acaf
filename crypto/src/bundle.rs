//! A bundle: the public keys with which others start a session. How it looks as XML is the protocol's to say.

use thiserror::Error;

use crate::{
    address::KeyId,
    curve25519::{KeyError, PublicKey},
    identity::SIGNATURE_LENGTH,
    protocol::Protocol,
    signature::SignatureError,
    xml::{Element, XmlError},
};

/// The largest bundle in bytes of XML: [`MAX_PREKEYS`] prekeys take about 90 bytes each.
pub const MAX_BUNDLE_LENGTH: usize = 128 * 1024;

/// How many prekeys a bundle may have. XEP-0384 wants about 100.
pub const MAX_PREKEYS: usize = 1000;

/// A bundle, as published or as fetched. Its signature is checked by [`Bundle::verify`], not by reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle<P: Protocol> {
    /// The identity key, in the form that the protocol transfers.
    pub identity: P::Identity,
    /// The signed prekey.
    pub signed_prekey: SignedPrekey,
    /// The one-time prekeys. A server that hands each out once gives one of them.
    pub prekeys: Vec<Prekey>,
}

/// A signed prekey with its signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedPrekey {
    /// The number by which a key exchange names it.
    pub id: KeyId,
    /// The key.
    pub key: PublicKey,
    /// The identity's signature: in OMEMO 2 Ed25519 over the 32 bytes of the key, in legacy XEdDSA over its 33 bytes.
    pub signature: [u8; SIGNATURE_LENGTH],
}

/// A one-time prekey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prekey {
    /// The number by which a key exchange names it.
    pub id: KeyId,
    /// The key.
    pub key: PublicKey,
}

/// A bundle is of no use.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BundleError {
    /// It is no bundle of this namespace.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// A key in it is unusable.
    #[error("the key in {element} is unusable: {error}")]
    Key {
        /// The element that holds the key.
        element: &'static str,
        /// What is wrong with it.
        error: KeyError,
    },
    /// The signed prekey was not signed by the identity.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It has no prekey, without which XEP-0384 forbids to start a session.
    #[error("the bundle has no prekey")]
    NoPrekey,
}

impl<P: Protocol> Bundle<P> {
    /// Checks that the signed prekey is the identity's.
    ///
    /// # Errors
    /// [`BundleError::Signature`].
    pub fn verify(&self) -> Result<(), BundleError> {
        Ok(P::verify_prekey(&self.identity, &self.signed_prekey.key, &self.signed_prekey.signature)?)
    }

    /// The element as XML, to be put into a pubsub `<item/>` as it is.
    #[must_use]
    pub fn to_xml(&self) -> String {
        P::write_bundle(self)
    }

    /// Reads the element. An empty or missing `<prekeys/>` is read as no prekeys.
    ///
    /// # Errors
    /// [`BundleError`] when it is not a `<bundle/>` of this namespace, beyond the limits above, or a key is unusable.
    pub fn from_xml(xml: &str) -> Result<Self, BundleError> {
        P::read_bundle(xml)
    }
}

/// The public key that an element of a bundle holds, in the encoding of a protocol.
pub(crate) fn key_in<P: Protocol>(name: &'static str, holder: &Element) -> Result<PublicKey, BundleError> {
    P::decode_key(&holder.base64(name, MAX_KEY_LENGTH)?).map_err(|error| BundleError::Key { element: name, error })
}

/// The signature that an element of a bundle holds.
pub(crate) fn signature_in(name: &'static str, holder: &Element) -> Result<[u8; SIGNATURE_LENGTH], BundleError> {
    let signature = holder.base64(name, SIGNATURE_LENGTH)?;
    signature.try_into().map_err(|_| XmlError::Content(name).into())
}

/// The longest encoding of a key in either protocol.
pub(crate) const MAX_KEY_LENGTH: usize = 33;
