//! Message processing hints (XEP-0334): what the sender of a message asks of those who store it.

use super::tree::Element;

/// The namespace.
pub const NS: &str = "urn:xmpp:hints";

/// The hints that concern an archive; `<no-copy/>` does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hints {
    /// `<no-store/>`: not even for a while.
    pub no_store: bool,
    /// `<no-permanent-store/>`: not in an archive.
    pub no_permanent_store: bool,
    /// `<store/>`: also if it would not be stored otherwise.
    pub store: bool,
}

impl Hints {
    /// Reads the hints of a message. On a message of type `error` they mean nothing (§4): the caller looks at that first.
    pub fn of(message: &Element<'_>) -> Self {
        let has = |name| message.child(name, NS).is_some();
        Self { no_store: has("no-store"), no_permanent_store: has("no-permanent-store"), store: has("store") }
    }
}
