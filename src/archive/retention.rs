//! Whether and how long a copy is kept (DESIGN, archive invariant 5).

use std::time::Duration;

use super::classify::{SkipReason, Verdict};
use crate::model::{Class, Timestamp};

/// How long copies of a class are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// They never expire.
    #[default]
    Forever,
    /// They expire after this time.
    For(Duration),
    /// They are not archived.
    Never,
}

/// The operator's policy, per class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Messages with an encrypted payload.
    pub content: Keep,
    /// OMEMO messages without payload.
    pub key_transport: Keep,
    /// Messages in clear.
    pub plain: Keep,
    /// Receipts, markers and the like.
    pub signal: Keep,
}

impl Retention {
    /// How long a class is kept.
    pub fn of(&self, class: Class) -> Keep {
        match class {
            Class::Content => self.content,
            Class::KeyTransport => self.key_transport,
            Class::Plain => self.plain,
            Class::Signal => self.signal,
        }
    }

    /// The verdict on a message, with the policy applied: a class that is never kept is skipped.
    pub fn apply(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Archive(class) if self.of(class) == Keep::Never => Verdict::Skip(SkipReason::Policy),
            other => other,
        }
    }

    /// When a message of this class that was sent at `at` expires: after the time that its class is kept, or that its
    /// sender asks for ([`crate::stanza::ephemeral::timer`]), whichever is shorter. XEP-0466 starts the timer when the
    /// message is read, which an archive cannot see; counting from the sending never keeps it longer than asked.
    pub fn expires_at(&self, class: Class, at: Timestamp, timer: Option<Duration>) -> Option<Timestamp> {
        let policy = match self.of(class) {
            Keep::Forever => None,
            Keep::For(time) => Some(time),
            Keep::Never => Some(Duration::ZERO),
        };
        let kept = match (policy, timer) {
            (Some(policy), Some(timer)) => policy.min(timer),
            (policy, timer) => policy.or(timer)?,
        };
        Some(at.plus(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_of_policy_and_timer_counts() {
        let day = Duration::from_secs(86_400);
        let retention = Retention { content: Keep::For(day), signal: Keep::Never, ..Retention::default() };
        let at = Timestamp::from_micros(5);
        assert_eq!(retention.expires_at(Class::Content, at, None), Some(at.plus(day)));
        assert_eq!(retention.expires_at(Class::Content, at, Some(day / 2)), Some(at.plus(day / 2)));
        assert_eq!(retention.expires_at(Class::Content, at, Some(day * 2)), Some(at.plus(day)));
        assert_eq!(retention.expires_at(Class::Plain, at, None), None);
        assert_eq!(retention.expires_at(Class::Plain, at, Some(day)), Some(at.plus(day)));
    }

    #[test]
    fn a_class_that_is_never_kept_is_skipped() {
        let retention = Retention { signal: Keep::Never, ..Retention::default() };
        assert_eq!(retention.apply(Verdict::Archive(Class::Signal)), Verdict::Skip(SkipReason::Policy));
        assert_eq!(retention.apply(Verdict::Archive(Class::Content)), Verdict::Archive(Class::Content));
        let skipped = Verdict::Skip(SkipReason::Error);
        assert_eq!(retention.apply(skipped), skipped);
    }
}
