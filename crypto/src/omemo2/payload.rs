//! The payload: encrypted once for all, under a key that each header carries (XEP-0384, "Message Encryption").

use zeroize::Zeroizing;

use crate::{
    cbc_hmac::CipherKeys,
    message::{KeyMaterial, MAX_PLAINTEXT_LENGTH, PayloadError},
    random::{RandomError, random_bytes},
    secret::Secret32,
};

/// HKDF `info` for the keys of a payload.
const PAYLOAD_INFO: &[u8] = b"OMEMO Payload";

/// Length in bytes of the truncated HMAC over a payload.
const TAG_LENGTH: usize = 16;

/// Length in bytes of what a header carries: the key of the payload and its tag.
const KEY_MATERIAL_LENGTH: usize = 48;

/// What the headers of an empty message carry instead (XEP-0384, "Message structure description").
const EMPTY_KEY_MATERIAL: [u8; 32] = [0; 32];

/// For a message without payload.
pub(super) fn seal_empty() -> KeyMaterial {
    KeyMaterial::new(EMPTY_KEY_MATERIAL.to_vec())
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
    Ok((KeyMaterial::new(material), ciphertext))
}

/// Decrypts a payload with what came through the session. Without a payload the message is an empty one, and what came
/// through the session has done its work by moving it.
pub(super) fn open(material: &[u8], payload: Option<&[u8]>) -> Result<Option<Zeroizing<Vec<u8>>>, PayloadError> {
    // Padding adds up to one block.
    if payload.is_some_and(|payload| payload.len() > MAX_PLAINTEXT_LENGTH.saturating_add(16)) {
        return Err(PayloadError::TooLong);
    }
    let (key, tag) = match (material.len(), material.split_first_chunk::<32>()) {
        (32, _) if payload.is_none() => return Ok(None),
        (KEY_MATERIAL_LENGTH, Some((key, tag))) => (key, tag),
        (length, _) => return Err(PayloadError::KeyMaterial(length)),
    };
    let Some(ciphertext) = payload else { return Ok(None) };
    CipherKeys::derive(key, PAYLOAD_INFO)
        .open(ciphertext, &[ciphertext], tag)
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
        assert!(open(seal_empty().as_slice(), None).unwrap().is_none());
        assert_eq!(open(&[0; 32], Some(b"x")).unwrap_err(), PayloadError::KeyMaterial(32));
    }
}
