//! The sessions with one other device, and which of them to send with.
//!
//! The XEP says that a new key exchange MUST replace the session. Done to the letter that breaks the conversation when
//! both sides start one at the same time: each then holds only the session that the other has just thrown away. So
//! replaced sessions are kept for a while to receive with, and four rules say which one to send with:
//!
//! 1. The session on which the peer sent last, since that one the peer has.
//! 2. A key exchange of the peer, however, does not take the place of a session of our own that it has not answered:
//!    ours is on its way, and peers that follow the XEP to the letter will have it in place of theirs.
//! 3. A reply that is due goes out on the session that it answers. That answers a crossing exchange on both sides, after
//!    which rule 1 brings them together.
//! 4. A session that one side meant to replace is not taken up again because of a message that was merely late. It takes
//!    a message with which the peer answers to one of ours, and no session of our own that waits for an answer.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::session::{Opened, Session};
use crate::{
    address::{Address, DeviceId},
    curve25519::PublicKey,
    error::HeaderError,
    protocol::Protocol,
    wire::AuthenticatedMessage,
};

/// How many sessions are kept with one device: the one to send with, and those that it replaced.
const MAX_SESSIONS: usize = 5;

/// Another device: its identity and the sessions with it. There is always at least one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct Peer<P: Protocol> {
    identity: P::Identity,
    /// The first is the one to send with.
    sessions: VecDeque<Session<P>>,
}

/// A decrypted header and the session that decrypted it; nothing has changed yet.
pub(super) struct Found<P: Protocol> {
    index: usize,
    pub(super) opened: Opened<P>,
}

impl<P: Protocol> Peer<P> {
    pub(super) fn new(identity: P::Identity) -> Self {
        Self { identity, sessions: VecDeque::new() }
    }

    pub(super) const fn identity(&self) -> &P::Identity {
        &self.identity
    }

    /// The session to send content with.
    pub(super) fn sending(&mut self) -> Option<&mut Session<P>> {
        self.sessions.front_mut()
    }

    /// The session to send an empty message with: one that owes a reply, if there is one.
    pub(super) fn replying(&mut self) -> Option<&mut Session<P>> {
        let index = self.sessions.iter().position(|session| session.reply_due).unwrap_or_default();
        self.sessions.get_mut(index)
    }

    pub(super) fn reply_due(&self) -> bool {
        self.sessions.iter().any(|session| session.reply_due)
    }

    /// Takes a session that this device has just started, and sends with it from now on.
    pub(super) fn start(&mut self, session: Session<P>) {
        self.sessions.iter_mut().for_each(|session| session.superseded = true);
        self.sessions.push_front(session);
        self.sessions.truncate(MAX_SESSIONS);
    }

    /// Takes a session that the peer has just started.
    pub(super) fn accept(&mut self, session: Session<P>) {
        let index = usize::from(self.sessions.front().is_some_and(Session::is_unanswered));
        self.sessions.iter_mut().skip(index).for_each(|session| session.superseded = true);
        self.sessions.insert(index, session);
        self.sessions.truncate(MAX_SESSIONS);
    }

    /// Whether a key exchange with that ephemeral key was accepted before and its session is still there.
    pub(super) fn has(&self, ephemeral: &PublicKey) -> bool {
        self.sessions.iter().any(|session| session.ephemeral() == ephemeral)
    }

    /// Decrypts a header with the session that a key exchange belongs to.
    pub(super) fn open_in(
        &self,
        ephemeral: &PublicKey,
        message: &AuthenticatedMessage,
    ) -> Option<Result<Found<P>, HeaderError>> {
        let (index, session) =
            self.sessions.iter().enumerate().find(|(_, session)| session.ephemeral() == ephemeral)?;
        Some(session.open(message).map(|opened| Found { index, opened }))
    }

    /// Decrypts a header with whichever session it belongs to. Gives the error of the session to send with if none does.
    pub(super) fn open(&self, message: &AuthenticatedMessage) -> Option<Result<Found<P>, HeaderError>> {
        let ratchet_key = &message.header.ratchet_key;
        let known = self.sessions.iter().position(|session| session.knows(ratchet_key));
        let mut first_error = None;
        for (index, session) in self.sessions.iter().enumerate() {
            if known.is_some_and(|known| known != index) {
                continue;
            }
            match session.open(message) {
                Ok(opened) => return Some(Ok(Found { index, opened })),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map(Err)
    }

    /// Makes the change that a decrypted header leads to. `exchange` says whether it came as a key exchange.
    pub(super) fn commit(&mut self, found: Found<P>, exchange: bool) {
        let waiting = self.sessions.front().is_some_and(Session::is_unanswered);
        let Some(session) = self.sessions.get_mut(found.index) else { return };
        let promotes = found.index != 0
            && found.opened.is_news()
            && if waiting { !exchange && !session.superseded } else { found.opened.is_turn() || !session.superseded };
        session.commit(found.opened);
        if promotes && let Some(mut session) = self.sessions.remove(found.index) {
            session.superseded = false;
            self.sessions.push_front(session);
        }
    }
}

/// All other devices that this device knows.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub(super) struct Peers<P: Protocol>(BTreeMap<String, BTreeMap<DeviceId, Peer<P>>>);

impl<P: Protocol> Peers<P> {
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(super) fn get(&self, address: &Address) -> Option<&Peer<P>> {
        self.0.get(address.jid())?.get(&address.device())
    }

    pub(super) fn get_mut(&mut self, address: &Address) -> Option<&mut Peer<P>> {
        self.0.get_mut(address.jid())?.get_mut(&address.device())
    }

    /// The peer, made if it is not there.
    pub(super) fn entry(&mut self, address: &Address, identity: P::Identity) -> &mut Peer<P> {
        self.0
            .entry(address.jid().to_owned())
            .or_default()
            .entry(address.device())
            .or_insert_with(|| Peer::new(identity))
    }

    pub(super) fn remove(&mut self, address: &Address) -> bool {
        let Some(devices) = self.0.get_mut(address.jid()) else { return false };
        let removed = devices.remove(&address.device()).is_some();
        if devices.is_empty() {
            self.0.remove(address.jid());
        }
        removed
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Address, &Peer<P>)> {
        self.0.iter().flat_map(|(jid, devices)| {
            devices
                .iter()
                .filter_map(move |(device, peer)| Address::of_device(jid, *device).ok().map(|address| (address, peer)))
        })
    }
}
