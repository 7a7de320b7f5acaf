//! Requests, and the errors that XEP-0060 names for those that make no sense.

use super::configuration::{self, Submitted};
use super::node::Node;
use crate::stanza::error::{Condition, PubsubCondition, StanzaError};
use crate::stanza::namespace::{DATA_FORM, PUBSUB, PUBSUB_OWNER};
use crate::stanza::tree::Element;

/// Most items that one request may name.
pub const MAX_ITEMS: usize = 128;
/// Longest item id taken, in bytes.
pub const MAX_ITEM_ID: usize = 255;

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
    /// Which subscriptions the requester has.
    Subscriptions {
        /// To which node; to any if there is none.
        node: Option<Node>,
    },
    /// How the requester stands to nodes.
    Affiliations {
        /// To which; to all that exist if there is none.
        node: Option<Node>,
    },
    /// How a node is configured (XEP-0060 §8.2).
    Configuration {
        /// Which.
        node: Node,
    },
    /// Configure a node.
    Configure {
        /// Which.
        node: Node,
        /// How.
        form: Submitted,
    },
    /// How a new node would be configured (XEP-0060 §8.3).
    DefaultConfiguration,
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
            (PUBSUB, "subscriptions", false) => Ok(Self::Subscriptions { node: any_node(verb)? }),
            (PUBSUB, "affiliations", false) => Ok(Self::Affiliations { node: any_node(verb)? }),
            (PUBSUB_OWNER, "delete", true) => Ok(Self::Delete { node: node(verb)? }),
            (PUBSUB_OWNER, "configure", false) => Ok(Self::Configuration { node: node(verb)? }),
            (PUBSUB_OWNER, "configure", true) => {
                let node = node(verb)?;
                let form = verb.child("x", DATA_FORM).ok_or_else(|| {
                    StanzaError::new(Condition::BadRequest, "a configuration is a data form of type 'submit'")
                })?;
                Ok(Self::Configure { node, form: configuration::submitted(form, node)? })
            }
            (PUBSUB_OWNER, "default", false) => Ok(Self::DefaultConfiguration),
            (namespace, name, _) => Err(unsupported(namespace, name)),
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
            options.child("x", DATA_FORM).map_or(Ok(()), |form| configuration::check_options(form, node))?;
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

/// The node named, if one is.
fn any_node(verb: &Element<'_>) -> Result<Option<Node>, StanzaError> {
    verb.attribute("node").map(|_| node(verb)).transpose()
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

/// What XEP-0060 knows and OMEMO has no use for: by the name of the feature that is not there (XEP-0060 §10).
fn unsupported(namespace: &str, verb: &str) -> StanzaError {
    let feature = match (namespace, verb) {
        (_, "create") => "create-nodes",
        (_, "purge") => "purge-nodes",
        (_, "options") => "subscription-options",
        (PUBSUB_OWNER, "affiliations") => "modify-affiliations",
        (PUBSUB_OWNER, "subscriptions") => "manage-subscriptions",
        (PUBSUB, "default") => "retrieve-default-sub",
        _ => return StanzaError::new(Condition::FeatureNotImplemented, "this pubsub request is not offered here"),
    };
    StanzaError::new(Condition::FeatureNotImplemented, format!("{feature} is not offered here"))
        .with_pubsub(PubsubCondition::Unsupported(feature))
}
