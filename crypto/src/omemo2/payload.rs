//! The payload: encrypted once for all, under a key that each header carries (XEP-0384, "Message Encryption").

use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    cbc_hmac::CipherKeys,
    random::{RandomError, random_bytes},
    secret::Secret32,
};

/// The largest plaintext in bytes that is encrypted, and the largest payload that is decrypted: 1 MiB, several times
/// what servers let through in one stanza.
pub const MAX_PLAINTEXT_LENGTH: usize = 1024 * 1024;

/// HKDF `info` for the keys of a payload.
const PAYLOAD_INFO: &[u8] = b"OMEMO Payload";

/// Length in bytes of the truncated HMAC over a payload.
const TAG_LENGTH: usize = 16;

/// Length in bytes of what a header carries: the key of the payload and its tag.
const KEY_MATERIAL_LENGTH: usize = 48;

/// What the headers of an empty message carry instead (XEP-0384, "Message structure description").
const EMPTY_KEY_MATERIAL: [u8; 32] = [0; 32];

/// What goes through the sessions: the key of the payload and its tag, or the mark of an empty message.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct KeyMaterial(Vec<u8>);

impl KeyMaterial {
    /// For a message without payload.
    pub(super) fn empty() -> Self {
        Self(EMPTY_KEY_MATERIAL.to_vec())
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// A payload and what came through the session do not belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum PayloadError {
    /// What came through the session is no key and tag.
    #[error("the key material has {0} bytes")]
    KeyMaterial(usize),
    /// The payload is not the one that the key was made for.
    #[error("the payload is not what the sender encrypted")]
    Forged,
}

/// Encrypts a payload under a fresh key.
pub(super) fn seal(plaintext: &[u8]) -> Result<(KeyMaterial, Vec<u8>), RandomError> {
    let key = Secret32::new(*random_bytes::<32>()?);
    let keys = CipherKeys::derive(key.expose(), PAYLOAD_INFO);
    let ciphertext = keys.encrypt(plaintext);
    let tag = keys.tag(&[&ciphertext]);

    let mut material = Vec::with_capacity(KEY_MATERIAL_LENGTH);
    material.extend_from_slice(key.expose());
    material.extend(tag.iter().take(TAG_LENGTH));
    Ok((KeyMaterial(material), ciphertext))
}

/// Decrypts a payload with what came through the session. Without a payload the message is an empty one, and what came
/// through the session has done its work by moving it.
pub(super) fn open(material: &[u8], payload: Option<&[u8]>) -> Result<Option<Zeroizing<Vec<u8>>>, PayloadError> {
    let (key, tag) = match (material.len(), material.split_first_chunk::<32>()) {
        (32, _) if payload.is_none() => return Ok(None),
        (KEY_MATERIAL_LENGTH, Some((key, tag))) => (key, tag),
        (length, _) => return Err(PayloadError::KeyMaterial(length)),
    };
    let Some(ciphertext) = payload else { return Ok(None) };
    let tag = <[u8; TAG_LENGTH]>::try_from(tag).map_err(|_| PayloadError::Forged)?;
    CipherKeys::derive(key, PAYLOAD_INFO)
        .open(ciphertext, &[ciphertext], &tag)
        .map(Some)
        .map_err(|_| PayloadError::Forged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_what_was_sealed() {
        let (material, ciphertext) = seal(b"secret").unwrap();
        assert_eq!(material.as_slice().len(), 48);
        assert_eq!(open(material.as_slice(), Some(&ciphertext)).unwrap().unwrap().as_slice(), b"secret");
        assert_eq!(open(material.as_slice(), Some(b"other")).unwrap_err(), PayloadError::Forged);
        assert_eq!(open(&material.as_slice()[..47], Some(&ciphertext)).unwrap_err(), PayloadError::KeyMaterial(47));
    }

    #[test]
    fn empty_messages_have_no_payload() {
        assert!(open(KeyMaterial::empty().as_slice(), None).unwrap().is_none());
        assert_eq!(open(&[0; 32], Some(b"x")).unwrap_err(), PayloadError::KeyMaterial(32));
    }
}
