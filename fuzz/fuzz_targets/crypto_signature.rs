//! Keys and signatures from strangers, of any length and content. A signature that is accepted is for one message only.
#![no_main]

use libfuzzer_sys::fuzz_target;
use multiend_crypto::signature::{SignatureError, verify_legacy_signature, verify_omemo2_signature};

fuzz_target!(|input: &[u8]| {
    // The lengths of the two keys, the keys, and the rest is the signature.
    let [first, second, rest @ ..] = input else { return };
    let Some((identity, rest)) = rest.split_at_checked(usize::from(*first)) else { return };
    let Some((prekey, signature)) = rest.split_at_checked(usize::from(*second)) else { return };
    for verify in [verify_omemo2_signature, verify_legacy_signature] {
        let verify: fn(&[u8], &[u8], &[u8]) -> Result<(), SignatureError> = verify;
        if verify(identity, prekey, signature).is_ok() {
            let mut other = prekey.to_vec();
            other[1] ^= 1;
            assert!(verify(identity, &other, signature).is_err());
        }
    }
});
