//! Messages through the alias door: archived for both sides, then relayed to the addressee's account from the sender's alias.
//!
//! A message is relayed, and its sender told, only after it has been stored: what a client saw arrive is in the archive. What
//! is refused is refused before anything is stored.

use std::sync::Arc;

use bytes::Bytes;
use jid::Jid;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::address::{Addressee, Aliases};
use super::known_accounts::KnownAccounts;
use crate::archive::archive_id::{ArchiveIds, Named};
use crate::archive::classify::{Verdict, classify_with};
use crate::archive::ingest::{Committed, IngestHandle};
use crate::archive::metrics::ArchiveMetrics;
use crate::archive::retention::Retention;
use crate::archive::retraction::origin_of;
use crate::directory::{Directory, SentWith};
use crate::door::outcome::Accepted;
use crate::door::service::store_error;
use crate::link::LONGEST_STANZA;
use crate::model::{ArchiveId, ArchivedMessage, Class, Clock, Copy, Direction, Owner, Requester, Setting};
use crate::stanza::error::{Condition, StanzaError};
use crate::stanza::incoming::{Incoming, Kind};
use crate::stanza::meaning::meaning;
use crate::stanza::message::{Message, MessageError, MessageType, assemble};
use crate::stanza::namespace::MULTIEND;
use crate::stanza::omemo::Encrypted;
use crate::stanza::stanza_id::push_stanza_id;
use crate::stanza::tree::push_attribute;
use crate::stanza::{ephemeral, key_exchange, omemo};
use crate::store::{Appended, SharedStore};

/// Longest message taken, in bytes without its addresses. What is put around it for its delivery, or for an answer from the
/// archive, must fit into one stanza beside it; four addresses and a query id, escaped, are the most of that.
const MAX_MESSAGE: usize = LONGEST_STANZA - 32 * 1024;

/// Bytes of messages that wait to be stored or sent on. Beyond that, no more are read from the server.
const WAITING_BYTES: u32 = 64 * 1024 * 1024;

/// What is sent once a message has been stored, or could not be.
#[derive(Debug)]
pub struct AcceptedMessage {
    /// To the addressee.
    relay: Box<Relay>,
    /// To the sender, if it asked.
    acknowledgement: Option<Box<Acknowledgement>>,
    /// To the sender instead of both.
    refused: String,
    /// Its share of [`WAITING_BYTES`], given back once it has been sent on.
    _room: OwnedSemaphorePermit,
}

impl AcceptedMessage {
    /// The stanzas that follow from what became of the message: to the addressee and, if it asked, to the sender; in this
    /// order. An archive whose owner does not want the message holds none, and no id of it is told.
    pub fn outcome(committed: Committed<Self>) -> Vec<String> {
        let Self { relay, acknowledgement, refused, .. } = committed.token;
        let Ok(copies) = committed.result else { return vec![refused] };
        let held = |copy: Option<&Appended>| matches!(copy, Some(Appended::Stored(_) | Appended::Duplicate));
        // The sender's copy comes first; in a message to oneself it is also the recipient's.
        let Some(relayed) = relay.stanza(held(copies.last())) else { return vec![refused] };
        let acknowledgement = acknowledgement.map(|acknowledgement| acknowledgement.stanza(held(copies.first())));
        std::iter::once(relayed).chain(acknowledgement).collect()
    }
}

/// A message on its way to its addressee.
#[derive(Debug)]
struct Relay {
    body: Bytes,
    from: String,
    to: String,
    /// The recipient's archive and the copy's id in it.
    archived: (String, ArchiveId),
}

impl Relay {
    /// The stanza, with the id in the recipient's archive if it is there. `None` for a body that is none, which
    /// [`Message::split`] never makes.
    fn stanza(&self, held: bool) -> Option<String> {
        let mut extra = String::new();
        if held {
            push_stanza_id(&mut extra, &self.archived.0, self.archived.1.as_str());
        }
        assemble(&self.body, Some(&self.from), Some(&self.to), None, &extra).ok()
    }
}

/// The word that a message is durable, for a sender that asked (docs/protocol.md).
#[derive(Debug)]
struct Acknowledgement {
    from: String,
    to: String,
    /// The id of the stanza that it is about.
    about: String,
    /// The sender's archive and the copy's id in it.
    archived: (String, ArchiveId),
}

impl Acknowledgement {
    /// The stanza, with the id in the sender's archive if it is there.
    fn stanza(&self, held: bool) -> String {
        let mut out = String::from("<message type='headline'");
        push_attribute(&mut out, "from", &self.from);
        push_attribute(&mut out, "to", &self.to);
        out.push_str("><archived");
        push_attribute(&mut out, "xmlns", MULTIEND);
        push_attribute(&mut out, "for", &self.about);
        out.push('>');
        if held {
            push_stanza_id(&mut out, &self.archived.0, self.archived.1.as_str());
        }
        out.push_str("</archived></message>");
        out
    }
}

/// What the door stands on.
pub struct MessageServices {
    /// Where accounts are known.
    pub store: SharedStore,
    /// Learns which device a session is.
    pub directory: Arc<Directory>,
    /// Names copies.
    pub ids: ArchiveIds,
    /// Whether and how long copies are kept.
    pub retention: Setting<Retention>,
    /// The time of copies.
    pub clock: Arc<dyn Clock>,
    /// The archive's writer.
    pub ingest: IngestHandle<Accepted>,
    /// Counts what is not archived.
    pub metrics: ArchiveMetrics,
}

/// The door for messages.
pub struct MessageDoor {
    aliases: Arc<Aliases>,
    accounts: KnownAccounts,
    services: MessageServices,
    room: Arc<Semaphore>,
}

/// Who writes to whom.
struct Parties {
    sender: Owner,
    sender_resource: Option<String>,
    recipient: Owner,
}

impl MessageDoor {
    /// A door to an archive's writer.
    pub fn new(aliases: Arc<Aliases>, services: MessageServices) -> Self {
        let room = Arc::new(Semaphore::new(usize::try_from(WAITING_BYTES).unwrap_or(usize::MAX)));
        Self { aliases, accounts: KnownAccounts::new(services.store.clone()), services, room }
    }

    /// Takes a message in. Waits while the writer's queue is full. The error is for the sender, and means that nothing was
    /// stored or relayed; a stanza to be sent at once is given back.
    pub async fn accept(&self, incoming: &Incoming<'_>) -> Result<Option<String>, StanzaError> {
        let kind = match incoming.kind {
            Kind::Message(kind) => kind,
            _ => return Ok(None),
        };
        if kind == MessageType::Error {
            return Ok(self.bounced(incoming));
        }
        let parties = self.parties(incoming).await?;
        if kind == MessageType::Groupchat {
            return Err(StanzaError::new(Condition::ServiceUnavailable, "an account is not a room"));
        }
        let message = self
            .split(incoming, [&parties.sender, &parties.recipient])
            .map_err(|error| StanzaError::new(Condition::BadRequest, error.to_string()))?;
        if message.body.len() > MAX_MESSAGE {
            let text = format!("a message may have at most {MAX_MESSAGE} bytes here");
            return Err(StanzaError::new(Condition::PolicyViolation, text));
        }
        let encrypted = omemo::find(&incoming.element);
        let class = match self.services.retention.get().apply(classify_with(&incoming.element, &encrypted)) {
            Verdict::Archive(class) => Some(class),
            Verdict::Skip(reason) => {
                self.services.metrics.skipped(reason);
                None
            }
        };
        self.learn(&parties, incoming, &encrypted).await;
        let shutting_down =
            || StanzaError::new(Condition::ResourceConstraint, "the archive is shutting down; try again");
        // Once as it is kept, and once as it is sent on.
        let bytes = u32::try_from(message.body.len().saturating_mul(2)).unwrap_or(WAITING_BYTES).min(WAITING_BYTES);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await.map_err(|_| shutting_down())?;
        let (archived, token) = self.prepare(incoming, &parties, message, class, &encrypted, room)?;
        self.services.ingest.submit(archived, token.into()).await.map_err(|_| shutting_down())?;
        Ok(None)
    }

    /// The message without the stanza-ids that only we give: under the parties' aliases, and under the component's name.
    fn split(&self, incoming: &Incoming<'_>, parties: [&Owner; 2]) -> Result<Message, MessageError> {
        let aliases = parties.into_iter().filter_map(|owner| self.aliases.alias(owner.jid()));
        let own_addresses: Vec<_> = aliases.chain([self.aliases.component_jid()]).collect();
        Message::split(&incoming.element, &own_addresses.iter().collect::<Vec<_>>())
    }

    /// Sender and recipient, if both are accounts of ours.
    async fn parties(&self, incoming: &Incoming<'_>) -> Result<Parties, StanzaError> {
        let sender = self.aliases.local_account(&incoming.from).ok_or_else(|| {
            StanzaError::new(Condition::Forbidden, "an alias takes messages from accounts of its own server only")
        })?;
        let nobody = || StanzaError::new(Condition::ServiceUnavailable, "no such account here");
        let recipient = match self.aliases.addressee(&incoming.to) {
            Addressee::Alias(owner, _) => owner,
            Addressee::Component | Addressee::Nobody => return Err(nobody()),
        };
        // The sender's own server vouches for the sender; whether the recipient exists, only its own use of this service tells.
        if sender != recipient && !self.accounts.exists(&recipient).await.map_err(|error| store_error(&error))? {
            return Err(nobody());
        }
        let sender_resource = incoming.from.resource().map(|resource| resource.as_str().to_owned());
        Ok(Parties { sender, sender_resource, recipient })
    }

    /// Remembers which device this session is: it says so in what it sends.
    async fn learn(&self, parties: &Parties, incoming: &Incoming<'_>, encrypted: &[Encrypted<'_>]) {
        let (owner, requester) = (&parties.sender, &Requester::new(incoming.from.clone()));
        let said = encrypted.iter().filter_map(|encrypted| Some((encrypted.protocol, encrypted.sid?)));
        let sent: Vec<_> = said.map(|(protocol, sid)| SentWith { owner, requester, protocol, sid }).collect();
        if let Err(error) = self.services.directory.all_sent_with(&sent).await {
            tracing::warn!(%error, "could not remember which device a session is");
        }
    }

    /// What is stored, and what is sent afterwards.
    fn prepare(
        &self,
        incoming: &Incoming<'_>,
        parties: &Parties,
        message: Message,
        class: Option<Class>,
        encrypted: &[Encrypted<'_>],
        room: OwnedSemaphorePermit,
    ) -> Result<(ArchivedMessage, AcceptedMessage), StanzaError> {
        let Parties { sender, sender_resource, recipient } = parties;
        let at = self.services.clock.now();
        let content = meaning(&incoming.element, &["from", "to"]);
        let id = |owner| {
            let named = Named {
                owner,
                sender: sender.jid(),
                recipient: recipient.jid(),
                stanza_id: message.id.as_deref(),
                content: content.as_bytes(),
            };
            self.services
                .ids
                .id(&named)
                .map_err(|error| StanzaError::new(Condition::InternalServerError, error.to_string()))
        };
        let (sent_id, received_id) = (id(sender)?, id(recipient)?);
        let recipient_alias = self.aliases.alias_text(recipient.jid());
        let relay = Box::new(Relay {
            body: message.body.clone(),
            from: with_resource(&self.aliases.alias_text(sender.jid()), sender_resource.as_deref()),
            to: recipient.as_str().to_owned(),
            archived: (recipient_alias.clone(), received_id.clone()),
        });
        let asked = class.is_some() && incoming.element.child("request", MULTIEND).is_some();
        let acknowledgement = asked.then(|| {
            Box::new(Acknowledgement {
                from: recipient_alias,
                to: incoming.from.to_string(),
                about: incoming.id.clone(),
                archived: (self.aliases.alias_text(sender.jid()), sent_id.clone()),
            })
        });
        let refused =
            incoming.error(&StanzaError::new(Condition::InternalServerError, "the message could not be stored"));

        let expires_at = class
            .and_then(|class| self.services.retention.get().expires_at(class, at, ephemeral::timer(&incoming.element)));
        let copy = |owner: &Owner, archive_id: ArchiveId, direction, peer: Jid, own_resource: Option<String>| Copy {
            owner: owner.clone(),
            archive_id,
            direction,
            peer,
            own_resource,
            expires_at,
        };
        let mut copies = Vec::new();
        if class.is_some() {
            let to_recipient = recipient.jid().clone().into();
            copies.push(copy(sender, sent_id, Direction::Sent, to_recipient, sender_resource.clone()));
            if sender != recipient {
                copies.push(copy(recipient, received_id, Direction::Received, incoming.from.clone(), None));
            }
        }
        // Without copies it is not stored; it keeps its place behind those before it.
        let class = class.unwrap_or(Class::Signal);
        let key_exchanges = key_exchange::find_in(encrypted, &Requester::new(incoming.from.clone()), recipient);
        let author = Jid::from(sender.jid().clone());
        let ids = &self.services.ids;
        let (origin, retracts) = origin_of(ids, &incoming.element, class, (&author, recipient.jid()), at);
        let archived = ArchivedMessage { class, at, body: message.body, origin, retracts, copies, key_exchanges };
        Ok((archived, AcceptedMessage { relay, acknowledgement, refused, _room: room }))
    }

    /// The server could not deliver what we relayed: its error goes on to the session that wrote.
    fn bounced(&self, incoming: &Incoming<'_>) -> Option<String> {
        let Addressee::Alias(sender, Some(resource)) = self.aliases.addressee(&incoming.to) else { return None };
        let recipient = self.aliases.local_account(&incoming.from)?;
        let message = self.split(incoming, [&sender, &recipient]).ok()?;
        if message.body.len() > MAX_MESSAGE {
            return None;
        }
        let to = with_resource(sender.as_str(), Some(&resource));
        assemble(&message.body, Some(&self.aliases.alias_text(recipient.jid())), Some(&to), None, "").ok()
    }
}

fn with_resource(bare: &str, resource: Option<&str>) -> String {
    resource.map_or_else(|| bare.to_owned(), |resource| format!("{bare}/{resource}"))
}
