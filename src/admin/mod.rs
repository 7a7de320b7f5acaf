//! Long-running work: purging what has expired, forgetting what is over.

pub mod forget_claims;
pub mod purge;
