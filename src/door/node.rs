//! Answers about an owner's nodes: which there are, what they are and how they are configured (XEP-0060 §5, §8.2).

use super::service::Answer;
use crate::directory::{Contents, Directory, DirectoryError};
use crate::model::{Owner, Protocol, Requester};
use crate::stanza::disco;
use crate::stanza::error::{Condition, StanzaError};
use crate::stanza::pubsub::{self, Affiliation, Node, Subscription, configuration};

use super::directory::{CURRENT, stanza_error};

/// disco#info of a node.
pub(super) async fn info(
    directory: &Directory,
    owner: &Owner,
    node: Node,
    address: &str,
) -> Result<Answer, StanzaError> {
    items_of(directory, owner, node).await?;
    Ok(Answer::result(disco::node_info(node, address)))
}

/// disco#items of a node: the ids of its items.
pub(super) async fn items(
    directory: &Directory,
    owner: &Owner,
    node: Node,
    address: &str,
) -> Result<Answer, StanzaError> {
    let ids = items_of(directory, owner, node).await?;
    Ok(Answer::result(disco::node_items(address, node, &ids)))
}

/// disco#items of an account: its nodes.
pub(super) async fn nodes(directory: &Directory, owner: &Owner, address: &str) -> Result<Answer, StanzaError> {
    Ok(Answer::result(disco::items(address, &existing(directory, owner).await?)))
}

/// How a node is configured, for its owner.
pub(super) async fn configuration(
    directory: &Directory,
    owner: &Owner,
    requester: &Requester,
    node: Node,
) -> Result<Answer, StanzaError> {
    only_owner(owner, requester)?;
    items_of(directory, owner, node).await?;
    Ok(Answer::result(configuration::result(node)))
}

/// A configuration that says what holds, or was called off: there is nothing to change.
pub(super) async fn configure(
    directory: &Directory,
    owner: &Owner,
    requester: &Requester,
    node: Node,
) -> Result<Answer, StanzaError> {
    only_owner(owner, requester)?;
    items_of(directory, owner, node).await?;
    Ok(Answer::default())
}

/// The requester's own subscriptions, to one node or to all.
pub(super) async fn subscriptions(
    directory: &Directory,
    owner: &Owner,
    requester: &Requester,
    node: Option<Node>,
) -> Result<Answer, StanzaError> {
    let mut found = Vec::new();
    for protocol in Protocol::ALL {
        let list = Node::DeviceList(protocol);
        if node.is_none_or(|node| node == list) {
            let own = directory.subscriptions(owner, requester, protocol).await.map_err(stanza_error)?;
            found.extend(own.into_iter().map(|jid| Subscription { node: list, jid: jid.to_string() }));
        }
    }
    Ok(Answer::result(pubsub::subscriptions(node, &found)))
}

/// How the requester stands to a node, or to all that there are.
pub(super) async fn affiliations(
    directory: &Directory,
    owner: &Owner,
    requester: &Requester,
    node: Option<Node>,
) -> Result<Answer, StanzaError> {
    let affiliation = if requester.is(owner) { Affiliation::Owner } else { Affiliation::None };
    let nodes = match node {
        Some(node) => {
            items_of(directory, owner, node).await?;
            vec![node]
        }
        None if affiliation == Affiliation::None => Vec::new(),
        None => existing(directory, owner).await?,
    };
    Ok(Answer::result(pubsub::affiliations(node, &nodes, affiliation)))
}

fn only_owner(owner: &Owner, requester: &Requester) -> Result<(), StanzaError> {
    if requester.is(owner) { Ok(()) } else { Err(stanza_error(DirectoryError::NotTheOwner)) }
}

async fn existing(directory: &Directory, owner: &Owner) -> Result<Vec<Node>, StanzaError> {
    let mut nodes = Vec::new();
    for Contents { protocol, has_list, bundles } in directory.contents(owner).await.map_err(stanza_error)? {
        nodes.extend(has_list.then_some(Node::DeviceList(protocol)));
        match protocol {
            Protocol::Omemo2 => nodes.extend((!bundles.is_empty()).then_some(Node::Bundles)),
            Protocol::Legacy => nodes.extend(bundles.iter().map(|(device, _)| Node::LegacyBundle(*device))),
        }
    }
    Ok(nodes)
}

/// The ids of a node's items; an error if there is no such node.
async fn items_of(directory: &Directory, owner: &Owner, node: Node) -> Result<Vec<String>, StanzaError> {
    let contents = directory.contents(owner).await.map_err(stanza_error)?;
    let ids: Vec<String> = contents
        .into_iter()
        .filter(|contents| contents.protocol == node.protocol())
        .flat_map(|contents| match node {
            Node::DeviceList(_) => contents.has_list.then(|| CURRENT.to_owned()).into_iter().collect(),
            Node::Bundles => contents.bundles.into_iter().map(|(_, id)| id).collect(),
            Node::LegacyBundle(device) => {
                contents.bundles.into_iter().filter(|(id, _)| *id == device).map(|(_, id)| id).collect::<Vec<_>>()
            }
        })
        .collect();
    if ids.is_empty() {
        return Err(StanzaError::new(Condition::ItemNotFound, "this account has no such node"));
    }
    Ok(ids)
}
