//! Encrypting with a device. Its user saves the state before the message leaves.

use super::{Device, peer::Peer, session::Session};
use crate::{
    address::Address,
    error::EncryptError,
    message::{MAX_HEADERS, MAX_KEY_MATERIAL_LENGTH, MAX_PLAINTEXT_LENGTH, MessageHeader},
    protocol::Protocol,
};

/// Encrypting. **Save the state before the message leaves.**
impl<P: Protocol> Device<P> {
    /// Encrypts for all `recipients` at once: in OMEMO 2 an envelope (see [`sce`](crate::sce)), in legacy the text of
    /// the message. It is encrypted once; each recipient gets a header with the key.
    ///
    /// Recipients are all trusted devices of the other side and of the own account. This device itself and repeated
    /// addresses are passed over.
    ///
    /// # Errors
    /// [`EncryptError`]; [`EncryptError::NoSession`] names the first device without a session, before anything else is
    /// done.
    pub fn encrypt(&mut self, plaintext: &[u8], recipients: &[Address]) -> Result<P::Message, EncryptError> {
        if plaintext.len() > MAX_PLAINTEXT_LENGTH {
            return Err(EncryptError::TooLong(plaintext.len()));
        }
        let mut recipients: Vec<&Address> = recipients.iter().filter(|address| !self.is_own(address)).collect();
        recipients.sort();
        recipients.dedup();
        match recipients.len() {
            0 => return Err(EncryptError::NoRecipients),
            count if count > MAX_HEADERS => return Err(EncryptError::TooManyRecipients(count)),
            _ => {}
        }
        if let Some(missing) = recipients.iter().find(|address| !self.has_session(address)) {
            return Err(EncryptError::NoSession((**missing).clone()));
        }

        let (material, payload) = P::seal(plaintext)?;
        let mut headers = Vec::with_capacity(recipients.len());
        for address in recipients {
            let session = self.0.peers.get_mut(address).and_then(Peer::sending);
            headers.push((address.jid(), header(address, session, material.as_slice())?));
        }
        Ok(P::assemble(self.0.id, headers, payload))
    }

    /// Makes an empty message, which only moves the session: an answer to a key exchange, a heartbeat, or the first
    /// message after a session was repaired.
    ///
    /// # Errors
    /// [`EncryptError`].
    pub fn encrypt_empty(&mut self, recipient: &Address) -> Result<P::Message, EncryptError> {
        let (material, payload) = P::seal_empty()?;
        let session = self.0.peers.get_mut(recipient).and_then(Peer::replying);
        let header = header(recipient, session, material.as_slice())?;
        Ok(P::assemble(self.0.id, vec![(recipient.jid(), header)], payload))
    }

    /// Encrypts bytes of the caller's own for one device, as the content of a `<key/>`: what [`Device::encrypt`] does
    /// with the key of a payload. For extensions that transport keys, and for checking one implementation against
    /// another; messages are for [`Device::encrypt`].
    ///
    /// # Errors
    /// [`EncryptError`]; among the reasons: more than [`MAX_KEY_MATERIAL_LENGTH`] bytes.
    pub fn encrypt_key_material(
        &mut self,
        material: &[u8],
        recipient: &Address,
    ) -> Result<MessageHeader, EncryptError> {
        if material.len() > MAX_KEY_MATERIAL_LENGTH {
            return Err(EncryptError::TooLong(material.len()));
        }
        header(recipient, self.0.peers.get_mut(recipient).and_then(Peer::sending), material)
    }
}

/// The header for one recipient.
fn header<P: Protocol>(
    address: &Address,
    session: Option<&mut Session<P>>,
    material: &[u8],
) -> Result<MessageHeader, EncryptError> {
    let session = session.ok_or_else(|| EncryptError::NoSession(address.clone()))?;
    let (kex, data) = session.encrypt(material)?;
    Ok(MessageHeader { rid: address.device(), kex, data })
}
