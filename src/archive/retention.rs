//! How long a copy is kept (DESIGN, archive invariant 5).

use std::time::Duration;

use crate::model::{Class, Timestamp};

/// How long copies are kept, per class; `None`: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Messages with an encrypted payload. More than the lifetime of the clients' keys is of little use.
    pub content: Option<Duration>,
    /// OMEMO messages without payload.
    pub key_transport: Option<Duration>,
    /// Messages in clear.
    pub plain: Option<Duration>,
    /// Receipts, markers and the like.
    pub signal: Option<Duration>,
}

impl Retention {
    /// How long a class is kept.
    pub fn of(&self, class: Class) -> Option<Duration> {
        match class {
            Class::Content => self.content,
            Class::KeyTransport => self.key_transport,
            Class::Plain => self.plain,
            Class::Signal => self.signal,
        }
    }

    /// When a message of this class that was sent at `at` expires: after the time that its class is kept, or that its
    /// sender asks for ([`crate::stanza::ephemeral::timer`]), whichever is shorter. XEP-0466 starts the timer when the
    /// message is read, which an archive cannot see; counting from the sending never keeps it longer than asked.
    pub fn expires_at(&self, class: Class, at: Timestamp, timer: Option<Duration>) -> Option<Timestamp> {
        let kept = match (self.of(class), timer) {
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
        let retention = Retention { content: Some(day), signal: Some(Duration::ZERO), ..Retention::default() };
        let at = Timestamp::from_micros(5);
        assert_eq!(retention.expires_at(Class::Content, at, None), Some(at.plus(day)));
        assert_eq!(retention.expires_at(Class::Content, at, Some(day / 2)), Some(at.plus(day / 2)));
        assert_eq!(retention.expires_at(Class::Content, at, Some(day * 2)), Some(at.plus(day)));
        assert_eq!(retention.expires_at(Class::Plain, at, None), None);
        assert_eq!(retention.expires_at(Class::Plain, at, Some(day)), Some(at.plus(day)));
        assert_eq!(retention.expires_at(Class::Signal, at, None), Some(at));
    }
}
