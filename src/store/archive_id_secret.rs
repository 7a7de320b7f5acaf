//! The secret behind archive ids: made once per deployment, kept in the database.

use super::StoreError;

/// Where it stands in `meta`.
pub(super) const KEY: &str = "archive-id-secret";

/// A new one, in case there is none yet.
pub(super) fn fresh() -> Result<[u8; 32], StoreError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|_| StoreError::Random)?;
    Ok(secret)
}

/// The stored one.
pub(super) fn parse(stored: &[u8]) -> Result<[u8; 32], StoreError> {
    stored.try_into().map_err(|_| StoreError::Corrupt("archive id secret"))
}
