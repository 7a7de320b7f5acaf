//! Answers to pubsub requests.

use super::node::Node;
use crate::stanza::namespace::PUBSUB;
use crate::stanza::tree::push_attribute;

/// One item of an answer or event: its id and its payload, a standalone element; empty for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The item id.
    pub id: String,
    /// The payload.
    pub payload: String,
}

pub(super) fn push_items(out: &mut String, node: Node, items: &[Item]) {
    out.push_str("<items");
    push_attribute(out, "node", &node.name());
    out.push('>');
    for item in items {
        out.push_str("<item");
        push_attribute(out, "id", &item.id);
        out.push('>');
        out.push_str(&item.payload);
        out.push_str("</item>");
    }
    out.push_str("</items>");
}

/// `<pubsub><items/></pubsub>`: the answer to a fetch.
pub fn items_result(node: Node, items: &[Item]) -> String {
    let mut out = format!("<pubsub xmlns='{PUBSUB}'>");
    push_items(&mut out, node, items);
    out.push_str("</pubsub>");
    out
}

/// `<pubsub><publish><item/></publish></pubsub>`: the answer to a publish, with the id in force.
pub fn publish_result(node: Node, id: &str) -> String {
    let mut out = format!("<pubsub xmlns='{PUBSUB}'><publish");
    push_attribute(&mut out, "node", &node.name());
    out.push_str("><item");
    push_attribute(&mut out, "id", id);
    out.push_str("/></publish></pubsub>");
    out
}

/// `<pubsub><subscription/></pubsub>`: the answer to a subscribe or unsubscribe.
pub fn subscription_result(node: Node, jid: &str, subscribed: bool) -> String {
    let mut out = format!("<pubsub xmlns='{PUBSUB}'>");
    push_subscription(&mut out, &Subscription { node, jid: jid.to_owned() }, subscribed);
    out.push_str("</pubsub>");
    out
}

/// That a JID is subscribed to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// To which.
    pub node: Node,
    /// Who.
    pub jid: String,
}

fn push_subscription(out: &mut String, subscription: &Subscription, subscribed: bool) {
    out.push_str("<subscription");
    push_attribute(out, "node", &subscription.node.name());
    push_attribute(out, "jid", &subscription.jid);
    push_attribute(out, "subscription", if subscribed { "subscribed" } else { "none" });
    out.push_str("/>");
}

/// `<pubsub><subscriptions/></pubsub>`: the requester's own (XEP-0060 §5.6), of one node or of all.
pub fn subscriptions(node: Option<Node>, subscriptions: &[Subscription]) -> String {
    let mut out = format!("<pubsub xmlns='{PUBSUB}'><subscriptions");
    if let Some(node) = node {
        push_attribute(&mut out, "node", &node.name());
    }
    out.push('>');
    for subscription in subscriptions {
        push_subscription(&mut out, subscription, true);
    }
    out.push_str("</subscriptions></pubsub>");
    out
}

/// How a requester stands to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affiliation {
    /// The account that it belongs to.
    Owner,
    /// Anybody else: may read.
    None,
}

/// `<pubsub><affiliations/></pubsub>`: the requester's own (XEP-0060 §5.7), of one node or of all that exist.
pub fn affiliations(asked: Option<Node>, nodes: &[Node], affiliation: Affiliation) -> String {
    let mut out = format!("<pubsub xmlns='{PUBSUB}'><affiliations");
    if let Some(node) = asked {
        push_attribute(&mut out, "node", &node.name());
    }
    out.push('>');
    for node in nodes {
        out.push_str("<affiliation");
        push_attribute(&mut out, "node", &node.name());
        push_attribute(
            &mut out,
            "affiliation",
            match affiliation {
                Affiliation::Owner => "owner",
                Affiliation::None => "none",
            },
        );
        out.push_str("/>");
    }
    out.push_str("</affiliations></pubsub>");
    out
}
