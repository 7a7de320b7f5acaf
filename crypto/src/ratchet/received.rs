//! What is known of the peer's chains: the header of a message, the chain in use, and the chains that were.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{MAX_PAST_CHAINS, chain_key::ChainKey};
use crate::curve25519::PublicKey;

/// Where in its ratchet the sender was when it encrypted a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The sender's ratchet key, which names the chain.
    pub ratchet_key: PublicKey,
    /// How many messages the sender's previous chain had (`pn`).
    pub previous: u32,
    /// The number of the message in its chain, from 0 (`n`).
    pub counter: u32,
}

/// The chain that the peer sends with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ReceivingChain {
    pub(super) ratchet_key: PublicKey,
    pub(super) chain: ChainKey,
    /// Whether the chain was already reported as stale; that is due once per ratchet key.
    pub(super) stale: bool,
}

/// The ratchet keys of the chains that the peer has left, oldest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct PastChains(VecDeque<PublicKey>);

impl PastChains {
    pub(super) fn contains(&self, ratchet_key: &PublicKey) -> bool {
        self.0.contains(ratchet_key)
    }

    /// Remembers a chain. Gives the chain that had to be forgotten for it.
    pub(super) fn push(&mut self, ratchet_key: PublicKey) -> Option<PublicKey> {
        self.0.push_back(ratchet_key);
        if self.0.len() > MAX_PAST_CHAINS { self.0.pop_front() } else { None }
    }
}
