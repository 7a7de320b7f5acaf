//! The two generations of OMEMO, as far as key agreement and ratchet differ between them: in names and bounds.
//!
//! The names go into HKDF as `info`, so that keys of one generation can never serve in the other. Making the generation
//! a type parameter keeps sessions of the two apart at compile time.

use core::fmt;

/// The HKDF `info` strings of one generation.
pub trait Generation: fmt::Debug + Clone + Copy + PartialEq + Eq + Send + Sync + 'static {
    /// For the secret that X3DH agrees on.
    const X3DH_INFO: &'static [u8];
    /// For a step of the root chain.
    const ROOT_INFO: &'static [u8];
    /// For the keys that encrypt one ratchet message.
    const MESSAGE_INFO: &'static [u8];
    /// How many message keys one message may skip in a chain, and how many skipped keys a session keeps.
    const MAX_SKIP: u32;
    /// By how much `pn` may be smaller than the number of messages that the previous chain had.
    const PREVIOUS_SHORTFALL: u32;
}

/// `urn:xmpp:omemo:2` (XEP-0384, "Key Exchange" and "Double Ratchet").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Omemo2 {}

impl Generation for Omemo2 {
    const X3DH_INFO: &'static [u8] = b"OMEMO X3DH";
    const ROOT_INFO: &'static [u8] = b"OMEMO Root Chain";
    const MESSAGE_INFO: &'static [u8] = b"OMEMO Message Key Material";
    /// The 1000 that XEP-0384, "Double Ratchet", recommends for both.
    const MAX_SKIP: u32 = 1000;
    const PREVIOUS_SHORTFALL: u32 = 0;
}

/// `eu.siacs.conversations.axolotl` (XEP-0384 0.3, which leaves them to libsignal's protocol version 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Legacy {}

impl Generation for Legacy {
    const X3DH_INFO: &'static [u8] = b"WhisperText";
    const ROOT_INFO: &'static [u8] = b"WhisperRatchet";
    const MESSAGE_INFO: &'static [u8] = b"WhisperMessageKeys";
    /// The 2000 of libsignal, for both.
    const MAX_SKIP: u32 = 2000;
    /// libsignal sends the counter of the last message of the chain rather than their number, and never reads it.
    const PREVIOUS_SHORTFALL: u32 = 1;
}
