//! The keys of messages that have not come yet, though later ones have.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{curve25519::PublicKey, secret::Secret32};

/// The key of one message that was skipped.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SkippedKey {
    pub(super) ratchet_key: PublicKey,
    pub(super) counter: u32,
    pub(super) key: Secret32,
}

/// Skipped keys, oldest first. The oldest makes way for the newest, as the XEP wants it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct SkippedKeys(VecDeque<SkippedKey>);

impl SkippedKeys {
    pub(super) fn find(&self, ratchet_key: &PublicKey, counter: u32) -> Option<&SkippedKey> {
        self.0.iter().find(|skipped| skipped.counter == counter && skipped.ratchet_key == *ratchet_key)
    }

    pub(super) fn remove(&mut self, ratchet_key: &PublicKey, counter: u32) {
        self.0.retain(|skipped| skipped.counter != counter || skipped.ratchet_key != *ratchet_key);
    }

    pub(super) fn extend(&mut self, skipped: Vec<SkippedKey>, limit: u32) {
        self.0.extend(skipped);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let surplus = self.0.len().saturating_sub(limit);
        self.0.drain(..surplus);
    }

    pub(super) fn forget_chain(&mut self, ratchet_key: &PublicKey) {
        self.0.retain(|skipped| skipped.ratchet_key != *ratchet_key);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
