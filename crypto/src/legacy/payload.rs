//! The payload: encrypted once for all with AES-128-GCM, under a key that each header carries (XEP-0384 0.3.0,
//! section 4.5).
//!
//! The header carries the key and then the tag of the payload. Clients from before that rule put the tag at the end of
//! the payload instead; their messages are read, but none are written in that way.

use aes_gcm::{
    AesGcm, KeyInit,
    aead::{
        AeadInOut,
        consts::{U12, U16},
    },
    aes::Aes128,
};
use zeroize::Zeroizing;

use crate::{
    message::{KeyMaterial, MAX_PLAINTEXT_LENGTH, PayloadError},
    random::{RandomError, random_bytes},
};

/// Length in bytes of the key (AES-128).
const KEY_LENGTH: usize = 16;

/// Length in bytes of the tag, which is not truncated.
const TAG_LENGTH: usize = 16;

/// Length in bytes of the initialisation vectors that are made here: the 12 for which GCM was designed (NIST SP 800-38D,
/// section 5.2.1.1) and to which all clients have gone over.
const IV_LENGTH: usize = 12;

/// Length in bytes of the initialisation vectors of older clients.
const OLD_IV_LENGTH: usize = 16;

/// Whether payloads can have an initialisation vector of so many bytes.
pub(super) const fn is_iv_length(length: usize) -> bool {
    matches!(length, IV_LENGTH | OLD_IV_LENGTH)
}

/// What a message has besides its headers.
pub struct Sealed {
    pub(super) iv: Vec<u8>,
    pub(super) payload: Option<Vec<u8>>,
}

/// Encrypts a payload under a fresh key.
pub(super) fn seal(plaintext: &[u8]) -> Result<(KeyMaterial, Sealed), RandomError> {
    let key = random_bytes::<KEY_LENGTH>()?;
    let iv = *random_bytes::<IV_LENGTH>()?;
    let mut payload = plaintext.to_vec();
    // Fails only beyond 64 GiB.
    let tag = AesGcm::<Aes128, U12>::new((&*key).into())
        .encrypt_inout_detached((&iv).into(), &[], payload.as_mut_slice().into())
        .map_err(|_| RandomError)?;
    let mut material = Vec::with_capacity(KEY_LENGTH.saturating_add(TAG_LENGTH));
    material.extend_from_slice(key.as_slice());
    material.extend_from_slice(&tag);
    Ok((KeyMaterial::new(material), Sealed { iv: iv.to_vec(), payload: Some(payload) }))
}

/// For a message without payload: a key that encrypts nothing ("KeyTransportElement", section 4.6).
pub(super) fn seal_empty() -> Result<(KeyMaterial, Sealed), RandomError> {
    let key = random_bytes::<KEY_LENGTH>()?;
    let iv = random_bytes::<IV_LENGTH>()?;
    Ok((KeyMaterial::new(key.to_vec()), Sealed { iv: iv.to_vec(), payload: None }))
}

/// Decrypts a payload with what came through the session. Without a payload the message is an empty one, and what came
/// through the session has done its work by moving it.
pub(super) fn open(
    material: &[u8],
    iv: &[u8],
    payload: Option<&[u8]>,
) -> Result<Option<Zeroizing<Vec<u8>>>, PayloadError> {
    let Some(payload) = payload else { return Ok(None) };
    if payload.len() > MAX_PLAINTEXT_LENGTH.saturating_add(TAG_LENGTH) {
        return Err(PayloadError::TooLong);
    }
    let (key, rest) = material.split_first_chunk::<KEY_LENGTH>().ok_or(PayloadError::KeyMaterial(material.len()))?;
    let (ciphertext, tag) = match <&[u8; TAG_LENGTH]>::try_from(rest) {
        Ok(tag) => (payload, tag),
        Err(_) if rest.is_empty() => payload.split_last_chunk().ok_or(PayloadError::Forged)?,
        Err(_) => return Err(PayloadError::KeyMaterial(material.len())),
    };
    let mut plaintext = Zeroizing::new(ciphertext.to_vec());
    let buffer = plaintext.as_mut_slice().into();
    let (tag, key) = (tag.into(), key.into());
    if let Ok(iv) = <&[u8; IV_LENGTH]>::try_from(iv) {
        AesGcm::<Aes128, U12>::new(key).decrypt_inout_detached(iv.into(), &[], buffer, tag)
    } else if let Ok(iv) = <&[u8; OLD_IV_LENGTH]>::try_from(iv) {
        AesGcm::<Aes128, U16>::new(key).decrypt_inout_detached(iv.into(), &[], buffer, tag)
    } else {
        return Err(PayloadError::Forged);
    }
    .map_err(|_| PayloadError::Forged)?;
    Ok(Some(plaintext))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_what_was_sealed() {
        let (material, sealed) = seal(b"secret").unwrap();
        let payload = sealed.payload.unwrap();
        assert_eq!((material.as_slice().len(), sealed.iv.len(), payload.len()), (32, 12, 6));
        let open_with = |iv: &[u8], payload: &[u8]| open(material.as_slice(), iv, Some(payload));
        assert_eq!(open_with(&sealed.iv, &payload).unwrap().unwrap().as_slice(), b"secret");
        assert_eq!(open_with(&sealed.iv, b"others").unwrap_err(), PayloadError::Forged);
        assert_eq!(open_with(&[0; 12], &payload).unwrap_err(), PayloadError::Forged);
        assert_eq!(open_with(&[0; 13], &payload).unwrap_err(), PayloadError::Forged);
        for length in [0, 15, 17, 31, 33] {
            let mut cut = material.as_slice().to_vec();
            cut.resize(length, 0);
            assert_eq!(open(&cut, &sealed.iv, Some(&payload)).unwrap_err(), PayloadError::KeyMaterial(length));
        }
    }

    #[test]
    fn the_tag_may_be_in_the_payload() {
        let (material, sealed) = seal(b"secret").unwrap();
        let (key, tag) = material.as_slice().split_at(16);
        let payload = [sealed.payload.unwrap().as_slice(), tag].concat();
        assert_eq!(open(key, &sealed.iv, Some(&payload)).unwrap().unwrap().as_slice(), b"secret");
        assert_eq!(open(key, &sealed.iv, Some(&payload[..15])).unwrap_err(), PayloadError::Forged);
    }

    /// The IV of 16 bytes is not used as it is, but hashed into a counter (NIST SP 800-38D, section 7.1). Made with
    /// Python's `cryptography`: key 00..0f, IV 10..1f.
    #[test]
    fn known_answer_with_an_old_iv() {
        let material: Vec<u8> = (0..16).chain(hex::decode("385632a9e51c16c174cfb0af8c6f5354").unwrap()).collect();
        let iv: Vec<u8> = (16..32).collect();
        let payload = hex::decode("87eb83960edd42fcf7").unwrap();
        assert_eq!(open(&material, &iv, Some(&payload)).unwrap().unwrap().as_slice(), b"But soft!");
    }

    #[test]
    fn empty_messages_have_no_payload() {
        let (material, sealed) = seal_empty().unwrap();
        assert!(sealed.payload.is_none());
        assert!(open(material.as_slice(), &sealed.iv, None).unwrap().is_none());
        assert!(open(&[], &[], None).unwrap().is_none());
    }
}
