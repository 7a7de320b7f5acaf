//! The one service behind all doors: it answers a request from the directory or the archive, and does not know how the
//! request came here.

use std::sync::Arc;
use std::time::Duration;

use jid::{BareJid, Jid};

use super::request::Request;
use super::{archive, directory, extension as extension_door, history, node, policy};
use crate::archive::query::Archive;
use crate::directory::Directory;
use crate::model::Owner;
use crate::stanza::disco::{self, Subject};
use crate::stanza::error::{Condition, StanzaError};
use crate::stanza::namespace::{DISCO_INFO, DISCO_ITEMS, MAM, MULTIEND, PUBSUB, PUBSUB_OWNER};
use crate::stanza::pubsub::{self, Node};
use crate::stanza::tree::Element;
use crate::stanza::{extension, history as history_stanza, mam, read};
use crate::store::StoreError;

/// What can be asked of an owner's directory or archive.
#[derive(Debug)]
pub enum Payload<'e, 'a> {
    /// OMEMO's nodes.
    Pubsub(pubsub::Request<'e, 'a>),
    /// The archive.
    Archive(mam::Request),
    /// How far the requester's device has read the archive.
    Read(read::Read),
    /// The history of the owner's devices.
    History(history_stanza::Request),
    /// Our own extension, about directories.
    Extension(extension::Request),
    /// What is offered here, or what a node is.
    DiscoInfo(Option<Node>),
    /// Which nodes there are, or which items a node has.
    DiscoItems(Option<Node>),
}

impl<'e, 'a> Payload<'e, 'a> {
    /// Reads the payload of an IQ. The error is the answer that its XEP names.
    pub fn parse(payload: &'e Element<'a>, is_set: bool) -> Result<Self, StanzaError> {
        match (payload.name(), payload.namespace()) {
            ("pubsub", PUBSUB | PUBSUB_OWNER) => pubsub::Request::parse(payload, is_set).map(Self::Pubsub),
            (_, MAM) => {
                let request = if is_set { mam::Request::from_set(payload) } else { mam::Request::from_get(payload) };
                request.map(Self::Archive).map_err(archive::request_error)
            }
            ("read", MULTIEND) if is_set => read::Read::parse(payload).map(Self::Read).map_err(archive::request_error),
            ("history", MULTIEND) if !is_set => {
                history_stanza::Request::parse(payload).map(Self::History).map_err(history::request_error)
            }
            (_, MULTIEND) => extension::Request::parse(payload, is_set).map(Self::Extension),
            ("query", DISCO_INFO) if !is_set => disco_node(payload).map(Self::DiscoInfo),
            ("query", DISCO_ITEMS) if !is_set => disco_node(payload).map(Self::DiscoItems),
            _ => Err(StanzaError::new(Condition::ServiceUnavailable, "this is not offered here")),
        }
    }
}

/// The node that discovery asks about, if it asks about one.
fn disco_node(query: &Element<'_>) -> Result<Option<Node>, StanzaError> {
    let Some(name) = query.attribute("node").filter(|name| !name.is_empty()) else { return Ok(None) };
    let node = Node::parse(name);
    node.map(Some).ok_or_else(|| StanzaError::new(Condition::ItemNotFound, "only OMEMO's nodes are kept here"))
}

/// How the addresses of a door's users look to them.
pub trait Addressing: Send + Sync {
    /// The JID at which an owner's directory and archive are asked.
    fn owner(&self, owner: &Owner) -> String;

    /// The JID under which the owner of an archive knows a peer.
    fn peer(&self, peer: &BareJid) -> String;

    /// The account behind a JID that a client named; `None` if there can be none.
    fn resolve(&self, jid: &Jid) -> Option<Jid>;
}

/// Something that another JID is to be told, from the owner's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Who is told.
    pub to: Jid,
    /// The payload of the message.
    pub payload: String,
}

/// An answer.
#[derive(Debug, Default)]
pub struct Answer {
    /// Payloads of messages to the requester, to be sent before the result.
    pub messages: Vec<String>,
    /// The payload of the IQ result; empty for none.
    pub result: String,
    /// What others are told.
    pub events: Vec<Event>,
}

impl Answer {
    /// An answer that is a result alone.
    pub fn result(result: String) -> Self {
        Self { result, ..Self::default() }
    }
}

/// Directory and archive.
pub struct Service {
    directory: Arc<Directory>,
    archive: Archive,
    settled: Box<dyn archive::Settled>,
}

impl Service {
    /// Longest wait of a query for copies that were accepted before it.
    const SETTLE: Duration = Duration::from_secs(10);

    /// A service. `settled` tells when everything that was accepted before has been stored.
    pub fn new(directory: Arc<Directory>, archive: Archive, settled: Box<dyn archive::Settled>) -> Self {
        Self { directory, archive, settled }
    }

    /// Answers a request.
    pub async fn answer(
        &self,
        request: Request<Payload<'_, '_>>,
        addressing: &dyn Addressing,
    ) -> Result<Answer, StanzaError> {
        let Request { requester, owner, relation, payload } = request;
        self.directory.seen(&owner, &requester).await;
        match payload {
            Payload::Pubsub(payload) => {
                directory::answer(&self.directory, Request { requester, owner, relation, payload }).await
            }
            Payload::Archive(payload) => {
                // A reader finds everything that it sent before it asked. Nobody else may hurry the writer.
                let settled = async {
                    if requester.is(&owner) {
                        self.settled.settled().await;
                    }
                };
                if tokio::time::timeout(Self::SETTLE, settled).await.is_err() {
                    return Err(StanzaError::new(Condition::ResourceConstraint, "the archive is busy; try again"));
                }
                archive::answer(&self.archive, Request { requester, owner, relation, payload }, addressing).await
            }
            Payload::Read(read) => {
                archive::read(&self.archive, Request { requester, owner, relation, payload: read }).await
            }
            Payload::History(payload) => {
                history::answer(&self.directory, Request { requester, owner, relation, payload }).await
            }
            Payload::Extension(payload) => {
                let request = Request { requester, owner, relation, payload };
                extension_door::answer(&self.directory, request, addressing).await
            }
            Payload::DiscoInfo(None) => {
                Ok(Answer::result(disco::info(Subject::Account, &policy::form(&self.archive.policy()))))
            }
            Payload::DiscoInfo(Some(node)) => {
                node::info(&self.directory, &owner, node, &addressing.owner(&owner)).await
            }
            Payload::DiscoItems(None) => node::nodes(&self.directory, &owner, &addressing.owner(&owner)).await,
            Payload::DiscoItems(Some(node)) => {
                node::items(&self.directory, &owner, node, &addressing.owner(&owner)).await
            }
        }
    }
}

/// What a requester is told of a database error: nothing but that it may try again.
pub(crate) fn store_error(error: &StoreError) -> StanzaError {
    match error {
        StoreError::Unavailable(_) => {
            tracing::warn!(%error, "the database is away");
            StanzaError::new(Condition::ResourceConstraint, "the database is away; try again")
        }
        StoreError::TooManyChanges | StoreError::Unconfirmed => {
            StanzaError::new(Condition::ResourceConstraint, error.to_string())
        }
        StoreError::TooManyBundles => StanzaError::new(Condition::PolicyViolation, error.to_string()),
        _ => {
            tracing::error!(%error, "a request failed in the database");
            StanzaError::new(Condition::InternalServerError, "a fault on our side; it has been logged")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use prometheus::Registry;

    use super::*;
    use crate::door::alias::Aliases;
    use crate::door::fixture;
    use crate::door::request::Relation;
    use crate::model::Requester;

    struct Counted(Arc<AtomicUsize>);

    #[async_trait::async_trait]
    impl archive::Settled for Counted {
        async fn settled(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn only_the_owner_of_an_archive_makes_its_writer_hurry() {
        let (store, _dir) = fixture::store().await;
        let hurried = Arc::new(AtomicUsize::new(0));
        let service = fixture::service(store, &Registry::new(), Box::new(Counted(hurried.clone())));
        let component = jid::DomainPart::new("multiend.example.org").unwrap().into_owned();
        for (requester, answered, times) in [("eve@example.org/x", false, 0), ("alice@example.org/x", true, 1)] {
            let request = Request {
                requester: Requester::parse(requester).unwrap(),
                owner: Owner::parse("alice@example.org").unwrap(),
                relation: Relation::Other,
                payload: Payload::Archive(mam::Request::Metadata),
            };
            let answer = service.answer(request, &Aliases::new(component.clone(), [])).await;
            assert_eq!((answer.is_ok(), hurried.load(Ordering::Relaxed)), (answered, times), "{requester}");
        }
    }
}
