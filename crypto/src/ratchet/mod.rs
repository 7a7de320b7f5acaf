//! The Double Ratchet (signal.org/docs/specifications/doubleratchet; XEP-0384, "Double Ratchet").
//!
//! A ratchet yields message keys; what is encrypted with them, and how it looks on the wire, is decided above. That is
//! also why receiving takes two steps: [`Ratchet::advance`] says what a header would lead to and changes nothing, and
//! [`Ratchet::commit`] makes it so, once the message has proved genuine. A forged message therefore costs time, never
//! state.

mod chain_key;
mod received;
mod root_key;
mod skipped;
mod state;

pub use received::Header;
pub use state::{Advance, Progress, Ratchet};

use thiserror::Error;

use crate::{curve25519::NonContributory, random::RandomError};

/// How many superseded chains of the peer a session remembers, in order to tell a repeated message from a forged one.
/// A chain is superseded when the conversation changes direction, so this spans 64 turns. Skipped keys of a chain go
/// when it is forgotten: the deterministic event on which the XEP wants old skipped keys discarded.
pub const MAX_PAST_CHAINS: usize = 64;

/// From this counter on a chain is stale, and its receiver owes a heartbeat (XEP-0384, "Business Rules").
pub const STALE_COUNTER: u32 = 53;

/// Why the ratchet gave no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RatchetError {
    /// The message's key was already used, or discarded as too old.
    #[error("the message was received before, or is too old")]
    Duplicate,
    /// The counter is so far ahead (see [`Generation::MAX_SKIP`](crate::generation::Generation::MAX_SKIP)) that deriving the keys between would be an attack on this device.
    #[error("the message skips {skipped} others, which is too many")]
    CounterJump {
        /// How many keys would have been skipped.
        skipped: u32,
    },
    /// The peer's ratchet key forces a known secret.
    #[error(transparent)]
    NonContributory(#[from] NonContributory),
    /// Nothing was received yet on a ratchet that the peer started, so that there is no key to send with.
    #[error("nothing was received yet, so nothing can be sent")]
    NothingReceived,
    /// The sending chain has no counter left; only a new session helps.
    #[error("the sending chain is exhausted")]
    Exhausted,
    /// There is no randomness for a new ratchet key.
    #[error(transparent)]
    Random(#[from] RandomError),
}
