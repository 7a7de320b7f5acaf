#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod address;
pub mod bundle;
mod cbc_hmac;
pub mod curve25519;
pub mod device;
pub mod error;
pub mod generation;
pub mod identity;
mod kdf;
pub mod keeper;
pub mod legacy;
pub mod message;
pub mod omemo2;
pub mod protocol;
pub mod random;
pub mod ratchet;
pub mod sce;
pub mod secret;
pub mod signature;
mod wire;
pub mod x3dh;
pub mod xeddsa;
pub mod xml;
