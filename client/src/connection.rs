//! The connection to the server: one task that owns the stream, connects again when it breaks, and pairs requests with
//! their answers.
//!
//! It knows nothing of OMEMO. [`tokio_xmpp::Client`] is not used: its two halves share a lock in a way that can lose a
//! wake-up when one task sends while another receives, and it retries a wrong password for ever. Here one task does
//! both, over the stanza stream beneath it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use minidom::Element;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_xmpp::Stanza;
use tokio_xmpp::stanzastream::{Event, StanzaStream, StreamEvent};
use xmpp_parsers::iq::Iq;
use xmpp_parsers::jid::{BareJid, Jid};
use xmpp_parsers::message::Message;
use xmpp_parsers::presence::Presence;
use xmpp_parsers::stanza_error::{DefinedCondition, ErrorType, StanzaError};

use crate::error::{ClientError, Refusal};
use crate::login;
use crate::settings::Settings;
use crate::xml::ns;

/// How many stanzas may wait in each direction before the sender is held up.
const QUEUE: usize = 256;
/// The most results that one page of an archive may bring.
const MAX_COLLECTED: usize = 1_000;

/// What arrives without having been asked for.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A new stream is up; nothing that an earlier stream was told is remembered by the server.
    Online,
    /// A message.
    Message(Box<Message>),
}

/// Whether the stream is up.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Link {
    Down,
    /// Up; the number tells one stream from the next.
    Up(u64),
    /// The login was refused for good.
    Refused(String),
}

/// A request's kind (RFC 6120 §8.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Get,
    Set,
}

/// An answer: the payload of the result, and the archive results that came before it.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) payload: Option<Element>,
    pub(crate) collected: Vec<Element>,
}

enum Failure {
    Offline,
    Refused(Refusal),
}

enum Command {
    Request {
        to: Jid,
        kind: Kind,
        payload: Element,
        /// Gather the `<result/>`s of this archive query.
        query: Option<String>,
        answer: oneshot::Sender<Result<Answer, Failure>>,
    },
    Send {
        stanza: Box<Stanza>,
        sent: oneshot::Sender<bool>,
    },
    Close(oneshot::Sender<()>),
}

/// A handle on the connection. Clones share it; the connection ends with [`Connection::close`] or with the last handle.
#[derive(Clone)]
pub(crate) struct Connection {
    commands: mpsc::Sender<Command>,
    link: watch::Receiver<Link>,
    answer_patience: Duration,
    overall_patience: Duration,
}

impl Connection {
    /// Starts connecting. What arrives goes to the receiver.
    pub(crate) fn open(settings: &Settings) -> (Self, mpsc::Receiver<Incoming>) {
        let (commands, command_queue) = mpsc::channel(QUEUE);
        let (incoming, arrivals) = mpsc::channel(QUEUE);
        let (link_changes, link) = watch::channel(Link::Down);
        let refusals = link_changes.clone();
        let connector = login::connector(settings.clone(), move |reason| {
            refusals.send_replace(Link::Refused(reason));
        });
        let task = Task {
            stream: StanzaStream::new(connector, QUEUE),
            account: settings.account.clone(),
            server: settings.server,
            incoming,
            link: link_changes,
            streams: 0,
            pending: HashMap::new(),
            queries: HashMap::new(),
        };
        tokio::spawn(task.run(command_queue));
        let connection = Self {
            commands,
            link,
            answer_patience: settings.patience.answer,
            overall_patience: settings.patience.overall,
        };
        (connection, arrivals)
    }

    /// Waits until the stream is up.
    pub(crate) async fn online(&self) -> Result<(), ClientError> {
        let mut link = self.link.clone();
        let up = link.wait_for(|link| *link != Link::Down);
        match tokio::time::timeout(self.overall_patience, up).await {
            Ok(Ok(state)) => match &*state {
                Link::Refused(reason) => Err(ClientError::Login(reason.clone())),
                Link::Up(_) | Link::Down => Ok(()),
            },
            Ok(Err(_)) => Err(ClientError::Closed),
            Err(_) => Err(ClientError::Timeout("the login")),
        }
    }

    /// Sends a request and waits for its answer. It is sent again when no answer comes, when the stream breaks, and when
    /// the answer is a temporary error: every request of this client may be repeated.
    pub(crate) async fn request(
        &self,
        what: &'static str,
        to: &Jid,
        kind: Kind,
        payload: Element,
        query: Option<&str>,
    ) -> Result<Answer, ClientError> {
        let deadline = tokio::time::Instant::now().checked_add(self.overall_patience);
        let mut pause = Duration::from_millis(50);
        let mut last_refusal = None;
        loop {
            self.online().await?;
            let (answer, answered) = oneshot::channel();
            let command = Command::Request {
                to: to.clone(),
                kind,
                payload: payload.clone(),
                query: query.map(str::to_owned),
                answer,
            };
            self.commands.send(command).await.map_err(|_| ClientError::Closed)?;
            match tokio::time::timeout(self.answer_patience, answered).await {
                Ok(Ok(Ok(answer))) => return Ok(answer),
                Ok(Ok(Err(Failure::Refused(refusal)))) if !refusal.temporary => {
                    return Err(ClientError::Refused { what, refusal });
                }
                Ok(Ok(Err(Failure::Refused(refusal)))) => last_refusal = Some(refusal),
                Ok(Ok(Err(Failure::Offline)) | Err(_)) | Err(_) => {}
            }
            if deadline.is_none_or(|deadline| tokio::time::Instant::now() >= deadline) {
                return Err(match last_refusal {
                    Some(refusal) => ClientError::Refused { what, refusal },
                    None => ClientError::Timeout(what),
                });
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(Duration::from_secs(2));
        }
    }

    /// Hands a stanza to the stream; `false` when that is down at present.
    pub(crate) async fn send(&self, stanza: Stanza) -> Result<bool, ClientError> {
        let (sent, done) = oneshot::channel();
        let command = Command::Send { stanza: Box::new(stanza), sent };
        self.commands.send(command).await.map_err(|_| ClientError::Closed)?;
        done.await.map_err(|_| ClientError::Closed)
    }

    /// Closes the stream in good order and ends the task.
    pub(crate) async fn close(&self) {
        let (closed, done) = oneshot::channel();
        if self.commands.send(Command::Close(closed)).await.is_ok() {
            let _ = done.await;
        }
    }
}

/// The task that owns the stream.
struct Task {
    stream: StanzaStream,
    account: BareJid,
    server: SocketAddr,
    incoming: mpsc::Sender<Incoming>,
    link: watch::Sender<Link>,
    streams: u64,
    pending: HashMap<String, Pending>,
    queries: HashMap<String, Vec<Element>>,
}

struct Pending {
    to: Jid,
    query: Option<String>,
    answer: oneshot::Sender<Result<Answer, Failure>>,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let go_on = tokio::select! {
                event = self.stream.next() => match event {
                    Some(Event::Stream(change)) => self.link_changed(change).await,
                    Some(Event::Stanza(stanza)) => self.stanza(stanza).await,
                    None => false,
                },
                command = commands.recv() => match command {
                    Some(Command::Close(closed)) => {
                        self.close().await;
                        let _ = closed.send(());
                        return;
                    }
                    Some(command) => self.command(command).await,
                    None => false,
                },
            };
            if !go_on {
                self.close().await;
                return;
            }
        }
    }

    /// Says goodbye, so that the server drops the session at once.
    async fn close(self) {
        if matches!(*self.link.borrow(), Link::Up(_)) {
            let _ = tokio::time::timeout(Duration::from_secs(2), self.stream.close()).await;
        }
    }

    async fn link_changed(&mut self, change: StreamEvent) -> bool {
        match change {
            StreamEvent::Reset { bound_jid, .. } => {
                tracing::info!(jid = %bound_jid, server = %self.server, "online");
                self.streams = self.streams.wrapping_add(1);
                self.forget_requests();
                let _ = self.stream.send(Box::new(Presence::available().into())).await;
                self.link.send_replace(Link::Up(self.streams));
                self.incoming.send(Incoming::Online).await.is_ok()
            }
            StreamEvent::Resumed => {
                self.link.send_replace(Link::Up(self.streams));
                true
            }
            StreamEvent::Suspended => {
                tracing::info!(server = %self.server, "connection lost");
                self.link.send_replace(Link::Down);
                self.forget_requests();
                true
            }
        }
    }

    /// No answer will come over another stream: let the callers ask again.
    fn forget_requests(&mut self) {
        self.queries.clear();
        for (_, pending) in self.pending.drain() {
            let _ = pending.answer.send(Err(Failure::Offline));
        }
    }

    async fn command(&mut self, command: Command) -> bool {
        let up = matches!(*self.link.borrow(), Link::Up(_));
        match command {
            Command::Request { answer, .. } if !up => {
                let _ = answer.send(Err(Failure::Offline));
            }
            Command::Request { to, kind, payload, query, answer } => {
                // Callers that gave up are gone; so are their entries.
                self.pending.retain(|_, pending| !pending.answer.is_closed());
                let id = crate::random::id();
                if let Some(query) = &query {
                    self.queries.insert(query.clone(), Vec::new());
                }
                self.pending.insert(id.clone(), Pending { to: to.clone(), query, answer });
                let (from, to) = (None, Some(to));
                let iq = match kind {
                    Kind::Get => Iq::Get { from, to, id, payload },
                    Kind::Set => Iq::Set { from, to, id, payload },
                };
                let _ = self.stream.send(Box::new(iq.into())).await;
            }
            Command::Send { sent, .. } if !up => {
                let _ = sent.send(false);
            }
            Command::Send { stanza, sent } => {
                let _ = self.stream.send(stanza).await;
                let _ = sent.send(true);
            }
            Command::Close(_) => return false,
        }
        true
    }

    async fn stanza(&mut self, stanza: Stanza) -> bool {
        match stanza {
            Stanza::Message(message) => match self.archive_result(&message) {
                Some((query, result)) => {
                    self.collect(query, result);
                    true
                }
                None => self.incoming.send(Incoming::Message(Box::new(message))).await.is_ok(),
            },
            Stanza::Iq(iq) => {
                self.iq(iq).await;
                true
            }
            Stanza::Presence(_) => true,
        }
    }

    /// The archive result in a message that belongs to a query under way, with the query's id.
    fn archive_result(&self, message: &Message) -> Option<(String, Element)> {
        let result = message.payloads.iter().find(|payload| payload.is("result", ns::ARCHIVE))?;
        let query = result.attr("queryid").filter(|query| self.queries.contains_key(*query))?;
        // Only the archive that was asked may answer: anybody can send a message with a `<result/>` in it.
        let asked = self.pending.values().find(|pending| pending.query.as_deref() == Some(query))?;
        let from = message.from.clone().unwrap_or_else(|| self.account.clone().into());
        (from == asked.to).then(|| (query.to_owned(), result.clone()))
    }

    fn collect(&mut self, query: String, result: Element) {
        if let Some(results) = self.queries.get_mut(&query)
            && results.len() < MAX_COLLECTED
        {
            results.push(result);
        }
    }

    async fn iq(&mut self, iq: Iq) {
        let (from, id, outcome) = match iq {
            Iq::Result { from, id, payload, .. } => (from, id, Ok(payload)),
            Iq::Error { from, id, error, .. } => (from, id, Err(refusal(&error))),
            Iq::Get { from, id, payload, .. } | Iq::Set { from, id, payload, .. } => {
                return self.answer_request(from, id, &payload).await;
            }
        };
        // An answer without `from`, or from the own account, comes from the server on the account's behalf.
        let from = from.unwrap_or_else(|| self.account.clone().into());
        let Some(pending) = self.pending.remove(&id) else { return };
        if from != pending.to {
            self.pending.insert(id, pending);
            return;
        }
        let collected = pending.query.and_then(|query| self.queries.remove(&query)).unwrap_or_default();
        let _ = pending.answer.send(match outcome {
            Ok(payload) => Ok(Answer { payload, collected }),
            Err(refusal) => Err(Failure::Refused(refusal)),
        });
    }

    /// Answers a ping (XEP-0199) and declines everything else.
    async fn answer_request(&mut self, to: Option<Jid>, id: String, payload: &Element) {
        let from = None;
        let reply = if payload.is("ping", "urn:xmpp:ping") {
            Iq::Result { from, to, id, payload: None }
        } else {
            let error =
                StanzaError::new(ErrorType::Cancel, DefinedCondition::ServiceUnavailable, "en", "not offered here");
            Iq::Error { from, to, id, error, payload: None }
        };
        let _ = self.stream.send(Box::new(reply.into())).await;
    }
}

/// What an error reply says.
pub(crate) fn refusal(error: &StanzaError) -> Refusal {
    let condition = Element::from(error.defined_condition.clone()).name().to_owned();
    let text = error.texts.values().next().map(ToString::to_string);
    // Prosody answers `service-unavailable` for a component that is away, whatever the error's type.
    let temporary = error.type_ == ErrorType::Wait;
    Refusal { condition, text, temporary }
}
