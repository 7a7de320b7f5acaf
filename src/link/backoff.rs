//! How long to wait before the next attempt to connect.

use std::time::Duration;

/// Exponential backoff: each failed attempt doubles the delay from `initial` up to `longest`. Each delay is drawn at
/// random from its upper half, so that many components do not come back in step after a server's restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Before the first retry.
    pub initial: Duration,
    /// No delay is longer.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), longest: Duration::from_secs(60) }
    }
}

/// The state of a backoff in progress.
#[derive(Debug)]
pub(super) struct Delays {
    backoff: Backoff,
    failures: u32,
}

impl Delays {
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, failures: 0 }
    }

    /// A connection has worked: the next failure counts as the first.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The delay after one more failure.
    pub fn next(&mut self) -> Duration {
        let factor = 2_u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        jittered(self.backoff.initial.saturating_mul(factor).min(self.backoff.longest))
    }

    /// The longest delay, for when coming back soon would do harm.
    pub fn longest(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        jittered(self.backoff.longest)
    }
}

fn jittered(delay: Duration) -> Duration {
    // A machine without randomness has worse troubles; the middle will do.
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    let half = delay.mul_f64(0.5);
    half.saturating_add(half.mul_f64(f64::from(random) / f64::from(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_within_their_upper_half_up_to_the_longest() {
        let backoff = Backoff { initial: Duration::from_secs(1), longest: Duration::from_secs(10) };
        let mut delays = Delays::new(backoff);
        for expected in [1, 2, 4, 8, 10, 10] {
            let full = Duration::from_secs(expected);
            let delay = delays.next();
            assert!(delay >= full / 2 && delay <= full, "{delay:?} for {full:?}");
        }
        delays.failures = u32::MAX;
        assert!(delays.next() <= backoff.longest);
        delays.reset();
        assert!(delays.next() <= backoff.initial);
    }

    #[test]
    fn two_components_do_not_wait_in_step() {
        let delays: std::collections::HashSet<_> = (0..20).map(|_| Delays::new(Backoff::default()).next()).collect();
        assert!(delays.len() > 10);
    }
}
