//! The directory as pubsub requests (XEP-0060, XEP-0384 §5.2 and §5.3). Building and reading only: no I/O.
//!
//! The items themselves, device lists and bundles, are the crypto crate's to read and write.

use minidom::Element;
use minidom::rxml::xml_ncname;
use xmpp_parsers::jid::BareJid;
use xmpp_parsers::message::Message;

use crate::xml::{Build, ns, submit_form};

/// The form of publish-options (XEP-0060 §7.1.5).
const PUBLISH_OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";
/// The form of node configuration (XEP-0060 §8.2).
const NODE_CONFIG: &str = "http://jabber.org/protocol/pubsub#node_config";
/// The owner's side of pubsub.
const OWNER: &str = "http://jabber.org/protocol/pubsub#owner";

/// The two nodes of an account's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    /// The device list: one item, `current`.
    Devices,
    /// The bundles: one item for each device, named by its id.
    Bundles,
}

impl Node {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Devices => ns::OMEMO2_DEVICES,
            Self::Bundles => ns::OMEMO2_BUNDLES,
        }
    }

    /// The settings that XEP-0384 demands: readable by everybody, and one item for each device.
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Devices => &[("pubsub#access_model", "open")],
            Self::Bundles => &[("pubsub#max_items", "max"), ("pubsub#access_model", "open")],
        }
    }
}

/// The request for what a node holds, or for one item of it.
pub(crate) fn request(node: Node, item: Option<&str>) -> Element {
    let items = Build::new("items", ns::PUBSUB).attr(xml_ncname!("node"), node.name());
    pubsub(match item {
        Some(id) => items.child(Build::new("item", ns::PUBSUB).attr(xml_ncname!("id"), id)),
        None => items,
    })
}

/// The payload in the answer to [`request`]: of the item asked for, or of the first. `Ok(None)` when the node is empty,
/// `Err` when this is no answer to that request.
pub(crate) fn read_item<'a>(answer: &'a Element, node: Node, item: Option<&str>) -> Result<Option<&'a Element>, ()> {
    let items = answer.get_child("items", ns::PUBSUB).ok_or(())?;
    if items.attr("node") != Some(node.name()) {
        return Err(());
    }
    Ok(items
        .children()
        .find(|child| child.is("item", ns::PUBSUB) && (item.is_none() || child.attr("id") == item))
        .and_then(|item| item.children().next()))
}

/// The request that publishes an item, with the settings that the node needs.
pub(crate) fn publish(node: Node, item: &str, payload: Element) -> Element {
    Build::new("pubsub", ns::PUBSUB)
        .child(
            Build::new("publish", ns::PUBSUB)
                .attr(xml_ncname!("node"), node.name())
                .child(Build::new("item", ns::PUBSUB).attr(xml_ncname!("id"), item).child(payload)),
        )
        .child(Build::new("publish-options", ns::PUBSUB).child(submit_form(PUBLISH_OPTIONS, node.settings())))
        .into()
}

/// The request that gives a node which exists with other settings those that it needs (XEP-0060 §8.2).
pub(crate) fn configure(node: Node) -> Element {
    Build::new("pubsub", OWNER)
        .child(
            Build::new("configure", OWNER)
                .attr(xml_ncname!("node"), node.name())
                .child(submit_form(NODE_CONFIG, node.settings())),
        )
        .into()
}

/// The request to be told of changes to a device list (XEP-0060 §6.1).
pub(crate) fn subscribe_to_devices(subscriber: &BareJid) -> Element {
    pubsub(
        Build::new("subscribe", ns::PUBSUB)
            .attr(xml_ncname!("node"), Node::Devices.name())
            .attr(xml_ncname!("jid"), subscriber),
    )
}

/// The new device list in a notification (XEP-0060 §12.1), where the message is one.
pub(crate) fn read_device_event(message: &Message) -> Option<&Element> {
    let event = message.payloads.iter().find(|payload| payload.is("event", ns::PUBSUB_EVENT))?;
    let items = event.get_child("items", ns::PUBSUB_EVENT)?;
    if items.attr("node") != Some(Node::Devices.name()) {
        return None;
    }
    items.get_child("item", ns::PUBSUB_EVENT)?.children().next()
}

fn pubsub(child: Build) -> Element {
    Build::new("pubsub", ns::PUBSUB).child(child).into()
}
