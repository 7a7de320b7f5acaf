//! OMEMO for clients: the cryptography, and nothing but the cryptography.
//!
//! The crate knows signatures, key agreement (X3DH), the Double Ratchet, and the two generations of OMEMO that are in
//! use: `urn:xmpp:omemo:2` (XEP-0384 0.9) and `eu.siacs.conversations.axolotl` (XEP-0384 0.3, "legacy"). It does no
//! I/O, knows no clock and no network: whoever uses it passes the time in and sends what comes out. Any OMEMO client
//! can be built on it. A server needs only [`signature`].
//!
//! # Layers
//!
//! | module | concept |
//! |---|---|
//! | [`curve25519`], [`identity`], [`xeddsa`] | keys, key agreement, and the two kinds of signature |
//! | [`signature`] | is this signed prekey really signed by that identity? |
//! | [`x3dh`], [`ratchet`] | the two protocols beneath OMEMO, with the names of a generation as parameters |
//! | [`omemo2`] | OMEMO 2: bundles, sessions, messages, and the [`omemo2::Device`] that ties them together |
//! | [`sce`] | the envelope of XEP-0420 that OMEMO 2 encrypts |
//!
//! # What always holds
//!
//! - Every Diffie-Hellman result is checked: a peer's low-order point ends in an error, never in a known secret.
//! - A message that cannot be decrypted changes nothing: no session moves and no one-time key is thrown away.
//! - Every parser is bounded in size and count before it allocates.
//! - Secrets are wiped from memory when dropped, compared in constant time, and absent from `Debug` output.
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
