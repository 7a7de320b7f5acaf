//! Message archive management (XEP-0313 1.1.3), with the namespaces `urn:xmpp:mam:2` and `urn:xmpp:mam:2#extended`: what
//! is asked, and how answers are written. What the answer is, the archive decides.
//!
//! Tolerant where clients need it and the meaning is clear: children of `<query/>` that are not ours are ignored (one client
//! sends an `<after/>` outside of `<set/>`), a form field left empty counts as absent, `<before/>` and `<after/>` may stand
//! together. Strict where a guess would return the wrong messages: unknown fields, malformed times and JIDs.
//!
//! # In our own namespace
//!
//! `<fin/>` may hold `<expired xmlns='urn:multiend:0' before='2026-01-31T12:00:00.000000Z'/>`: the query would have matched
//! messages from before this page that have expired, the newest of them at that moment, as far as the archive still knows.
//! What is missing there was not lost by anyone. A message that expired in the middle of an archive is given as an empty one
//! with the addresses of the first, holding `<expired xmlns='urn:multiend:0'/>` (XEP-0313 §3.2, "an appropriate
//! placeholder"). Clients that know only the standards see a message without content.

mod preferences;
mod reply;
mod request;

pub use preferences::{push_preferences, read_foreign_preferences, read_preferences};
pub use reply::{Ends, Fin, expired_placeholder, form, mark_unstable, metadata, push_result};
pub use request::{Query, Request, RequestError};

use super::namespace;

/// The namespace.
pub const NS: &str = namespace::MAM;

/// The disco features of an archive: what is served in full, and that `include-groupchat` is understood (though archives
/// here hold no such messages).
pub const FEATURES: [&str; 4] = [NS, "urn:xmpp:mam:2#extended", "urn:xmpp:mam:2#groupchat-field", namespace::STANZA_ID];

/// The names of the form fields.
mod field {
    pub const WITH: &str = "with";
    pub const START: &str = "start";
    pub const END: &str = "end";
    pub const BEFORE_ID: &str = "before-id";
    pub const AFTER_ID: &str = "after-id";
    pub const IDS: &str = "ids";
    pub const INCLUDE_GROUPCHAT: &str = "include-groupchat";
    /// Ours (docs/protocol.md, "Views"), in the notation of XEP-0068.
    pub const DEVICE: &str = "{urn:multiend:0}device";
    /// Ours.
    pub const VIEW: &str = "{urn:multiend:0}view";
}

#[cfg(test)]
mod tests;
