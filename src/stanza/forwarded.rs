//! Stanza forwarding (XEP-0297).

use super::delay::push_delay;
use crate::model::Timestamp;

/// The namespace.
pub const NS: &str = "urn:xmpp:forward:0";

/// Appends `<forwarded/>` with the time at which `stanza` was received. The stanza must declare its own namespace, else it
/// would inherit that of `<forwarded/>` (§3.2).
pub fn push_forwarded(out: &mut String, received: Timestamp, stanza: &str) {
    out.push_str("<forwarded xmlns='urn:xmpp:forward:0'>");
    push_delay(out, received);
    out.push_str(stanza);
    out.push_str("</forwarded>");
}
