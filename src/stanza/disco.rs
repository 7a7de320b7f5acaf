//! Service discovery (XEP-0030): what the component says of itself and of each alias.

use super::namespace::{DISCO_INFO, DISCO_ITEMS, MULTIEND, PING, PUBSUB, VERSION};
use super::pubsub::Node;
use super::tree::push_attribute;
use super::{mam, retraction};

/// The features of XEP-0060 that are offered.
const PUBSUB_FEATURES: [&str; 11] = [
    "access-open",
    "auto-create",
    "delete-items",
    "delete-nodes",
    "item-ids",
    "multi-items",
    "persistent-items",
    "publish",
    "publish-options",
    "retrieve-items",
    "subscribe",
];

/// Who is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The component itself.
    Component,
    /// An account, through an alias.
    Account,
}

/// The answer to disco#info.
pub fn info(subject: Subject) -> String {
    let mut out = format!("<query xmlns='{DISCO_INFO}'>");
    let mut identity = |category: &str, kind: &str, name: Option<&str>| {
        out.push_str("<identity");
        push_attribute(&mut out, "category", category);
        push_attribute(&mut out, "type", kind);
        if let Some(name) = name {
            push_attribute(&mut out, "name", name);
        }
        out.push_str("/>");
    };
    match subject {
        Subject::Component => identity("component", "generic", Some("multiend")),
        Subject::Account => identity("account", "registered", None),
    }
    identity("pubsub", "pep", None);
    let general = [DISCO_INFO, DISCO_ITEMS, PING, VERSION, PUBSUB, MULTIEND, retraction::NS, retraction::TOMBSTONE];
    for feature in general.into_iter().chain(mam::FEATURES) {
        out.push_str("<feature");
        push_attribute(&mut out, "var", feature);
        out.push_str("/>");
    }
    for feature in PUBSUB_FEATURES {
        out.push_str("<feature");
        push_attribute(&mut out, "var", &format!("{PUBSUB}#{feature}"));
        out.push_str("/>");
    }
    out.push_str("</query>");
    out
}

/// The answer to disco#items: an owner's nodes.
pub fn items(jid: &str, nodes: &[Node]) -> String {
    let mut out = format!("<query xmlns='{DISCO_ITEMS}'>");
    for node in nodes {
        out.push_str("<item");
        push_attribute(&mut out, "jid", jid);
        push_attribute(&mut out, "node", &node.name());
        out.push_str("/>");
    }
    out.push_str("</query>");
    out
}
