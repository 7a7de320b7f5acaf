//! Which messages have been received: the same one may come live, as a carbon, from the archive, and again after a
//! restart of the other side.
//!
//! The ratchet tells a duplicate by itself as long as it remembers the chain; this memory goes back as far as the
//! archive may be read again.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// How many messages are remembered at most.
const CAPACITY: usize = 2_048;
/// How many are remembered once everything before has been read from the archive: those that could still come twice.
const AFTER_CATCH_UP: usize = 256;
/// The bytes of a digest that are kept.
const DIGEST: usize = 16;

/// Digests of received messages, oldest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "VecDeque<String>", into = "VecDeque<String>")]
pub(crate) struct Seen {
    order: VecDeque<String>,
    digests: BTreeSet<String>,
    inserted: u64,
}

impl Seen {
    /// The digest of a message: of the header that carries its key for this device, under the sender's address.
    pub(crate) fn digest(sender: &str, device: u32, header: &[u8]) -> String {
        let mut hash = Sha256::new();
        hash.update(sender.as_bytes());
        hash.update([0]);
        hash.update(device.to_be_bytes());
        hash.update(header);
        hex::encode(hash.finalize().iter().copied().take(DIGEST).collect::<Vec<u8>>())
    }

    /// Whether it was received before.
    pub(crate) fn contains(&self, digest: &str) -> bool {
        self.digests.contains(digest)
    }

    /// Remembers a message.
    pub(crate) fn insert(&mut self, digest: String) {
        if self.digests.insert(digest.clone()) {
            self.order.push_back(digest);
            self.inserted = self.inserted.saturating_add(1);
            if self.order.len() > CAPACITY {
                self.forget_oldest();
            }
        }
    }

    /// Marks the present, for [`Seen::caught_up`].
    pub(crate) fn mark(&self) -> u64 {
        self.inserted
    }

    /// The archive has been read to the end that it had at `mark` or later: what was received before cannot come from
    /// it again.
    pub(crate) fn caught_up(&mut self, mark: u64) {
        while self.order.len() > AFTER_CATCH_UP && self.forgotten() < mark {
            self.forget_oldest();
        }
    }

    /// Whether the archive should be read before more is received, so that nothing is forgotten that it may bring.
    pub(crate) fn is_filling(&self) -> bool {
        self.order.len() >= CAPACITY / 2
    }

    /// How many of those inserted are forgotten.
    fn forgotten(&self) -> u64 {
        self.inserted.saturating_sub(self.order.len() as u64)
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.order.pop_front() {
            self.digests.remove(&oldest);
        }
    }
}

impl From<VecDeque<String>> for Seen {
    fn from(order: VecDeque<String>) -> Self {
        let digests = order.iter().cloned().collect();
        let inserted = order.len() as u64;
        Self { order, digests, inserted }
    }
}

impl From<Seen> for VecDeque<String> {
    fn from(seen: Seen) -> Self {
        seen.order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_during_a_catch_up_is_remembered_and_what_came_before_is_not() {
        let mut seen = Seen::default();
        let digest = |number: u32| Seen::digest("bob@example.org", 1, &number.to_be_bytes());
        (0..1_000).for_each(|number| seen.insert(digest(number)));
        let mark = seen.mark();
        (1_000..1_400).for_each(|number| seen.insert(digest(number)));
        seen.caught_up(mark);
        assert!(!seen.contains(&digest(999)));
        assert!((1_000..1_400).all(|number| seen.contains(&digest(number))));
        seen.caught_up(seen.mark());
        assert!(!seen.contains(&digest(1_000)), "the archive has been read past it");
        assert!(seen.contains(&digest(1_399)), "a resend may still come");
    }
}
