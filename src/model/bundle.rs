//! Bundles: identity key, signed prekey with signature, one-time prekeys (XEP-0384 §5.3.2; legacy: XEP-0384 0.3).

use bytes::Bytes;

use super::device::{PrekeyId, Protocol};

/// Most one-time prekeys accepted in one bundle. Clients publish 100; libsignal's servers accept 200.
pub const MAX_PREKEYS: usize = 250;
/// Length of a signature, in both protocols.
const SIGNATURE_LENGTH: usize = 64;

/// What is wrong with a bundle before any signature is looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleShapeError {
    /// A key has the wrong length or, in the legacy protocol, lacks the type byte 0x05.
    #[error("the {0} is not a public key of this protocol")]
    Key(&'static str),
    /// A signature that is not 64 bytes long.
    #[error("the signature of the signed prekey must be 64 bytes long")]
    Signature,
    /// Two prekeys share an id.
    #[error("prekey id {0} stands twice")]
    DuplicateId(PrekeyId),
    /// Two prekeys share a key.
    #[error("prekeys {0} and {1} have the same key")]
    DuplicateKey(PrekeyId, PrekeyId),
    /// No prekey at all.
    #[error("a bundle needs at least one one-time prekey")]
    NoPrekeys,
    /// More than a bundle may hold.
    #[error("a bundle may hold at most {MAX_PREKEYS} one-time prekeys")]
    TooManyPrekeys,
}

/// A signed prekey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPrekey {
    /// Its id; 0 is in use among legacy clients, so any 31-bit number is taken.
    pub id: u32,
    /// The public key in the protocol's own wire form.
    pub key: Vec<u8>,
    /// The signature by the identity key: 64 bytes.
    pub signature: Vec<u8>,
}

/// A one-time prekey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prekey {
    /// Its id.
    pub id: PrekeyId,
    /// The public key in the protocol's own wire form: 32 bytes for `omemo2`, 33 with a leading 0x05 for `legacy`.
    pub key: Vec<u8>,
}

/// A device's public keys, of the right shape for the protocol. The signature is not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The identity key in wire form: Ed25519 for `omemo2`, Curve25519 with 0x05 for `legacy`.
    pub identity_key: Vec<u8>,
    /// The signed prekey.
    pub signed_prekey: SignedPrekey,
    /// The one-time prekeys in the order published.
    pub prekeys: Vec<Prekey>,
}

impl Bundle {
    /// Checks lengths, type bytes, counts and uniqueness.
    pub fn check_shape(&self, protocol: Protocol) -> Result<(), BundleShapeError> {
        let is_key = |key: &[u8]| match protocol {
            Protocol::Omemo2 => key.len() == 32,
            Protocol::Legacy => key.len() == 33 && key.first() == Some(&5),
        };
        if !is_key(&self.identity_key) {
            return Err(BundleShapeError::Key("identity key"));
        }
        if !is_key(&self.signed_prekey.key) {
            return Err(BundleShapeError::Key("signed prekey"));
        }
        if self.signed_prekey.signature.len() != SIGNATURE_LENGTH {
            return Err(BundleShapeError::Signature);
        }
        if self.prekeys.is_empty() {
            return Err(BundleShapeError::NoPrekeys);
        }
        if self.prekeys.len() > MAX_PREKEYS {
            return Err(BundleShapeError::TooManyPrekeys);
        }
        let mut ids = std::collections::BTreeSet::new();
        let mut keys = std::collections::BTreeMap::new();
        for prekey in &self.prekeys {
            if !is_key(&prekey.key) {
                return Err(BundleShapeError::Key("one-time prekey"));
            }
            if !ids.insert(prekey.id) {
                return Err(BundleShapeError::DuplicateId(prekey.id));
            }
            if let Some(other) = keys.insert(prekey.key.as_slice(), prekey.id) {
                return Err(BundleShapeError::DuplicateKey(other, prekey.id));
            }
        }
        Ok(())
    }
}

/// A bundle as its device published it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedBundle {
    /// The keys.
    pub bundle: Bundle,
    /// The pubsub item id that it was published under.
    pub item_id: String,
    /// The `<bundle/>` element, byte for byte, with its own namespace declaration: what the owner gets back.
    pub payload: Bytes,
}
