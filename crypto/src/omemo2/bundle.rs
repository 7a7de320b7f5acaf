//! The `<bundle/>` element: the public keys with which others start a session (XEP-0384, "Bundles").

use thiserror::Error;

use super::{NAMESPACE, address::KeyId};
use crate::{
    curve25519::{KEY_LENGTH, KeyError, PublicKey},
    identity::{IdentityKey, SIGNATURE_LENGTH},
    signature::SignatureError,
    xml::{Element, Limits, XmlError, encode_base64},
};

/// The largest bundle in bytes of XML: [`MAX_PREKEYS`] prekeys take about 80 bytes each.
pub const MAX_BUNDLE_LENGTH: usize = 128 * 1024;

/// How many prekeys a bundle may have. The XEP wants about 100.
pub const MAX_PREKEYS: usize = 1000;

/// A bundle, as published or as fetched. Its signature is checked by [`Bundle::verify`], not by reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The identity key, in Ed25519 form.
    pub identity: IdentityKey,
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
    /// The identity's Ed25519 signature over the 32 bytes of the key.
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
    /// It has no prekey, without which the XEP forbids to start a session.
    #[error("the bundle has no prekey")]
    NoPrekey,
}

impl Bundle {
    /// Checks that the signed prekey is the identity's.
    ///
    /// # Errors
    /// [`BundleError::Signature`].
    pub fn verify(&self) -> Result<(), BundleError> {
        Ok(self.identity.verify(self.signed_prekey.key.as_bytes(), &self.signed_prekey.signature)?)
    }

    /// The element as XML, to be put into a pubsub `<item/>` as it is.
    #[must_use]
    pub fn to_xml(&self) -> String {
        let SignedPrekey { id, key, signature } = &self.signed_prekey;
        let mut xml = format!(
            "<bundle xmlns='{NAMESPACE}'><spk id='{id}'>{}</spk><spks>{}</spks><ik>{}</ik><prekeys>",
            encode_base64(key.as_bytes()),
            encode_base64(signature),
            encode_base64(self.identity.as_bytes()),
        );
        for Prekey { id, key } in &self.prekeys {
            xml.push_str(&format!("<pk id='{id}'>{}</pk>", encode_base64(key.as_bytes())));
        }
        xml.push_str("</prekeys></bundle>");
        xml
    }

    /// Reads the element. An empty or missing `<prekeys/>` is read as no prekeys.
    ///
    /// # Errors
    /// [`BundleError`] when it is not a `<bundle/>` of this namespace, beyond the limits above, or a key is unusable.
    pub fn from_xml(xml: &str) -> Result<Self, BundleError> {
        let limits = Limits { bytes: MAX_BUNDLE_LENGTH, elements: MAX_PREKEYS.saturating_add(16), depth: 8 };
        let bundle = Element::parse(xml, limits)?.expect("bundle", NAMESPACE)?;
        let spk = bundle.child("spk")?;
        let signature = bundle.child("spks")?.base64("spks", SIGNATURE_LENGTH)?;
        let identity = bundle.child("ik")?.base64("ik", KEY_LENGTH)?;
        let prekeys = match bundle.all("prekeys").next() {
            Some(prekeys) => prekeys.all("pk").map(Prekey::from_element).collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        Ok(Self {
            identity: IdentityKey::from_slice(&identity).map_err(|error| BundleError::Key { element: "ik", error })?,
            signed_prekey: SignedPrekey {
                id: spk.id("id")?,
                key: public_key("spk", spk)?,
                signature: signature.try_into().map_err(|_| XmlError::Content("spks"))?,
            },
            prekeys,
        })
    }
}

impl Prekey {
    fn from_element(pk: &Element) -> Result<Self, BundleError> {
        Ok(Self { id: pk.id("id")?, key: public_key("pk", pk)? })
    }
}

fn public_key(element: &'static str, holder: &Element) -> Result<PublicKey, BundleError> {
    PublicKey::from_slice(&holder.base64(element, KEY_LENGTH)?).map_err(|error| BundleError::Key { element, error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{curve25519::SecretKey, identity::IdentityKeyPair};

    fn bundle() -> Bundle {
        let identity = IdentityKeyPair::from_seed(&[1; 32]);
        let key = SecretKey::from_bytes([2; 32]).public_key();
        let prekey =
            |id| Prekey { id: KeyId::new(u32::from(id)).unwrap(), key: SecretKey::from_bytes([id; 32]).public_key() };
        Bundle {
            identity: identity.public_key(),
            signed_prekey: SignedPrekey { id: KeyId::new(1).unwrap(), key, signature: identity.sign(key.as_bytes()) },
            prekeys: (1..=100).map(prekey).collect(),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let bundle = bundle();
        let read = Bundle::from_xml(&bundle.to_xml()).unwrap();
        assert_eq!(read, bundle);
        assert_eq!(read.verify(), Ok(()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let xml = bundle().to_xml();
        let with = |from: &str, to: &str| Bundle::from_xml(&xml.replace(from, to)).unwrap_err();
        let zero = encode_base64(&[0; 32]);
        let key = encode_base64(bundle().prekeys[4].key.as_bytes());
        assert_eq!(with(&key, &zero), BundleError::Key { element: "pk", error: KeyError::LowOrder });
        assert_eq!(with("<pk id='5'>", "<pk id='0'>"), BundleError::Xml(XmlError::Attribute("id")));
        assert_eq!(with("ik>", "key>"), BundleError::Xml(XmlError::Missing("ik")));

        let mut forged = bundle();
        forged.signed_prekey.key = SecretKey::from_bytes([3; 32]).public_key();
        assert_eq!(forged.verify(), Err(BundleError::Signature(SignatureError::Mismatch)));
    }
}
