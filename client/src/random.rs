//! Random identifiers.

/// A fresh id of 128 random bits in hex, for stanzas and queries. Where the operating system has no randomness to give,
/// an id from the clock: ids need to differ, not to be secret.
pub(crate) fn id() -> String {
    let mut bytes = [0_u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        bytes = since.as_nanos().to_be_bytes();
    }
    hex::encode(bytes)
}
