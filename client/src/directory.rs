//! The directory as pubsub requests (XEP-0060; XEP-0384 §5.2 and §5.3; XEP-0384 0.3.0 §4.2 and §4.3). Building and reading only: no I/O.
//!
//! The items themselves, device lists and bundles, are the crypto crate's to read and write.

use std::borrow::Cow;

use minidom::Element;
use minidom::rxml::xml_ncname;
use multiend_crypto::legacy;
use xmpp_parsers::jid::BareJid;
use xmpp_parsers::message::Message;

use crate::protocol::Protocol;
use crate::xml::{Build, ns, submit_form};

/// The form of publish-options (XEP-0060 §7.1.5).
const PUBLISH_OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";
/// The form of node configuration (XEP-0060 §8.2).
const NODE_CONFIG: &str = "http://jabber.org/protocol/pubsub#node_config";
/// The owner's side of pubsub.
const OWNER: &str = "http://jabber.org/protocol/pubsub#owner";

/// A node of an account's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    /// The device list: one item.
    Devices(Protocol),
    /// Where the bundle of a device is. In OMEMO 2 all devices share a node, with an item for each; in legacy each has a
    /// node of its own, with one item.
    Bundle(Protocol, u32),
}

impl Node {
    pub(crate) fn name(self) -> Cow<'static, str> {
        match self {
            Self::Devices(protocol) => protocol.devices_node().into(),
            Self::Bundle(Protocol::Omemo2, _) => ns::OMEMO2_BUNDLES.into(),
            Self::Bundle(Protocol::Legacy, device) => format!("{}{device}", legacy::BUNDLES_NODE_PREFIX).into(),
        }
    }

    /// The id under which the item is published.
    fn item_to_publish(self) -> String {
        match self {
            Self::Bundle(Protocol::Omemo2, device) => device.to_string(),
            Self::Devices(_) | Self::Bundle(Protocol::Legacy, _) => "current".to_owned(),
        }
    }

    /// The id of the item to fetch; `None` where a node has one item only, under whichever id its owner chose.
    fn item_to_fetch(self) -> Option<String> {
        match self {
            Self::Bundle(Protocol::Omemo2, device) => Some(device.to_string()),
            Self::Devices(_) | Self::Bundle(Protocol::Legacy, _) => None,
        }
    }

    /// The settings that XEP-0384 demands: readable by everybody, and room for an item of each device.
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Bundle(Protocol::Omemo2, _) => &[("pubsub#max_items", "max"), ("pubsub#access_model", "open")],
            Self::Devices(_) | Self::Bundle(Protocol::Legacy, _) => &[("pubsub#access_model", "open")],
        }
    }
}

/// The request for the item of a node.
pub(crate) fn request(node: Node) -> Element {
    let items = Build::new("items", ns::PUBSUB).attr(xml_ncname!("node"), node.name());
    pubsub(match node.item_to_fetch() {
        Some(id) => items.child(Build::new("item", ns::PUBSUB).attr(xml_ncname!("id"), id)),
        None => items,
    })
}

/// The payload in the answer to [`request`]: of the item asked for, or of the first. `Ok(None)` when the node is empty,
/// `Err` when this is no answer to that request.
pub(crate) fn read_item(answer: &Element, node: Node) -> Result<Option<&Element>, ()> {
    let item = node.item_to_fetch();
    let items = answer.get_child("items", ns::PUBSUB).ok_or(())?;
    if items.attr("node") != Some(&*node.name()) {
        return Err(());
    }
    Ok(items
        .children()
        .find(|child| child.is("item", ns::PUBSUB) && (item.is_none() || child.attr("id") == item.as_deref()))
        .and_then(|item| item.children().next()))
}

/// The request that publishes the item of a node, with the settings that the node needs.
pub(crate) fn publish(node: Node, payload: Element) -> Element {
    let item = node.item_to_publish();
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
pub(crate) fn subscribe_to_devices(protocol: Protocol, subscriber: &BareJid) -> Element {
    pubsub(
        Build::new("subscribe", ns::PUBSUB)
            .attr(xml_ncname!("node"), protocol.devices_node())
            .attr(xml_ncname!("jid"), subscriber),
    )
}

/// The new device list in a notification (XEP-0060 §12.1), where the message is one.
pub(crate) fn read_device_event(message: &Message) -> Option<(Protocol, &Element)> {
    let event = message.payloads.iter().find(|payload| payload.is("event", ns::PUBSUB_EVENT))?;
    let items = event.get_child("items", ns::PUBSUB_EVENT)?;
    let protocol = Protocol::ALL.into_iter().find(|protocol| items.attr("node") == Some(protocol.devices_node()))?;
    Some((protocol, items.get_child("item", ns::PUBSUB_EVENT)?.children().next()?))
}

fn pubsub(child: Build) -> Element {
    Build::new("pubsub", ns::PUBSUB).child(child).into()
}
