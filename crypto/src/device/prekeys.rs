//! The private halves of what a bundle publishes, and when they may go.
//!
//! A one-time prekey is used up by the first message that was *decrypted* with it; a message that only claims to use it
//! changes nothing. During a catch-up it leaves the bundle, but its private key stays, because another sender may have
//! been given the same one while this device was away (XEP-0384, "Business Rules").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    address::KeyId,
    bundle::{Prekey, SignedPrekey},
    curve25519::{PublicKey, SecretKey},
    error::DecryptError,
    identity::IdentityKeyPair,
    protocol::Protocol,
    random::RandomError,
};

/// How many one-time prekeys a bundle is filled up to: the "around 100" of the XEP, whose minimum is 25.
pub const PREKEY_TARGET: usize = 100;

/// How long a signed prekey is published, and then kept, in seconds: a week. The XEP recommends a week to a month.
pub const SIGNED_PREKEY_PERIOD: u64 = 7 * 24 * 60 * 60;

/// How many retired signed prekeys are kept, however fast they are rotated.
const MAX_RETIRED: usize = 8;

/// How many key exchanges may use one prekey during one catch-up. Two is an accident; this many are not.
const MAX_USES: usize = 8;

/// How many used prekeys are kept during one catch-up; the oldest ids go first.
const MAX_USED: usize = 1000;

/// How many prekeys are kept that left the bundle because others were given them; the oldest go first.
pub const MAX_HANDED_OUT: usize = 500;

/// The one-time prekeys of a device.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OneTimePrekeys {
    next: KeyId,
    unused: BTreeMap<KeyId, SecretKey>,
    used: BTreeMap<KeyId, UsedPrekey>,
    /// Not in the bundle any more, since others were given them, and not used; in the order in which they left it.
    #[serde(default)]
    handed_out: Vec<HandedOut>,
}

#[derive(Debug, Serialize, Deserialize)]
struct HandedOut {
    id: KeyId,
    key: SecretKey,
}

#[derive(Debug, Serialize, Deserialize)]
struct UsedPrekey {
    key: SecretKey,
    /// The ephemeral keys of the key exchanges that used it, so that none of them is taken twice.
    by: Vec<PublicKey>,
}

impl OneTimePrekeys {
    pub(super) fn generate() -> Result<Self, RandomError> {
        let mut prekeys =
            Self { next: KeyId::random()?, unused: BTreeMap::new(), used: BTreeMap::new(), handed_out: Vec::new() };
        prekeys.replenish()?;
        Ok(prekeys)
    }

    /// Fills up to [`PREKEY_TARGET`]; says how many are new. A number is not used again before all others were.
    pub(super) fn replenish(&mut self) -> Result<usize, RandomError> {
        let missing = PREKEY_TARGET.saturating_sub(self.unused.len());
        for _ in 0..missing {
            let key = SecretKey::generate()?;
            while self.is_taken(self.next) {
                self.next = self.next.following();
            }
            self.unused.insert(self.next, key);
            self.next = self.next.following();
        }
        Ok(missing)
    }

    fn is_taken(&self, id: KeyId) -> bool {
        let handed_out = self.handed_out.iter().any(|handed| handed.id == id);
        handed_out || self.unused.contains_key(&id) || self.used.contains_key(&id)
    }

    /// Takes these out of the bundle and keeps their private keys; says how many were in it.
    pub(super) fn retire(&mut self, ids: &[KeyId]) -> usize {
        let before = self.unused.len();
        for id in ids {
            if let Some(key) = self.unused.remove(id) {
                self.handed_out.push(HandedOut { id: *id, key });
            }
        }
        let surplus = self.handed_out.len().saturating_sub(MAX_HANDED_OUT);
        self.handed_out.drain(..surplus);
        before.saturating_sub(self.unused.len())
    }

    pub(super) fn published(&self) -> Vec<Prekey> {
        self.unused.iter().map(|(id, key)| Prekey { id: *id, key: key.public_key() }).collect()
    }

    /// How many others can be given.
    pub(super) fn len(&self) -> usize {
        self.unused.len()
    }

    /// The private key for a key exchange that was not seen before.
    pub(super) fn for_exchange(&self, id: KeyId, ephemeral: &PublicKey) -> Result<&SecretKey, DecryptError> {
        if let Some(key) = self.unused.get(&id) {
            return Ok(key);
        }
        if let Some(handed) = self.handed_out.iter().find(|handed| handed.id == id) {
            return Ok(&handed.key);
        }
        let used = self.used.get(&id).ok_or(DecryptError::UnknownPrekey(id))?;
        if used.by.contains(ephemeral) {
            Err(DecryptError::Duplicate)
        } else if used.by.len() >= MAX_USES {
            Err(DecryptError::PrekeyOverused(id))
        } else {
            Ok(&used.key)
        }
    }

    /// A message was decrypted with this prekey. Says whether the bundle changed.
    pub(super) fn use_up(&mut self, id: KeyId, ephemeral: PublicKey, keep: bool) -> bool {
        let published = self.unused.remove(&id);
        let changed = published.is_some();
        let handed_out = self.handed_out.iter().position(|handed| handed.id == id);
        let key = published.or_else(|| handed_out.map(|at| self.handed_out.remove(at).key));
        if keep {
            if let Some(key) = key {
                self.used.insert(id, UsedPrekey { key, by: Vec::new() });
            }
            if let Some(used) = self.used.get_mut(&id) {
                used.by.push(ephemeral);
            }
            self.trim_used();
        }
        changed
    }

    /// Takes all out of the bundle, but keeps their private keys until the next catch-up is over.
    pub(super) fn withdraw(&mut self) {
        let withdrawn = core::mem::take(&mut self.unused);
        self.used.extend(withdrawn.into_iter().map(|(id, key)| (id, UsedPrekey { key, by: Vec::new() })));
        self.trim_used();
    }

    /// The catch-up is over: forget the prekeys that were used. Says how many.
    pub(super) fn forget_used(&mut self) -> usize {
        core::mem::take(&mut self.used).len()
    }

    fn trim_used(&mut self) {
        while self.used.len() > MAX_USED {
            self.used.pop_first();
        }
    }
}

/// The signed prekey of a device and those that it had before.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SignedPrekeys {
    id: KeyId,
    key: SecretKey,
    made_at: u64,
    retired: Vec<RetiredPrekey>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RetiredPrekey {
    id: KeyId,
    key: SecretKey,
    retired_at: u64,
}

impl SignedPrekeys {
    pub(super) fn generate(now: u64) -> Result<Self, RandomError> {
        Ok(Self { id: KeyId::random()?, key: SecretKey::generate()?, made_at: now, retired: Vec::new() })
    }

    pub(super) fn published<P: Protocol>(&self, identity: &IdentityKeyPair) -> SignedPrekey {
        let key = self.key.public_key();
        SignedPrekey { id: self.id, key, signature: P::sign_prekey(identity, &key) }
    }

    pub(super) fn find(&self, id: KeyId) -> Result<&SecretKey, DecryptError> {
        if id == self.id {
            return Ok(&self.key);
        }
        let retired = self.retired.iter().find(|retired| retired.id == id);
        retired.map(|retired| &retired.key).ok_or(DecryptError::UnknownSignedPrekey(id))
    }

    pub(super) const fn made_at(&self) -> u64 {
        self.made_at
    }

    /// Makes a new one. The old one is kept for one period, from now on.
    pub(super) fn rotate(&mut self, now: u64) -> Result<(), RandomError> {
        let key = SecretKey::generate()?;
        self.forget_old(now);
        let next = self.id.following();
        let id = core::mem::replace(&mut self.id, next);
        let key = core::mem::replace(&mut self.key, key);
        self.retired.push(RetiredPrekey { id, key, retired_at: now });
        let surplus = self.retired.len().saturating_sub(MAX_RETIRED);
        self.retired.drain(..surplus);
        self.made_at = now;
        Ok(())
    }

    /// Forgets those that were kept for a whole period.
    pub(super) fn forget_old(&mut self, now: u64) {
        self.retired.retain(|retired| now < retired.retired_at.saturating_add(SIGNED_PREKEY_PERIOD));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ephemeral(byte: u8) -> PublicKey {
        SecretKey::from_bytes([byte; 32]).public_key()
    }

    #[test]
    fn used_keys_go_at_once_or_after_the_catch_up() {
        let mut prekeys = OneTimePrekeys::generate().unwrap();
        let [first, second, ..] = prekeys.published()[..] else { panic!() };
        assert!(prekeys.use_up(first.id, ephemeral(1), false));
        assert!(!prekeys.published().contains(&first));
        assert!(matches!(prekeys.for_exchange(first.id, &ephemeral(2)), Err(DecryptError::UnknownPrekey(_))));

        assert!(prekeys.use_up(second.id, ephemeral(1), true));
        assert!(!prekeys.published().contains(&second));
        assert!(prekeys.for_exchange(second.id, &ephemeral(2)).is_ok());
        assert!(matches!(prekeys.for_exchange(second.id, &ephemeral(1)), Err(DecryptError::Duplicate)));
        for byte in 2..=8 {
            assert!(!prekeys.use_up(second.id, ephemeral(byte), true));
        }
        assert!(matches!(prekeys.for_exchange(second.id, &ephemeral(9)), Err(DecryptError::PrekeyOverused(_))));
        assert_eq!(prekeys.forget_used(), 1);
        assert!(matches!(prekeys.for_exchange(second.id, &ephemeral(9)), Err(DecryptError::UnknownPrekey(_))));
    }

    #[test]
    fn replenishing_gives_new_numbers() {
        let mut prekeys = OneTimePrekeys::generate().unwrap();
        let before = prekeys.published();
        assert_eq!(before.len(), PREKEY_TARGET);
        prekeys.use_up(before[0].id, ephemeral(1), false);
        assert_eq!(prekeys.replenish().unwrap(), 1);
        assert_eq!(prekeys.len(), PREKEY_TARGET);
        assert!(prekeys.published().iter().all(|prekey| prekey.id != before[0].id));
        assert_eq!(prekeys.replenish().unwrap(), 0);
    }

    #[test]
    fn keys_that_were_handed_out_leave_the_bundle_and_can_be_used_once() {
        let mut prekeys = OneTimePrekeys::generate().unwrap();
        let [first, second, ..] = prekeys.published()[..] else { panic!() };
        assert_eq!(prekeys.retire(&[first.id, second.id, first.id]), 2);
        assert_eq!(prekeys.replenish().unwrap(), 2);
        assert!(!prekeys.published().contains(&first));
        // Also after a catch-up, which ends those that were used.
        prekeys.forget_used();
        assert!(prekeys.for_exchange(first.id, &ephemeral(1)).is_ok());
        assert!(!prekeys.use_up(first.id, ephemeral(1), false), "the bundle did not have it");
        assert!(matches!(prekeys.for_exchange(first.id, &ephemeral(2)), Err(DecryptError::UnknownPrekey(_))));
        assert!(!prekeys.use_up(second.id, ephemeral(1), true));
        assert!(matches!(prekeys.for_exchange(second.id, &ephemeral(1)), Err(DecryptError::Duplicate)));
        assert!(prekeys.for_exchange(second.id, &ephemeral(2)).is_ok());
        for _ in 0..6 {
            let all: Vec<_> = prekeys.published().iter().map(|prekey| prekey.id).collect();
            prekeys.retire(&all);
            prekeys.replenish().unwrap();
        }
        assert_eq!(prekeys.handed_out.len(), MAX_HANDED_OUT);
    }

    #[test]
    fn retired_keys_are_kept_for_a_period() {
        let mut prekeys = SignedPrekeys::generate(1000).unwrap();
        let first = prekeys.id;
        prekeys.rotate(2000).unwrap();
        assert!(prekeys.find(first).is_ok());
        prekeys.forget_old(2000 + SIGNED_PREKEY_PERIOD - 1);
        assert!(prekeys.find(first).is_ok());
        prekeys.forget_old(2000 + SIGNED_PREKEY_PERIOD);
        assert!(matches!(prekeys.find(first), Err(DecryptError::UnknownSignedPrekey(_))));
        for now in 0..20 {
            prekeys.rotate(now).unwrap();
        }
        assert_eq!(prekeys.retired.len(), MAX_RETIRED);
    }
}
