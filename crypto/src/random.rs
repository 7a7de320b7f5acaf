//! Randomness from the operating system, the only source that this crate uses.

use thiserror::Error;
use zeroize::Zeroizing;

/// The operating system gave no random bytes. Nothing was changed; trying again later is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the operating system gave no random bytes")]
pub struct RandomError;

/// Returns `N` bytes that nobody can predict.
///
/// # Errors
/// [`RandomError`] when the operating system has none to give.
pub fn random_bytes<const N: usize>() -> Result<Zeroizing<[u8; N]>, RandomError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut()).map_err(|_| RandomError)?;
    Ok(bytes)
}
