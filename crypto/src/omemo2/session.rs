//! One Double Ratchet session with one device, as OMEMO 2 encrypts with it.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    address::KeyId,
    error::HeaderError,
    wire::{self, AuthenticatedMessage, ExchangeHeader, MAC_LENGTH},
};
use crate::{
    cbc_hmac::CipherKeys,
    curve25519::PublicKey,
    generation::{Generation, Omemo2},
    identity::IdentityKey,
    ratchet::{Advance, Progress, Ratchet, RatchetError},
    secret::Secret32,
};

/// A session. It is told from others with the same device by the ephemeral key of its key exchange.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Session {
    initiator: IdentityKey,
    responder: IdentityKey,
    ephemeral: PublicKey,
    /// What is sent along until the peer has answered; `None` once it has, and for sessions that the peer started.
    unanswered: Option<Exchange>,
    /// An empty message is due, as an answer to a key exchange or as a heartbeat.
    pub(super) reply_due: bool,
    /// One side has started another session since, in order to replace this one.
    pub(super) superseded: bool,
    ratchet: Ratchet<Omemo2>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Exchange {
    prekey: KeyId,
    signed_prekey: KeyId,
}

/// A decrypted header that has not changed its session yet.
pub(super) struct Opened {
    /// What the header carried.
    pub(super) material: Zeroizing<Vec<u8>>,
    advance: Advance<Omemo2>,
}

impl Opened {
    /// Whether the message moves its session on, rather than being one that was overtaken by others.
    pub(super) const fn is_news(&self) -> bool {
        self.advance.is_news()
    }

    /// Whether the peer has received something on the session since it last sent on it.
    pub(super) const fn is_turn(&self) -> bool {
        self.advance.is_turn()
    }
}

impl Session {
    /// A session that this device starts: `exchange` goes along until the peer answers.
    pub(super) fn initiate(
        exchange: &ExchangeHeader,
        peer: IdentityKey,
        shared: Secret32,
        signed_prekey: &PublicKey,
    ) -> Result<Self, RatchetError> {
        Ok(Self {
            initiator: exchange.identity,
            responder: peer,
            ephemeral: exchange.ephemeral,
            unanswered: Some(Exchange { prekey: exchange.prekey, signed_prekey: exchange.signed_prekey }),
            reply_due: false,
            superseded: false,
            ratchet: Ratchet::initiate(shared, signed_prekey)?,
        })
    }

    /// A session that the peer started. It says that it exists by the reply that is due.
    pub(super) fn respond(exchange: &ExchangeHeader, own: IdentityKey, ratchet: Ratchet<Omemo2>) -> Self {
        Self {
            initiator: exchange.identity,
            responder: own,
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
        let keys = CipherKeys::derive(message_key.expose(), Omemo2::MESSAGE_INFO);
        let message = wire::encode_message(&header, keys.encrypt(material));
        let tag = keys.tag(&self.authenticated(&message));
        let mut mac = [0; MAC_LENGTH];
        for (target, source) in mac.iter_mut().zip(tag.iter()) {
            *target = *source;
        }
        self.reply_due = false;
        Ok(match self.unanswered {
            Some(Exchange { prekey, signed_prekey }) => {
                let exchange =
                    ExchangeHeader { prekey, signed_prekey, identity: self.initiator, ephemeral: self.ephemeral };
                (true, wire::encode_exchange(&exchange, &mac, message))
            }
            None => (false, wire::encode_authenticated(&mac, message)),
        })
    }

    /// Decrypts the content of one `<key/>` without changing the session.
    pub(super) fn open(&self, message: &AuthenticatedMessage) -> Result<Opened, HeaderError> {
        let advance = self.ratchet.advance(&message.header)?;
        let keys = CipherKeys::derive(advance.message_key.expose(), Omemo2::MESSAGE_INFO);
        let material = keys.open(&message.ciphertext, &self.authenticated(&message.message), &message.mac)?;
        Ok(Opened { material, advance })
    }

    /// Makes the change that `opened` leads to. The peer has thereby answered.
    pub(super) fn commit(&mut self, opened: Opened) {
        let Progress { stale } = self.ratchet.commit(opened.advance);
        self.unanswered = None;
        self.reply_due |= stale && !self.superseded;
    }

    /// `CONCAT(ad, header)` with `AD = Encode(IK_A) || Encode(IK_B)`, A being who started the session. The header is the
    /// serialised message with its ciphertext (XEP-0384, "Double Ratchet", ENCRYPT, steps 5 to 7).
    fn authenticated<'a>(&'a self, message: &'a [u8]) -> [&'a [u8]; 3] {
        [self.initiator.as_bytes(), self.responder.as_bytes(), message]
    }
}
