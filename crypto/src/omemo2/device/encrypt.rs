//! Encrypting with a device. Its user saves the state before the message leaves.

use super::Device;
use crate::omemo2::{
    address::Address,
    error::EncryptError,
    message::{EncryptedMessage, MAX_HEADERS, MessageHeader, RecipientHeaders},
    payload::{self, KeyMaterial, MAX_PLAINTEXT_LENGTH},
    peer::Peer,
    session::Session,
};

/// Encrypting. **Save the state before the message leaves.**
impl Device {
    /// Encrypts an envelope (see [`sce`](crate::sce)) for all `recipients` at once.
    ///
    /// Recipients are all trusted devices of the other side and of the own account. This device itself and repeated
    /// addresses are passed over.
    ///
    /// # Errors
    /// [`EncryptError`]; [`EncryptError::NoSession`] names the first device without a session, before anything else is
    /// done.
    pub fn encrypt(&mut self, envelope: &[u8], recipients: &[Address]) -> Result<EncryptedMessage, EncryptError> {
        if envelope.len() > MAX_PLAINTEXT_LENGTH {
            return Err(EncryptError::TooLong(envelope.len()));
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

        let (material, payload) = payload::seal(envelope)?;
        let mut keys: Vec<RecipientHeaders> = Vec::new();
        for address in recipients {
            let session = self.0.peers.get_mut(address).and_then(Peer::sending);
            let header = header(address, session, &material)?;
            match keys.last_mut() {
                Some(last) if last.jid == address.jid() => last.headers.push(header),
                _ => keys.push(RecipientHeaders { jid: address.jid().to_owned(), headers: vec![header] }),
            }
        }
        Ok(EncryptedMessage { sid: self.0.id, keys, payload: Some(payload) })
    }

    /// Makes an empty message, which only moves the session: an answer to a key exchange, a heartbeat, or the first
    /// message after a session was repaired.
    ///
    /// # Errors
    /// [`EncryptError`].
    pub fn encrypt_empty(&mut self, recipient: &Address) -> Result<EncryptedMessage, EncryptError> {
        let session = self.0.peers.get_mut(recipient).and_then(Peer::replying);
        let header = header(recipient, session, &KeyMaterial::empty())?;
        let keys = vec![RecipientHeaders { jid: recipient.jid().to_owned(), headers: vec![header] }];
        Ok(EncryptedMessage { sid: self.0.id, keys, payload: None })
    }
}

/// The header for one recipient.
fn header(
    address: &Address,
    session: Option<&mut Session>,
    material: &KeyMaterial,
) -> Result<MessageHeader, EncryptError> {
    let session = session.ok_or_else(|| EncryptError::NoSession(address.clone()))?;
    let (kex, data) = session.encrypt(material.as_slice())?;
    Ok(MessageHeader { rid: address.device(), kex, data })
}
