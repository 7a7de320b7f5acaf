//! Decrypting with a device. Its user keeps the plaintext before, or together with, the state.
//!
//! Every function here first finds out everything that could be wrong, and changes something only when nothing is.

use core::fmt;

use zeroize::Zeroizing;

use super::{Device, session::Session};
use crate::{
    address::{Address, KeyId},
    error::DecryptError,
    message::MessageHeader,
    protocol::{EncryptedElement, Protocol, PublicIdentity},
    ratchet::Ratchet,
    wire::{AuthenticatedMessage, ExchangeHeader, Incoming},
    x3dh,
};

/// How many headers with this device's number are tried in one message. Two accounts have a device of the same number
/// by accident; more than a few have it by intent.
const MAX_CANDIDATES: usize = 4;

/// A message that was decrypted.
#[derive(Clone, PartialEq, Eq)]
pub struct Decrypted<P: Protocol> {
    /// The device that sent it. Whose device it is depends on the `from` that was passed in; see
    /// [`sce`](crate::sce) on how the envelope confirms it.
    pub sender: Address,
    /// The identity of that device. Whether it is to be trusted is for the user to say.
    pub identity: P::Identity,
    /// In OMEMO 2 the envelope, in legacy the text; `None` in an empty message.
    pub plaintext: Option<Zeroizing<Vec<u8>>>,
    /// The prekey that the message used up. The bundle has to be published again without it.
    pub used_prekey: Option<KeyId>,
    /// The message started a session.
    pub new_session: bool,
    /// An empty message to the sender is due: see [`Device::replies_due`].
    pub reply_due: bool,
}

impl<P: Protocol> fmt::Debug for Decrypted<P> {
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
impl<P: Protocol> Device<P> {
    /// Decrypts a message. `from` is the sender's bare JID: that of the stanza, in a group chat the real one.
    ///
    /// # Errors
    /// [`DecryptError`], after which the device is as it was before.
    pub fn decrypt(&mut self, from: &str, message: &P::Message) -> Result<Decrypted<P>, DecryptError> {
        let headers = message.headers_for(&self.0.owner, self.0.id);
        if headers.is_empty() {
            return Err(DecryptError::NotForThisDevice);
        }
        let sender = Address::of_device(from, message.sender())?;
        let mut first_error = None;
        for header in headers.into_iter().take(MAX_CANDIDATES) {
            match self.open_header(&sender, header, |material| Ok(P::open(material, message)?)) {
                Ok(decrypted) => return Ok(decrypted),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or(DecryptError::NotForThisDevice))
    }

    /// Decrypts the content of one `<key/>`: what [`Device::encrypt_key_material`] made. Its bytes are the plaintext of
    /// the result.
    ///
    /// # Errors
    /// [`DecryptError`], after which the device is as it was before.
    pub fn decrypt_key_material(
        &mut self,
        sender: &Address,
        header: &MessageHeader,
    ) -> Result<Decrypted<P>, DecryptError> {
        if header.rid != self.0.id {
            return Err(DecryptError::NotForThisDevice);
        }
        self.open_header(sender, header, |material| Ok(Some(Zeroizing::new(material.to_vec()))))
    }

    /// Decrypts one header. `finish` makes the plaintext of what it carried; if that fails, nothing has changed.
    fn open_header(
        &mut self,
        sender: &Address,
        header: &MessageHeader,
        finish: impl FnOnce(&[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, DecryptError>,
    ) -> Result<Decrypted<P>, DecryptError> {
        if self.is_own(sender) {
            return Err(DecryptError::OwnDevice);
        }
        let Incoming { exchange, message } = P::decode(header)?;
        let Some(exchange) = exchange else { return self.open_known(sender, None, &message, finish) };
        if let Some(peer) = self.0.peers.get(sender) {
            if *peer.identity() != exchange.identity {
                return Err(DecryptError::IdentityChanged {
                    known: peer.identity().fingerprint(),
                    offered: exchange.identity.fingerprint(),
                    address: sender.clone(),
                });
            }
            if peer.has(&exchange.ephemeral) {
                return self.open_known(sender, Some(&exchange), &message, finish);
            }
        }
        self.open_exchange(sender, &exchange, &message, finish)
    }

    /// A message of a session that is there. `exchange` is given if the message came as a key exchange nevertheless,
    /// because the sender does not know yet that the session is there.
    fn open_known(
        &mut self,
        sender: &Address,
        exchange: Option<&ExchangeHeader<P>>,
        message: &AuthenticatedMessage,
        finish: impl FnOnce(&[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, DecryptError>,
    ) -> Result<Decrypted<P>, DecryptError> {
        let no_session = || DecryptError::NoSession(sender.clone());
        let peer = self.0.peers.get_mut(sender).ok_or_else(no_session)?;
        let found = match exchange {
            Some(exchange) => peer.open_in(&exchange.ephemeral, message),
            None => peer.open(message),
        };
        let found = found.ok_or_else(no_session)??;
        let plaintext = finish(&found.opened.material)?;

        // From here on the message is genuine, and nothing can fail.
        peer.commit(found, exchange.is_some());
        Ok(Decrypted {
            sender: sender.clone(),
            identity: *peer.identity(),
            plaintext,
            used_prekey: None,
            new_session: false,
            reply_due: peer.reply_due(),
        })
    }

    /// A message that starts a session.
    fn open_exchange(
        &mut self,
        sender: &Address,
        exchange: &ExchangeHeader<P>,
        message: &AuthenticatedMessage,
        finish: impl FnOnce(&[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, DecryptError>,
    ) -> Result<Decrypted<P>, DecryptError> {
        let mut session = self.accept(exchange)?;
        let opened = session.open(message).map_err(DecryptError::from)?;
        let plaintext = finish(&opened.material)?;

        // From here on the message is genuine, and nothing can fail.
        session.commit(opened);
        let keep = self.0.catching_up;
        self.0.bundle_changed |= self.0.prekeys.use_up(exchange.prekey, exchange.ephemeral, keep);
        self.0.peers.entry(sender, exchange.identity).accept(session);
        Ok(Decrypted {
            sender: sender.clone(),
            identity: exchange.identity,
            plaintext,
            used_prekey: Some(exchange.prekey),
            new_session: true,
            reply_due: true,
        })
    }

    /// The passive side of X3DH. Nothing is changed.
    fn accept(&self, exchange: &ExchangeHeader<P>) -> Result<Session<P>, DecryptError> {
        let signed_prekey = self.0.signed_prekeys.find(exchange.signed_prekey)?;
        let prekey = self.0.prekeys.for_exchange(exchange.prekey, &exchange.ephemeral)?;
        let active = x3dh::ActiveKeys { identity: exchange.identity.agreement_key()?, ephemeral: exchange.ephemeral };
        let shared = x3dh::respond::<P>(&self.0.identity.to_curve25519(), signed_prekey, prekey, &active)?;
        Ok(Session::respond(exchange, self.identity(), Ratchet::respond(shared, signed_prekey.clone())))
    }
}
