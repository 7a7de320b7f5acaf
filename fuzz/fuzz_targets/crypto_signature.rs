//! Keys and signatures from strangers, of any length and content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use multiend_crypto::signature::{verify_legacy_signature, verify_omemo2_signature};

fuzz_target!(|parts: (Vec<u8>, Vec<u8>, Vec<u8>)| {
    let (identity, prekey, signature) = parts;
    let _ = verify_omemo2_signature(&identity, &prekey, &signature);
    let _ = verify_legacy_signature(&identity, &prekey, &signature);
});
