//! Ephemeral messages (XEP-0466): how long a message may be kept, as its sender asks.

use std::time::Duration;

use super::tree::Element;

/// The namespace.
pub const NS: &str = "urn:xmpp:ephemeral:0";

/// The timer of a message, in whole seconds (§3.2). `None` without one, for one that is no unsigned 32-bit number, and for
/// 0: a message that may be kept for no time at all could never be given to a device that was away.
pub fn timer(message: &Element<'_>) -> Option<Duration> {
    let seconds: u32 = message.child("ephemeral", NS)?.attribute("timer")?.trim().parse().ok()?;
    (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
}
