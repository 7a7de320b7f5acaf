//! Decrypting with a device. Its user keeps the plaintext before, or together with, the state.
//!
//! Every function here first finds out everything that could be wrong, and changes something only when nothing is.

use core::fmt;

use zeroize::Zeroizing;

use super::Device;
use crate::{
    generation::Omemo2,
    identity::IdentityKey,
    omemo2::{
        address::{Address, KeyId},
        error::DecryptError,
        message::EncryptedMessage,
        payload::{self, MAX_PLAINTEXT_LENGTH},
        session::Session,
        wire::{self, AuthenticatedMessage, ExchangeHeader},
    },
    ratchet::Ratchet,
    x3dh,
};

/// A message that was decrypted.
#[derive(Clone, PartialEq, Eq)]
pub struct Decrypted {
    /// The device that sent it. Whose device it is depends on the `from` that was passed in; see
    /// [`sce`](crate::sce) on how the envelope confirms it.
    pub sender: Address,
    /// The identity of that device. Whether it is to be trusted is for the user to say.
    pub identity: IdentityKey,
    /// The envelope; `None` in an empty message.
    pub plaintext: Option<Zeroizing<Vec<u8>>>,
    /// The prekey that the message used up. The bundle has to be published again without it.
    pub used_prekey: Option<KeyId>,
    /// The message started a session.
    pub new_session: bool,
    /// An empty message to the sender is due: see [`Device::replies_due`].
    pub reply_due: bool,
}

impl fmt::Debug for Decrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decrypted")
            .field("sender", &self.sender)
            .field("identity", &self.identity)
            .field("plaintext", &self.plaintext.as_ref().map(|_| ".."))
            .field("used_prekey", &self.used_prekey)
            .field("new_session", &self.new_session)
            .field("reply_due", &self.reply_due)
            .finish()
    }
}

/// Decrypting. **Keep the plaintext before, or together with, the state.**
impl Device {
    /// Decrypts a message. `from` is the sender's bare JID: that of the stanza, in a group chat the real one.
    ///
    /// # Errors
    /// [`DecryptError`], after which the device is as it was before.
    pub fn decrypt(&mut self, from: &str, message: &EncryptedMessage) -> Result<Decrypted, DecryptError> {
        let header = message.header_for(&self.0.owner, self.0.id).ok_or(DecryptError::NotForThisDevice)?;
        let sender = Address::of_device(from, message.sid)?;
        if self.is_own(&sender) {
            return Err(DecryptError::OwnDevice);
        }
        let payload = message.payload.as_deref();
        // Padding adds up to one block.
        if payload.is_some_and(|payload| payload.len() > MAX_PLAINTEXT_LENGTH.saturating_add(16)) {
            return Err(DecryptError::PayloadTooLong);
        }
        if header.kex {
            let (exchange, message) = wire::decode_exchange(&header.data)?;
            self.decrypt_exchange(sender, &exchange, &message, payload)
        } else {
            let message = wire::decode_authenticated(&header.data)?;
            self.decrypt_known(sender, None, &message, payload)
        }
    }

    /// A message of a session that is there. `exchange` is given if the message came as a key exchange nevertheless,
    /// because the sender does not know yet that the session is there.
    fn decrypt_known(
        &mut self,
        sender: Address,
        exchange: Option<&ExchangeHeader>,
        message: &AuthenticatedMessage,
        payload: Option<&[u8]>,
    ) -> Result<Decrypted, DecryptError> {
        let Some(peer) = self.0.peers.get_mut(&sender) else { return Err(DecryptError::NoSession(sender)) };
        let found = match exchange {
            Some(exchange) => peer.open_in(&exchange.ephemeral, message),
            None => peer.open(message),
        };
        let Some(found) = found.transpose()? else { return Err(DecryptError::NoSession(sender)) };
        let plaintext = payload::open(&found.opened.material, payload)?;

        // From here on the message is genuine, and nothing can fail.
        peer.commit(found, exchange.is_some());
        let (identity, reply_due) = (*peer.identity(), peer.reply_due());
        Ok(Decrypted { sender, identity, plaintext, used_prekey: None, new_session: false, reply_due })
    }

    fn decrypt_exchange(
        &mut self,
        sender: Address,
        exchange: &ExchangeHeader,
        message: &AuthenticatedMessage,
        payload: Option<&[u8]>,
    ) -> Result<Decrypted, DecryptError> {
        if let Some(peer) = self.0.peers.get(&sender) {
            if *peer.identity() != exchange.identity {
                return Err(DecryptError::IdentityChanged {
                    known: peer.identity().fingerprint(),
                    offered: exchange.identity.fingerprint(),
                    address: sender,
                });
            }
            if peer.has(&exchange.ephemeral) {
                return self.decrypt_known(sender, Some(exchange), message, payload);
            }
        }
        let mut session = self.accept(exchange)?;
        let opened = session.open(message).map_err(DecryptError::from)?;
        let plaintext = payload::open(&opened.material, payload)?;

        // From here on the message is genuine, and nothing can fail.
        session.commit(opened);
        let keep = self.0.catching_up;
        self.0.bundle_changed |= self.0.prekeys.use_up(exchange.prekey, exchange.ephemeral, keep);
        self.0.peers.entry(&sender, exchange.identity).accept(session);
        Ok(Decrypted {
            sender,
            identity: exchange.identity,
            plaintext,
            used_prekey: Some(exchange.prekey),
            new_session: true,
            reply_due: true,
        })
    }

    /// The passive side of X3DH. Nothing is changed.
    fn accept(&self, exchange: &ExchangeHeader) -> Result<Session, DecryptError> {
        let signed_prekey = self.0.signed_prekeys.find(exchange.signed_prekey)?;
        let prekey = self.0.prekeys.for_exchange(exchange.prekey, &exchange.ephemeral)?;
        let active = x3dh::ActiveKeys { identity: exchange.identity.to_curve25519()?, ephemeral: exchange.ephemeral };
        let shared = x3dh::respond::<Omemo2>(&self.0.identity.to_curve25519(), signed_prekey, prekey, &active)?;
        Ok(Session::respond(exchange, self.identity(), Ratchet::respond(shared, signed_prekey.clone())))
    }
}
