//! Delayed delivery (XEP-0203): when something was sent that arrives later.

use super::tree::push_attribute;
use crate::model::Timestamp;

/// The namespace.
pub const NS: &str = "urn:xmpp:delay";

/// Appends `<delay xmlns='urn:xmpp:delay' stamp='…'/>`.
pub fn push_delay(out: &mut String, stamp: Timestamp) {
    out.push_str("<delay xmlns='urn:xmpp:delay'");
    push_attribute(out, "stamp", &stamp.to_xmpp());
    out.push_str("/>");
}
