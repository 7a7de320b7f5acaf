//! HKDF and HMAC with SHA-256 (RFC 5869, RFC 2104), the two functions that every key below comes from.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, digest::Output};
use zeroize::Zeroizing;

/// Length in bytes of what SHA-256 and HMAC-SHA-256 give.
pub(crate) const HASH_LENGTH: usize = 32;

/// Length in bytes of a block of SHA-256, to which HMAC pads its key with zeros.
const BLOCK_LENGTH: usize = 64;

/// `N` bytes of HKDF-SHA-256.
pub(crate) fn hkdf_sha256<const N: usize>(salt: &[u8], input: &[u8], info: &[u8]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * HASH_LENGTH, "HKDF gives at most 255 blocks") };
    let mut output = Zeroizing::new([0; N]);
    // Fails only for more than 255 blocks, which does not compile.
    let _ = Hkdf::<Sha256>::new(Some(salt), input).expand(info, output.as_mut());
    output
}

/// HMAC-SHA-256 over the concatenation of `parts`.
pub(crate) fn hmac_sha256(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; HASH_LENGTH]> {
    let mut padded = Zeroizing::new([0; BLOCK_LENGTH]);
    if let Some(start) = padded.first_chunk_mut() {
        *start = *key;
    }
    let mut hmac = Hmac::<Sha256>::new((&*padded).into());
    for part in parts {
        hmac.update(part);
    }
    let output: Output<Sha256> = hmac.finalize().into_bytes();
    Zeroizing::new(output.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5869, appendix A.1.
    #[test]
    fn hkdf_known_answer() {
        let salt = hex::decode("000102030405060708090a0b0c").unwrap();
        let info = hex::decode("f0f1f2f3f4f5f6f7f8f9").unwrap();
        assert_eq!(
            hex::encode(hkdf_sha256::<42>(&salt, &[0x0B; 22], &info).as_slice()),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        );
    }

    /// RFC 4231, section 4.4, whose key of 20 bytes is padded with zeros here as HMAC itself would.
    #[test]
    fn hmac_known_answer() {
        let mut key = [0; 32];
        key[..20].fill(0xAA);
        assert_eq!(
            hex::encode(hmac_sha256(&key, &[&[0xDD; 25], &[0xDD; 25]]).as_slice()),
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"
        );
    }
}
