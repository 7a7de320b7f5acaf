//! Signs of life, gathered in memory: a device shows itself many times an hour, and is written down once. Bounded; what
//! does not fit is forgotten, and comes again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::{SessionJid, Timestamp};
use crate::store::{DevicePlace, SignOfLife};

/// Signs that wait to be written.
const WAITING: usize = 20_000;
/// Devices and sessions that need not be looked at again soon. Forgotten all at once when full: the price is one write or
/// one read each.
const REMEMBERED: usize = 50_000;
/// How long a session's device need not be asked for again.
const ASKED_FOR: Duration = Duration::from_secs(10 * 60);

/// What has shown itself, and what of it has been written.
#[derive(Default)]
pub(super) struct LifeSigns(Mutex<Signs>);

#[derive(Default)]
struct Signs {
    waiting: HashMap<DevicePlace, Timestamp>,
    written: HashMap<DevicePlace, Timestamp>,
    asked: HashMap<SessionJid, Timestamp>,
}

impl LifeSigns {
    fn lock(&self) -> MutexGuard<'_, Signs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a sign in, unless one was written less than `granularity` ago. `false`: there was no room for it.
    pub(super) fn note(&self, sign: SignOfLife, granularity: Duration) -> bool {
        let mut signs = self.lock();
        if signs.written.get(&sign.place).is_some_and(|written| sign.at.since(*written) < granularity) {
            return true;
        }
        if signs.waiting.len() >= WAITING && !signs.waiting.contains_key(&sign.place) {
            return false;
        }
        signs.waiting.insert(sign.place, sign.at);
        true
    }

    /// Whether it has been asked not long ago which device a session is.
    pub(super) fn asked(&self, session: &SessionJid, now: Timestamp) -> bool {
        self.lock().asked.get(session).is_some_and(|asked| now.since(*asked) < ASKED_FOR)
    }

    /// It was asked, and there was an answer: that is enough for a while.
    pub(super) fn ask_no_more(&self, session: &SessionJid, now: Timestamp) {
        remember(&mut self.lock().asked, session.clone(), now);
    }

    /// Everything that waits; it waits no longer.
    pub(super) fn take(&self) -> Vec<SignOfLife> {
        let waiting = std::mem::take(&mut self.lock().waiting);
        waiting.into_iter().map(|(place, at)| SignOfLife { place, at }).collect()
    }

    /// These have been written.
    pub(super) fn written(&self, signs: &[SignOfLife]) {
        let written = &mut self.lock().written;
        for sign in signs {
            remember(written, sign.place.clone(), sign.at);
        }
    }
}

fn remember<K: Hash + Eq>(map: &mut HashMap<K, Timestamp>, key: K, at: Timestamp) {
    if map.len() >= REMEMBERED {
        map.clear();
    }
    map.insert(key, at);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DeviceId, Owner, Protocol};

    const HOUR: Duration = Duration::from_secs(3600);

    fn sign(device: u32, minute: i64) -> SignOfLife {
        let owner = Owner::parse("alice@example.org").unwrap();
        let place = DevicePlace { owner, protocol: Protocol::Omemo2, device: DeviceId::new(device).unwrap() };
        SignOfLife { place, at: Timestamp::from_micros(minute * 60_000_000) }
    }

    #[test]
    fn a_device_is_written_once_an_hour_with_its_latest_sign() {
        let signs = LifeSigns::default();
        for minute in 0..10 {
            assert!(signs.note(sign(1, minute), HOUR));
        }
        let taken = signs.take();
        assert_eq!(taken, [sign(1, 9)]);
        signs.written(&taken);
        assert!(signs.note(sign(1, 68), HOUR));
        assert!(signs.take().is_empty());
        signs.note(sign(1, 69), HOUR);
        assert_eq!(signs.take(), [sign(1, 69)]);
        // Not written, so that the next one counts.
        signs.note(sign(1, 70), HOUR);
        assert_eq!(signs.take(), [sign(1, 70)]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let signs = LifeSigns::default();
        let noted = (1..=WAITING as u32 + 5).filter(|device| signs.note(sign(*device, 0), HOUR)).count();
        assert_eq!((noted, signs.take().len()), (WAITING, WAITING));
    }
}
