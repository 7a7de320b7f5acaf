//! Copies of messages from a server: they go into the archive under the ids that the server has stamped on them.
//!
//! The answer to a batch says that all of it is durable. A batch goes into the one writer path in its order; another one of
//! the same server is refused until the first has been answered, so that a database that is away fills no memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jid::{DomainPart, Jid};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Servers;
use crate::archive::archive_id::ArchiveIds;
use crate::archive::classify::{Verdict, classify_with};
use crate::archive::ingest::{Committed, IngestHandle};
use crate::archive::metrics::ArchiveMetrics;
use crate::archive::retention::Retention;
use crate::archive::retraction::origin_of;
use crate::directory::{Directory, SentWith};
use crate::door::outcome::Accepted;
use crate::link::LONGEST_STANZA;
use crate::model::{ArchiveId, ArchivedMessage, Clock, Copy, DeviceId, Direction, Owner, Protocol, Requester, Setting};
use crate::stanza::copies::{self, CopyOf, RefusedCopy};
use crate::stanza::error::{Condition, StanzaError};
use crate::stanza::incoming::Incoming;
use crate::stanza::message::{Message, MessageError};
use crate::stanza::omemo::{self, Encrypted};
use crate::stanza::tree::Element;
use crate::stanza::{ephemeral, key_exchange};

/// Longest message taken, in bytes: with what is put around it in an answer, it must fit into one stanza.
const MAX_MESSAGE: usize = LONGEST_STANZA - 32 * 1024;

/// The two copies of one message leave a server at once; when they are this far apart, they are two messages.
const SAME_MESSAGE: Duration = Duration::from_secs(1);

/// What the door stands on.
pub struct CopyServices {
    /// Learns which device a session is.
    pub directory: Arc<Directory>,
    /// Names messages for those that take them back.
    pub ids: ArchiveIds,
    /// Whether and how long copies are kept.
    pub retention: Setting<Retention>,
    /// The present time.
    pub clock: Arc<dyn Clock>,
    /// The archive's writer.
    pub ingest: IngestHandle<Accepted>,
    /// Counts what is not archived.
    pub metrics: ArchiveMetrics,
}

/// The door for copies.
pub struct CopyDoor {
    servers: Servers,
    services: CopyServices,
    /// One batch of each server at a time.
    turns: Mutex<BTreeMap<DomainPart, Arc<Semaphore>>>,
}

/// A message of a batch that waits to be stored.
#[derive(Debug)]
pub struct AcceptedCopies {
    /// Its copies.
    names: Vec<(Owner, ArchiveId)>,
    batch: Arc<Batch>,
    /// This one is the last: once it is stored, the batch is.
    is_last: bool,
}

/// A batch that is being stored.
#[derive(Debug)]
struct Batch {
    refused: Mutex<Vec<RefusedCopy>>,
    /// Writes the answer around its payload.
    answer: Envelope,
    _turn: OwnedSemaphorePermit,
}

/// The start and the end of the answer to a batch.
#[derive(Debug)]
struct Envelope {
    before: String,
    after: String,
}

impl Envelope {
    const MARK: &'static str = "<copies/>";

    fn of(iq: &Incoming<'_>) -> Self {
        let whole = iq.result(Self::MARK);
        let (before, after) = whole.rsplit_once(Self::MARK).unwrap_or((&whole, ""));
        Self { before: before.to_owned(), after: after.to_owned() }
    }

    fn around(&self, payload: &str) -> String {
        [&self.before, payload, &self.after].concat()
    }
}

impl AcceptedCopies {
    /// The answer to the batch, once all of it is stored.
    pub fn outcome(committed: Committed<Self>) -> Vec<String> {
        let Committed { token, result } = committed;
        let mut refused = token.batch.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if result.is_err() {
            refused.extend(token.names.into_iter().map(|(owner, id)| RefusedCopy {
                owner: owner.to_string(),
                id: id.to_string(),
                reason: "the database refuses it".to_owned(),
            }));
        }
        if token.is_last { vec![token.batch.answer.around(&copies::result(&refused))] } else { Vec::new() }
    }
}

impl CopyDoor {
    /// A door to an archive's writer.
    pub fn new(servers: Servers, services: CopyServices) -> Self {
        Self { servers, services, turns: Mutex::default() }
    }

    /// Takes a batch in; waits while the writer's queue is full. An answer to be sent at once is given back; usually it
    /// follows when all is stored. The error means that the batch is to be sent again later.
    pub async fn accept(&self, iq: &Incoming<'_>) -> Result<Option<String>, StanzaError> {
        let [batch] = iq.element.children() else {
            return Err(StanzaError::new(Condition::BadRequest, "one batch at a time"));
        };
        let turn = self.turn(&iq.from)?;
        let copies =
            copies::parse(batch).map_err(|error| StanzaError::new(Condition::BadRequest, error.to_string()))?;
        let (mut messages, mut senders, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let mut read = None;
        for copy in copies {
            match copy.and_then(|copy| self.prepare(&iq.from, copy, &mut read)) {
                Ok(Some(message)) => {
                    senders.extend(message.sender);
                    put(&mut messages, message.archived);
                }
                Ok(None) => {}
                Err(copy) => refused.push(copy),
            }
        }
        self.learn(&senders).await;
        for copy in &refused {
            tracing::warn!(reason = copy.reason, "a copy makes no sense and is refused");
        }
        let Some(last) = messages.len().checked_sub(1) else { return Ok(Some(iq.result(&copies::result(&refused)))) };
        let batch = Arc::new(Batch { refused: Mutex::new(refused), answer: Envelope::of(iq), _turn: turn });
        for (place, message) in messages.into_iter().enumerate() {
            let names = message.copies.iter().map(|copy| (copy.owner.clone(), copy.archive_id.clone())).collect();
            let token = AcceptedCopies { names, batch: batch.clone(), is_last: place == last };
            let submitted = self.services.ingest.submit(message, token.into()).await;
            submitted.map_err(|_| StanzaError::new(Condition::ResourceConstraint, "the archive is shutting down"))?;
        }
        Ok(None)
    }

    /// The turn of a server, unless a batch of it is still being stored.
    fn turn(&self, from: &Jid) -> Result<OwnedSemaphorePermit, StanzaError> {
        let forbidden = || StanzaError::new(Condition::Forbidden, "only a server that is served here is believed");
        let server = self.servers.speaking(from).ok_or_else(forbidden)?;
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = turns.entry(server.clone()).or_insert_with(|| Arc::new(Semaphore::new(1))).clone();
        turn.try_acquire_owned().map_err(|_| {
            StanzaError::new(Condition::ResourceConstraint, "the batch before this one is still being stored")
        })
    }

    /// A copy as it is stored; `None` for one that is not kept. `read` is the message that was read last.
    fn prepare<'e>(
        &self,
        server: &Jid,
        copy: CopyOf<'e, '_>,
        read: &mut Option<Read<'e>>,
    ) -> Result<Option<Prepared>, RefusedCopy> {
        let refused = |reason: &str| RefusedCopy {
            owner: copy.owner.to_string(),
            id: copy.id.to_string(),
            reason: reason.to_owned(),
        };
        if !self.servers.may_speak_for(server, &copy.owner) {
            return Err(refused("a server speaks for its own accounts only"));
        }
        let known = read.take().filter(|known| known.is_of(copy.message));
        let known = match known {
            Some(known) => known,
            None => Read::of(&copy).map_err(|error| refused(&error.to_string()))?,
        };
        let Read { message, encrypted, verdict, .. } = read.insert(known);
        if message.body.len() > MAX_MESSAGE {
            return Err(refused("the message is too long for any answer"));
        }
        let from = message.from.clone().ok_or_else(|| refused("the message has no sender"))?;
        let to = message.to.clone().unwrap_or_else(|| copy.owner.jid().clone().into());
        let (own, peer) = match copy.direction {
            Direction::Sent => (from, to),
            Direction::Received => (to, from),
        };
        if own.to_bare() != *copy.owner.jid() {
            return Err(refused("the message is not one of its owner's"));
        }
        let class = match self.services.retention.get().apply(*verdict) {
            Verdict::Archive(class) => class,
            Verdict::Skip(reason) => {
                self.services.metrics.skipped(reason);
                return Ok(None);
            }
        };
        // A clock that is ahead of ours must not put a message where no query looks for it.
        let at = copy.at.min(self.services.clock.now());
        let expires_at = self.services.retention.get().expires_at(class, at, ephemeral::timer(copy.message));
        let (author, recipient) = match copy.direction {
            Direction::Sent => (own.to_bare().into(), peer.to_bare()),
            Direction::Received => (self.author(&peer), own.to_bare()),
        };
        let (origin, retracts) = origin_of(&self.services.ids, copy.message, class, (&author, &recipient), at);
        let from = Requester::new(if copy.direction == Direction::Sent { own.clone() } else { peer.clone() });
        let key_exchanges = Owner::new(recipient)
            .map(|recipient| key_exchange::find_in(encrypted, &from, &recipient))
            .unwrap_or_default();
        let stored = Copy {
            owner: copy.owner,
            archive_id: copy.id,
            direction: copy.direction,
            peer,
            own_resource: own.resource().map(|resource| resource.as_str().to_owned()),
            expires_at,
        };
        let devices = encrypted.iter().filter_map(|encrypted| Some((encrypted.protocol, encrypted.sid?))).collect();
        let sender = (copy.direction == Direction::Sent).then(|| Sender {
            owner: stored.owner.clone(),
            session: Requester::new(own),
            devices,
        });
        let archived = ArchivedMessage {
            class,
            at,
            body: message.body.clone(),
            origin,
            retracts,
            copies: vec![stored],
            key_exchanges,
        };
        Ok(Some(Prepared { archived, sender }))
    }

    /// Who takes back what this address has sent: the account. Of other servers it may be a room, all of whose occupants have
    /// one bare JID: there only the same full JID is the same author.
    fn author(&self, from: &Jid) -> Jid {
        if self.servers.serve(from) { from.to_bare().into() } else { from.clone() }
    }

    /// Remembers which devices sessions are: they say so in what they send.
    async fn learn(&self, senders: &[Sender]) {
        let mut sent = Vec::new();
        for Sender { owner, session: requester, devices } in senders {
            let said =
                devices.iter().map(|(protocol, sid)| SentWith { owner, requester, protocol: *protocol, sid: *sid });
            sent.extend(said);
        }
        if let Err(error) = self.services.directory.all_sent_with(&sent).await {
            tracing::warn!(%error, "could not remember which devices sessions are");
        }
    }
}

/// What is in a message, whosever copy it is. The recipient's copy of a message comes right behind the sender's, and is the
/// same.
struct Read<'e> {
    raw: &'e str,
    message: Message,
    encrypted: Vec<Encrypted<'e>>,
    verdict: Verdict,
}

impl<'e> Read<'e> {
    fn of(copy: &CopyOf<'e, '_>) -> Result<Self, MessageError> {
        let encrypted = omemo::find(copy.message);
        Ok(Self {
            raw: copy.message.raw(),
            message: Message::split(copy.message, &[copy.owner.jid()])?,
            verdict: classify_with(copy.message, &encrypted),
            encrypted,
        })
    }

    /// Whether this is what is in another copy. What is taken out of a message by whose copy it is, is its stanza-id.
    fn is_of(&self, other: &Element<'_>) -> bool {
        self.raw == other.raw() && other.children().iter().all(|child| child.name() != "stanza-id")
    }
}

/// A copy that is to be stored.
struct Prepared {
    archived: ArchivedMessage,
    /// Who sent it, if it is the sender's copy.
    sender: Option<Sender>,
}

/// The session that sent a message.
struct Sender {
    owner: Owner,
    session: Requester,
    /// Which of the owner's devices it says that it is, in each protocol.
    devices: Vec<(Protocol, DeviceId)>,
}

/// Puts a copy behind the others. A message between two of the server's accounts comes as two copies, the sender's and right
/// behind it the recipient's: they share one body.
fn put(messages: &mut Vec<ArchivedMessage>, message: ArchivedMessage) {
    if let Some(before) = messages.last_mut()
        && is_same_message(before, &message)
    {
        let expires_at = before.copies.first().and_then(|copy| copy.expires_at);
        before.copies.extend(message.copies.into_iter().map(|copy| Copy { expires_at, ..copy }));
        return;
    }
    messages.push(message);
}

fn is_same_message(sent: &ArchivedMessage, received: &ArchivedMessage) -> bool {
    let ([sender], [recipient]) = (sent.copies.as_slice(), received.copies.as_slice()) else { return false };
    sender.direction == Direction::Sent
        && recipient.direction == Direction::Received
        && sender.owner != recipient.owner
        && sender.peer.to_bare() == *recipient.owner.jid()
        && recipient.peer.to_bare() == *sender.owner.jid()
        && sent.class == received.class
        && sent.body == received.body
        && received.at.since(sent.at) < SAME_MESSAGE
}
