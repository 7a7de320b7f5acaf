//! Unique and stable stanza ids (XEP-0359). A `<stanza-id/>` is worth something only if everybody removes those that
//! claim to be theirs and are not (§3, "Business Rules").

use jid::BareJid;

use super::tree::{Element, push_attribute};

/// The namespace, also the disco feature of an entity that follows the business rules.
pub const NS: &str = super::namespace::STANZA_ID;

/// Appends `<stanza-id xmlns='urn:xmpp:sid:0' by='…' id='…'/>`.
pub fn push_stanza_id(out: &mut String, by: &str, id: &str) {
    out.push_str("<stanza-id xmlns='urn:xmpp:sid:0'");
    push_attribute(out, "by", by);
    push_attribute(out, "id", id);
    out.push_str("/>");
}

/// Whether this is a `<stanza-id/>` that says it was given by one of `addresses`. JIDs are compared normalised, so another
/// spelling of an address does not slip through.
pub fn is_stanza_id_by(element: &Element<'_>, addresses: &[&BareJid]) -> bool {
    element.is("stanza-id", NS)
        && element
            .attribute("by")
            .and_then(|by| BareJid::new(by.trim()).ok())
            .is_some_and(|by| addresses.iter().any(|address| **address == by))
}
