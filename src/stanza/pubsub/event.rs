//! What a subscriber is told (XEP-0060 §7.1.2, §7.2.2, §8.4).

use super::node::Node;
use super::reply::{Item, push_items};
use crate::stanza::namespace::PUBSUB_EVENT;
use crate::stanza::tree::push_attribute;

/// `<event><items><item/></items></event>`: what a node holds now.
pub fn event(node: Node, items: &[Item]) -> String {
    let mut out = format!("<event xmlns='{PUBSUB_EVENT}'>");
    push_items(&mut out, node, items);
    out.push_str("</event>");
    out
}

/// `<event><items><retract/></items></event>`: an item is gone.
pub fn retract_event(node: Node, id: &str) -> String {
    let mut out = format!("<event xmlns='{PUBSUB_EVENT}'><items");
    push_attribute(&mut out, "node", &node.name());
    out.push_str("><retract");
    push_attribute(&mut out, "id", id);
    out.push_str("/></items></event>");
    out
}

/// `<event><delete/></event>`: a node is gone.
pub fn delete_event(node: Node) -> String {
    let mut out = format!("<event xmlns='{PUBSUB_EVENT}'><delete");
    push_attribute(&mut out, "node", &node.name());
    out.push_str("/></event>");
    out
}
