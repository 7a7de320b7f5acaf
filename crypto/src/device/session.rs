//! One Double Ratchet session with one device.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    address::KeyId,
    cbc_hmac::CipherKeys,
    curve25519::PublicKey,
    error::HeaderError,
    protocol::{Parties, Protocol},
    ratchet::{Advance, Progress, Ratchet, RatchetError},
    secret::Secret32,
    wire::{AuthenticatedMessage, ExchangeHeader},
};

/// A session. It is told from others with the same device by the ephemeral key of its key exchange.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct Session<P: Protocol> {
    initiator: P::Identity,
    responder: P::Identity,
    /// Whether this device is the initiator. States of OMEMO 2 from before there was legacy lack it, and never need it.
    #[serde(default)]
    started_here: bool,
    ephemeral: PublicKey,
    /// What is sent along until the peer has answered; `None` once it has, and for sessions that the peer started.
    unanswered: Option<Exchange>,
    /// An empty message is due, as an answer to a key exchange or as a heartbeat.
    pub(super) reply_due: bool,
    /// One side has started another session since, in order to replace this one.
    pub(super) superseded: bool,
    ratchet: Ratchet<P>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Exchange {
    prekey: KeyId,
    signed_prekey: KeyId,
    #[serde(default)]
    registration: u32,
}

/// A decrypted header that has not changed its session yet.
pub(super) struct Opened<P: Protocol> {
    /// What the header carried.
    pub(super) material: Zeroizing<Vec<u8>>,
    advance: Advance<P>,
}

impl<P: Protocol> Opened<P> {
    /// Whether the message moves its session on, rather than being one that was overtaken by others.
    pub(super) const fn is_news(&self) -> bool {
        self.advance.is_news()
    }

    /// Whether the peer has received something on the session since it last sent on it.
    pub(super) const fn is_turn(&self) -> bool {
        self.advance.is_turn()
    }
}

impl<P: Protocol> Session<P> {
    /// A session that this device starts: `exchange` goes along until the peer answers.
    pub(super) fn initiate(
        exchange: &ExchangeHeader<P>,
        peer: P::Identity,
        shared: Secret32,
        signed_prekey: &PublicKey,
    ) -> Result<Self, RatchetError> {
        let ExchangeHeader { prekey, signed_prekey: signed_prekey_id, registration, .. } = *exchange;
        Ok(Self {
            initiator: exchange.identity,
            responder: peer,
            started_here: true,
            ephemeral: exchange.ephemeral,
            unanswered: Some(Exchange { prekey, signed_prekey: signed_prekey_id, registration }),
            reply_due: false,
            superseded: false,
            ratchet: Ratchet::initiate(shared, signed_prekey)?,
        })
    }

    /// A session that the peer started. It says that it exists by the reply that is due.
    pub(super) fn respond(exchange: &ExchangeHeader<P>, own: P::Identity, ratchet: Ratchet<P>) -> Self {
        Self {
            initiator: exchange.identity,
            responder: own,
            started_here: false,
            ephemeral: exchange.ephemeral,
            unanswered: None,
            reply_due: true,
            superseded: false,
            ratchet,
        }
    }

    /// The ephemeral key of the key exchange.
    pub(super) const fn ephemeral(&self) -> &PublicKey {
        &self.ephemeral
    }

    /// Whether this device started the session and the peer has not answered.
    pub(super) const fn is_unanswered(&self) -> bool {
        self.unanswered.is_some()
    }

    /// Whether the peer has sent on this session with that ratchet key.
    pub(super) fn knows(&self, ratchet_key: &PublicKey) -> bool {
        self.ratchet.knows(ratchet_key)
    }

    /// Encrypts the content of one `<key/>`; says also whether it is a key exchange.
    pub(super) fn encrypt(&mut self, material: &[u8]) -> Result<(bool, Vec<u8>), RatchetError> {
        let (header, message_key) = self.ratchet.next_to_send()?;
        let keys = CipherKeys::derive(message_key.expose(), P::MESSAGE_INFO);
        let message = P::encode_message(&header, keys.encrypt(material));
        let tag = keys.tag(&[&self.associated(self.started_here), &message]);
        let tagged = P::encode_tagged(message, &tag);
        self.reply_due = false;
        Ok(match self.unanswered {
            Some(Exchange { prekey, signed_prekey, registration }) => {
                let (identity, ephemeral) = (self.initiator, self.ephemeral);
                let exchange = ExchangeHeader { prekey, signed_prekey, identity, ephemeral, registration };
                (true, P::encode_exchange(&exchange, tagged))
            }
            None => (false, tagged),
        })
    }

    /// Decrypts the content of one `<key/>` without changing the session.
    pub(super) fn open(&self, message: &AuthenticatedMessage) -> Result<Opened<P>, HeaderError> {
        let advance = self.ratchet.advance(&message.header)?;
        let keys = CipherKeys::derive(advance.message_key.expose(), P::MESSAGE_INFO);
        let associated = self.associated(!self.started_here);
        let material = keys.open(&message.ciphertext, &[&associated, &message.message], &message.mac)?;
        Ok(Opened { material, advance })
    }

    /// Makes the change that `opened` leads to. The peer has thereby answered.
    pub(super) fn commit(&mut self, opened: Opened<P>) {
        let Progress { stale } = self.ratchet.commit(opened.advance);
        self.unanswered = None;
        self.reply_due |= stale && !self.superseded;
    }

    /// What is authenticated along with a message.
    fn associated(&self, initiator_sends: bool) -> Vec<u8> {
        P::associated(Parties { initiator: &self.initiator, responder: &self.responder, initiator_sends })
    }
}
