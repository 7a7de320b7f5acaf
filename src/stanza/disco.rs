//! Service discovery (XEP-0030): what the component says of itself, of each alias, and of an owner's nodes (XEP-0060 §5).

use super::extension;
use super::namespace::{DISCO_INFO, DISCO_ITEMS, MULTIEND, PING, PUBSUB, VERSION};
use super::pubsub::{Node, configuration};
use super::tree::push_attribute;
use super::{mam, retraction};

/// The features of XEP-0060 that are offered.
const PUBSUB_FEATURES: [&str; 18] = [
    "access-open",
    "auto-create",
    "config-node",
    "config-node-max",
    "delete-items",
    "delete-nodes",
    "item-ids",
    "meta-data",
    "multi-items",
    "persistent-items",
    "publish",
    "publish-options",
    "retract-items",
    "retrieve-affiliations",
    "retrieve-default",
    "retrieve-items",
    "retrieve-subscriptions",
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
    match subject {
        Subject::Component => push_identity(&mut out, "component", "generic", Some("multiend")),
        Subject::Account => push_identity(&mut out, "account", "registered", None),
    }
    push_identity(&mut out, "pubsub", "pep", None);
    let general = [DISCO_INFO, DISCO_ITEMS, PING, VERSION, PUBSUB, MULTIEND, retraction::NS, retraction::TOMBSTONE];
    for feature in general.into_iter().chain(extension::FEATURES).chain(mam::FEATURES) {
        push_feature(&mut out, feature);
    }
    for feature in PUBSUB_FEATURES {
        push_feature(&mut out, &format!("{PUBSUB}#{feature}"));
    }
    out.push_str("</query>");
    out
}

/// The answer to disco#info about a node.
pub fn node_info(node: Node, owner: &str) -> String {
    let mut out = format!("<query xmlns='{DISCO_INFO}'");
    push_attribute(&mut out, "node", &node.name());
    out.push('>');
    push_identity(&mut out, "pubsub", "leaf", Some(node.title()));
    push_feature(&mut out, PUBSUB);
    push_feature(&mut out, DISCO_INFO);
    configuration::push_meta_data(&mut out, node, owner);
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

/// The answer to disco#items about a node: its items, by their ids.
pub fn node_items(jid: &str, node: Node, ids: &[String]) -> String {
    let mut out = format!("<query xmlns='{DISCO_ITEMS}'");
    push_attribute(&mut out, "node", &node.name());
    out.push('>');
    for id in ids {
        out.push_str("<item");
        push_attribute(&mut out, "jid", jid);
        push_attribute(&mut out, "name", id);
        out.push_str("/>");
    }
    out.push_str("</query>");
    out
}

fn push_identity(out: &mut String, category: &str, kind: &str, name: Option<&str>) {
    out.push_str("<identity");
    push_attribute(out, "category", category);
    push_attribute(out, "type", kind);
    if let Some(name) = name {
        push_attribute(out, "name", name);
    }
    out.push_str("/>");
}

fn push_feature(out: &mut String, feature: &str) {
    out.push_str("<feature");
    push_attribute(out, "var", feature);
    out.push_str("/>");
}
