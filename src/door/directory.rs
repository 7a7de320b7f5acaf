//! Answers pubsub requests from the directory, the same through every door.

use jid::Jid;

use super::node;
use super::request::Request;
use super::service::{Answer, Event};
use crate::directory::{BundleItem, BundleRefusal, Directory, DirectoryError};
use crate::model::{DeviceId, Owner, Protocol, PublishedBundle, Requester};
use crate::stanza::bundle::{self, BundleError};
use crate::stanza::device_list;
use crate::stanza::error::{Condition, PubsubCondition, StanzaError};
use crate::stanza::pubsub::configuration::{self, Submitted};
use crate::stanza::pubsub::{self, Item, Node};
use crate::stanza::tree::Element;

/// The id of the one item of a device list (XEP-0384 §5.3.1).
pub(super) const CURRENT: &str = "current";

/// Longest bundle taken, in bytes: it is kept as published. The largest that clients send, with 250 prekeys, has 30 KB.
const MAX_BUNDLE: usize = 64 * 1024;

/// Answers one request.
pub(super) async fn answer(
    directory: &Directory,
    request: Request<pubsub::Request<'_, '_>>,
) -> Result<Answer, StanzaError> {
    let Request { requester, owner, payload, .. } = request;
    match payload {
        pubsub::Request::Items { node, ids, max_items } => {
            items(directory, &owner, &requester, node, &ids, max_items).await
        }
        pubsub::Request::Publish { node, id, payload } => {
            publish(directory, &owner, &requester, node, id, payload).await
        }
        pubsub::Request::Retract { node, ids } => retract(directory, &owner, &requester, node, &ids).await,
        pubsub::Request::Delete { node } => delete(directory, &owner, &requester, node).await,
        pubsub::Request::Subscribe { node, jid } => {
            let (protocol, jid) = subscription(node, &jid, &requester)?;
            directory.subscribe(&owner, protocol, &jid).await.map_err(stanza_error)?;
            Ok(Answer::result(pubsub::subscription_result(node, jid.as_str(), true)))
        }
        pubsub::Request::Unsubscribe { node, jid } => {
            let (protocol, jid) = subscription(node, &jid, &requester)?;
            directory.unsubscribe(&owner, protocol, &jid).await.map_err(stanza_error)?;
            Ok(Answer::result(pubsub::subscription_result(node, jid.as_str(), false)))
        }
        pubsub::Request::Subscriptions { node } => node::subscriptions(directory, &owner, &requester, node).await,
        pubsub::Request::Affiliations { node } => node::affiliations(directory, &owner, &requester, node).await,
        pubsub::Request::Configuration { node } => node::configuration(directory, &owner, &requester, node).await,
        pubsub::Request::Configure { node, form: Submitted::Holds | Submitted::Cancelled } => {
            node::configure(directory, &owner, &requester, node).await
        }
        pubsub::Request::DefaultConfiguration => Ok(Answer::result(configuration::default_result())),
    }
}

async fn items(
    directory: &Directory,
    owner: &Owner,
    requester: &Requester,
    node: Node,
    ids: &[String],
    max_items: Option<usize>,
) -> Result<Answer, StanzaError> {
    let max = max_items.unwrap_or(pubsub::MAX_ITEMS).min(pubsub::MAX_ITEMS);
    let protocol = node.protocol();
    let items = match node {
        Node::DeviceList(_) => {
            let list = directory.device_list(owner, requester, protocol).await.map_err(stanza_error)?;
            vec![Item { id: CURRENT.to_owned(), payload: device_list::write(&list, protocol) }]
        }
        Node::Bundles => {
            let devices: Vec<DeviceId> = ids.iter().filter_map(|id| DeviceId::parse(id).ok()).collect();
            let devices = if ids.is_empty() { None } else { Some(devices.as_slice()) };
            bundles(directory, owner, requester, protocol, devices, max).await?
        }
        Node::LegacyBundle(device) => bundles(directory, owner, requester, protocol, Some(&[device]), max).await?,
    };
    Ok(Answer::result(pubsub::items_result(node, &items)))
}

async fn bundles(
    directory: &Directory,
    owner: &Owner,
    requester: &Requester,
    protocol: Protocol,
    devices: Option<&[DeviceId]>,
    max: usize,
) -> Result<Vec<Item>, StanzaError> {
    let bundles = directory.bundles(owner, requester, protocol, devices, max).await.map_err(stanza_error)?;
    Ok(bundles
        .into_iter()
        .map(|item| match item {
            BundleItem::AsPublished { item_id, payload, .. } => {
                Item { id: item_id, payload: String::from_utf8_lossy(&payload).into_owned() }
            }
            BundleItem::WithPrekey { item_id, identity_key, signed_prekey, prekey, .. } => {
                Item { id: item_id, payload: bundle::write(&identity_key, &signed_prekey, &[prekey], protocol) }
            }
        })
        .collect())
}

async fn publish(
    directory: &Directory,
    owner: &Owner,
    requester: &Requester,
    node: Node,
    id: Option<String>,
    payload: &Element<'_>,
) -> Result<Answer, StanzaError> {
    // Before the payload is read: a stranger learns nothing about what would be accepted.
    if !requester.is(owner) {
        return Err(stanza_error(DirectoryError::NotTheOwner));
    }
    let protocol = node.protocol();
    let device = match node {
        Node::DeviceList(_) => {
            let list = device_list::parse(payload, protocol).map_err(|error| invalid_payload(&error))?;
            let change =
                directory.publish_device_list(owner, requester, protocol, &list).await.map_err(stanza_error)?;
            let item = Item { id: CURRENT.to_owned(), payload: device_list::write(&change.list, protocol) };
            return Ok(Answer {
                result: pubsub::publish_result(node, CURRENT),
                events: events(change.announce_to, &pubsub::event(node, &[item])),
                ..Answer::default()
            });
        }
        Node::LegacyBundle(device) => device,
        Node::Bundles => {
            let text = "the item id of a bundle is the id of its device, 1 to 2147483647";
            let id = id.as_deref().and_then(|id| DeviceId::parse(id).ok());
            id.ok_or_else(|| StanzaError::new(Condition::BadRequest, text))?
        }
    };
    let bundle = bundle::parse(payload, protocol).map_err(|error| {
        directory.refused_bundle(protocol, refusal(&error));
        invalid_payload(&error)
    })?;
    let payload = payload.standalone();
    if payload.len() > MAX_BUNDLE {
        directory.refused_bundle(protocol, BundleRefusal::TooLong);
        let error = StanzaError::new(Condition::NotAcceptable, format!("a bundle has at most {MAX_BUNDLE} bytes"));
        return Err(error.with_pubsub(PubsubCondition::PayloadTooBig));
    }
    let item_id = match node {
        Node::Bundles => device.to_string(),
        _ => id.unwrap_or_else(|| CURRENT.to_owned()),
    };
    let published = PublishedBundle { bundle, item_id: item_id.clone(), payload: payload.into() };
    directory.publish_bundle(owner, requester, protocol, device, &published).await.map_err(stanza_error)?;
    Ok(Answer::result(pubsub::publish_result(node, &item_id)))
}

async fn retract(
    directory: &Directory,
    owner: &Owner,
    requester: &Requester,
    node: Node,
    ids: &[String],
) -> Result<Answer, StanzaError> {
    let devices: Vec<DeviceId> = match node {
        Node::DeviceList(protocol) => {
            let told = directory.delete_device_list(owner, requester, protocol).await.map_err(stanza_error)?;
            return Ok(Answer { events: events(told, &pubsub::retract_event(node, CURRENT)), ..Answer::default() });
        }
        Node::LegacyBundle(device) => vec![device],
        Node::Bundles => ids.iter().filter_map(|id| DeviceId::parse(id).ok()).collect(),
    };
    directory.retract_bundles(owner, requester, node.protocol(), &devices).await.map_err(stanza_error)?;
    Ok(Answer::default())
}

async fn delete(
    directory: &Directory,
    owner: &Owner,
    requester: &Requester,
    node: Node,
) -> Result<Answer, StanzaError> {
    let protocol = node.protocol();
    match node {
        Node::DeviceList(_) => {
            let told = directory.delete_device_list(owner, requester, protocol).await.map_err(stanza_error)?;
            Ok(Answer { events: events(told, &pubsub::delete_event(node)), ..Answer::default() })
        }
        Node::LegacyBundle(device) => {
            directory.retract_bundles(owner, requester, protocol, &[device]).await.map_err(stanza_error)?;
            Ok(Answer::default())
        }
        Node::Bundles => {
            directory.retract_all_bundles(owner, requester, protocol).await.map_err(stanza_error)?;
            Ok(Answer::default())
        }
    }
}

/// Which protocol's list, and the JID to tell, which must be the requester's own (XEP-0060 §6.1.3.1).
fn subscription(node: Node, jid: &str, requester: &Requester) -> Result<(Protocol, Jid), StanzaError> {
    let Node::DeviceList(protocol) = node else {
        let error = StanzaError::new(Condition::FeatureNotImplemented, "only device lists can be subscribed to");
        return Err(error.with_pubsub(PubsubCondition::Unsupported("subscribe")));
    };
    let jid = Jid::new(jid)
        .ok()
        .filter(|jid| jid.to_bare() == requester.jid().to_bare() && (jid.is_bare() || jid == requester.jid()));
    let error = || StanzaError::new(Condition::BadRequest, "you can subscribe only yourself");
    Ok((protocol, jid.ok_or_else(|| error().with_pubsub(PubsubCondition::InvalidJid))?))
}

pub(super) fn events(told: Vec<Jid>, payload: &str) -> Vec<Event> {
    told.into_iter().map(|to| Event { to, payload: payload.to_owned() }).collect()
}

fn refusal(error: &BundleError) -> BundleRefusal {
    match error {
        BundleError::Payload(_) | BundleError::Missing(_) => BundleRefusal::Element,
        BundleError::Base64(_) => BundleRefusal::Base64,
        BundleError::PrekeyId(_) | BundleError::SignedPrekeyId => BundleRefusal::PrekeyId,
        BundleError::Shape(shape) => shape.into(),
    }
}

fn invalid_payload(error: &dyn std::error::Error) -> StanzaError {
    StanzaError::new(Condition::BadRequest, error.to_string()).with_pubsub(PubsubCondition::InvalidPayload)
}

/// The error that XEP-0060 names.
pub(super) fn stanza_error(error: DirectoryError) -> StanzaError {
    let condition = match &error {
        DirectoryError::NotTheOwner => Condition::Forbidden,
        DirectoryError::NotFound(_) | DirectoryError::NotOnChain => Condition::ItemNotFound,
        DirectoryError::Limited(_) => Condition::ResourceConstraint,
        DirectoryError::Signature(_) => return invalid_payload(&error),
        DirectoryError::TooManyDevices(_) | DirectoryError::TooManySubscribers | DirectoryError::TooManySessions => {
            Condition::PolicyViolation
        }
        DirectoryError::NotSubscribed => {
            let error = StanzaError::new(Condition::ItemNotFound, error.to_string());
            return error.with_pubsub(PubsubCondition::NotSubscribed);
        }
        DirectoryError::Store(store) => return super::service::store_error(store),
    };
    StanzaError::new(condition, error.to_string())
}
