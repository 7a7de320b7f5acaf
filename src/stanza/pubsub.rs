//! Publish-subscribe (XEP-0060) as OMEMO uses it: the verbs, the nodes, the answers.

use super::error::{Condition, PubsubCondition, StanzaError};
use super::namespace::{DATA_FORM, OMEMO_2, OMEMO_LEGACY, PUBLISH_OPTIONS, PUBSUB, PUBSUB_OWNER};
use super::tree::{Element, push_attribute};
use crate::model::{DeviceId, Protocol};

/// Most items that one request may name.
pub const MAX_ITEMS: usize = 128;
/// Longest item id taken, in bytes.
pub const MAX_ITEM_ID: usize = 255;

/// A node of an owner's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Node {
    /// The device list of a protocol.
    DeviceList(Protocol),
    /// `urn:xmpp:omemo:2:bundles`: one item per device.
    Bundles,
    /// `eu.siacs.conversations.axolotl.bundles:ID`: one node per device.
    LegacyBundle(DeviceId),
}

const LEGACY_BUNDLE_PREFIX: &str = "eu.siacs.conversations.axolotl.bundles:";

impl Node {
    /// The node of this name, if it is one of OMEMO's.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "urn:xmpp:omemo:2:devices" => Some(Self::DeviceList(Protocol::Omemo2)),
            "urn:xmpp:omemo:2:bundles" => Some(Self::Bundles),
            "eu.siacs.conversations.axolotl.devicelist" => Some(Self::DeviceList(Protocol::Legacy)),
            other => DeviceId::parse(other.strip_prefix(LEGACY_BUNDLE_PREFIX)?).ok().map(Self::LegacyBundle),
        }
    }

    /// Its name.
    pub fn name(self) -> String {
        match self {
            Self::DeviceList(Protocol::Omemo2) => format!("{OMEMO_2}:devices"),
            Self::DeviceList(Protocol::Legacy) => format!("{OMEMO_LEGACY}.devicelist"),
            Self::Bundles => format!("{OMEMO_2}:bundles"),
            Self::LegacyBundle(device) => format!("{LEGACY_BUNDLE_PREFIX}{device}"),
        }
    }

    /// The protocol that it belongs to.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::DeviceList(protocol) => protocol,
            Self::Bundles => Protocol::Omemo2,
            Self::LegacyBundle(_) => Protocol::Legacy,
        }
    }
}

/// A request. Borrows the payload of a publish from the stanza.
#[derive(Debug)]
pub enum Request<'e, 'a> {
    /// Fetch items: those named, or all; at most `max_items`.
    Items {
        /// From which node.
        node: Node,
        /// Which; empty for all.
        ids: Vec<String>,
        /// The newest so many.
        max_items: Option<usize>,
    },
    /// Publish an item.
    Publish {
        /// To which node.
        node: Node,
        /// Under which id, if the client chose one.
        id: Option<String>,
        /// The payload.
        payload: &'e Element<'a>,
    },
    /// Retract items.
    Retract {
        /// From which node.
        node: Node,
        /// Which.
        ids: Vec<String>,
    },
    /// Delete a node.
    Delete {
        /// Which.
        node: Node,
    },
    /// Subscribe to a node.
    Subscribe {
        /// Which.
        node: Node,
        /// The JID to be told, as written.
        jid: String,
    },
    /// End a subscription.
    Unsubscribe {
        /// Of which node.
        node: Node,
        /// The JID to be told no more, as written.
        jid: String,
    },
}

impl<'e, 'a> Request<'e, 'a> {
    /// Reads the `<pubsub/>` of an IQ. The error is the answer that XEP-0060 names.
    pub fn parse(pubsub: &'e Element<'a>, is_set: bool) -> Result<Self, StanzaError> {
        let namespace = if pubsub.is("pubsub", PUBSUB_OWNER) { PUBSUB_OWNER } else { PUBSUB };
        let verb = pubsub
            .children()
            .iter()
            .find(|child| child.namespace() == namespace && child.name() != "publish-options")
            .ok_or_else(|| StanzaError::new(Condition::BadRequest, "an empty pubsub request"))?;
        match (namespace, verb.name(), is_set) {
            (PUBSUB, "items", false) => Self::items(verb),
            (PUBSUB, "publish", true) => Self::publish(pubsub, verb),
            (PUBSUB, "retract", true) => {
                let ids = item_ids(verb)?;
                if ids.is_empty() {
                    let error = StanzaError::new(Condition::BadRequest, "say which items to retract");
                    return Err(error.with_pubsub(PubsubCondition::ItemRequired));
                }
                Ok(Self::Retract { node: node(verb)?, ids })
            }
            (PUBSUB, "subscribe", true) => Ok(Self::Subscribe { node: node(verb)?, jid: jid(verb)? }),
            (PUBSUB, "unsubscribe", true) => Ok(Self::Unsubscribe { node: node(verb)?, jid: jid(verb)? }),
            (PUBSUB_OWNER, "delete", true) => Ok(Self::Delete { node: node(verb)? }),
            (_, name, _) => Err(unsupported(name)),
        }
    }

    fn items(verb: &Element<'_>) -> Result<Self, StanzaError> {
        let max_items = match verb.attribute("max_items") {
            None => None,
            Some(text) => Some(
                text.parse()
                    .ok()
                    .filter(|max| *max > 0)
                    .ok_or_else(|| StanzaError::new(Condition::BadRequest, "max_items must be a positive number"))?,
            ),
        };
        Ok(Self::Items { node: node(verb)?, ids: item_ids(verb)?, max_items })
    }

    fn publish(pubsub: &'e Element<'a>, verb: &'e Element<'a>) -> Result<Self, StanzaError> {
        let node = node(verb)?;
        if let Some(options) = pubsub.child("publish-options", PUBSUB) {
            check_options(options)?;
        }
        let mut items = verb.children_named("item", PUBSUB);
        let item = items.next().ok_or_else(|| {
            StanzaError::new(Condition::BadRequest, "a publish needs an item")
                .with_pubsub(PubsubCondition::ItemRequired)
        })?;
        if items.next().is_some() {
            return Err(StanzaError::new(Condition::BadRequest, "publish one item at a time"));
        }
        let [payload] = item.children() else {
            let (condition, text) = if item.children().is_empty() {
                (PubsubCondition::PayloadRequired, "the item has no payload")
            } else {
                (PubsubCondition::InvalidPayload, "an item has exactly one payload")
            };
            return Err(StanzaError::new(Condition::BadRequest, text).with_pubsub(condition));
        };
        let id = item.attribute("id").filter(|id| !id.is_empty()).map(checked_id).transpose()?;
        Ok(Self::Publish { node, id, payload })
    }
}

fn node(verb: &Element<'_>) -> Result<Node, StanzaError> {
    let name = verb.attribute("node").ok_or_else(|| {
        StanzaError::new(Condition::BadRequest, "which node?").with_pubsub(PubsubCondition::NodeIdRequired)
    })?;
    Node::parse(name).ok_or_else(|| StanzaError::new(Condition::ItemNotFound, "only OMEMO's nodes are kept here"))
}

fn jid(verb: &Element<'_>) -> Result<String, StanzaError> {
    verb.attribute("jid")
        .map(str::to_owned)
        .ok_or_else(|| StanzaError::new(Condition::BadRequest, "which JID?").with_pubsub(PubsubCondition::InvalidJid))
}

fn item_ids(verb: &Element<'_>) -> Result<Vec<String>, StanzaError> {
    let items: Vec<_> = verb.children_named("item", PUBSUB).collect();
    if items.len() > MAX_ITEMS {
        return Err(StanzaError::new(Condition::PolicyViolation, format!("at most {MAX_ITEMS} items in one request")));
    }
    items.into_iter().filter_map(|item| item.attribute("id")).map(checked_id).collect()
}

fn checked_id(id: &str) -> Result<String, StanzaError> {
    if id.len() > MAX_ITEM_ID {
        return Err(StanzaError::new(Condition::BadRequest, format!("an item id has at most {MAX_ITEM_ID} bytes")));
    }
    Ok(id.to_owned())
}

/// Publish-options are preconditions. The nodes here are open to read, kept for ever, and hold as many items as there are
/// devices; only an option that asks for less openness is truly refused.
fn check_options(options: &Element<'_>) -> Result<(), StanzaError> {
    let Some(form) = options.child("x", DATA_FORM) else { return Ok(()) };
    let value = |name: &str| {
        let field = form.children_named("field", DATA_FORM).find(|field| field.attribute("var") == Some(name))?;
        field.child("value", DATA_FORM).map(Element::text)
    };
    let refused =
        |text| Err(StanzaError::new(Condition::Conflict, text).with_pubsub(PubsubCondition::PreconditionNotMet));
    if value("FORM_TYPE").is_some_and(|kind| kind != PUBLISH_OPTIONS) {
        return Err(StanzaError::new(Condition::BadRequest, "these are not publish-options"));
    }
    if value("pubsub#access_model").is_some_and(|model| model != "open") {
        return refused("OMEMO's nodes are always open to read");
    }
    if value("pubsub#persist_items").is_some_and(|persist| !matches!(persist, "true" | "1")) {
        return refused("OMEMO's nodes are always kept");
    }
    Ok(())
}

fn unsupported(verb: &str) -> StanzaError {
    let feature = match verb {
        "configure" => "config-node",
        "create" => "create-nodes",
        "affiliations" => "modify-affiliations",
        "subscriptions" => "retrieve-subscriptions",
        "purge" => "purge-nodes",
        "default" => "retrieve-default",
        "options" => "subscription-options",
        _ => return StanzaError::new(Condition::FeatureNotImplemented, "this pubsub request is not offered here"),
    };
    StanzaError::new(Condition::FeatureNotImplemented, format!("{feature} is not offered here"))
        .with_pubsub(PubsubCondition::Unsupported(feature))
}

/// One item of an answer or event: its id and its payload, a standalone element; empty for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The item id.
    pub id: String,
    /// The payload.
    pub payload: String,
}

fn push_items(out: &mut String, node: Node, items: &[Item]) {
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
    let mut out = format!("<pubsub xmlns='{PUBSUB}'><subscription");
    push_attribute(&mut out, "node", &node.name());
    push_attribute(&mut out, "jid", jid);
    push_attribute(&mut out, "subscription", if subscribed { "subscribed" } else { "none" });
    out.push_str("/></pubsub>");
    out
}

/// `<event><items/></event>`: what a subscriber is told.
pub fn event(node: Node, items: &[Item]) -> String {
    let mut out = format!("<event xmlns='{}'>", super::namespace::PUBSUB_EVENT);
    push_items(&mut out, node, items);
    out.push_str("</event>");
    out
}

/// `<event><delete/></event>`: what a subscriber is told when a node is gone.
pub fn delete_event(node: Node) -> String {
    let mut out = format!("<event xmlns='{}'><delete", super::namespace::PUBSUB_EVENT);
    push_attribute(&mut out, "node", &node.name());
    out.push_str("/></event>");
    out
}
