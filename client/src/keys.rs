//! A device's keys and sessions in one protocol, spoken to in the terms of this crate: accounts, device ids and XML
//! elements.
//!
//! [`Keys`] is the same for both protocols; [`Dialect`] is what they do differently. Nothing here does I/O or saves.

use std::time::{SystemTime, UNIX_EPOCH};

use minidom::Element;
use multiend_crypto::address::{Address, DeviceId, KeyId};
use multiend_crypto::bundle::Bundle;
use multiend_crypto::device::Device;
use multiend_crypto::error::{DecryptError, StateError};
use multiend_crypto::generation::{Legacy, Omemo2};
use multiend_crypto::protocol::{EncryptedElement as _, Protocol as Rules, PublicIdentity as _};
use multiend_crypto::sce::Envelope;
use xmpp_parsers::jid::BareJid;

use crate::error::ClientError;
use crate::protocol::Protocol;

/// A message that is addressed to this device and not yet decrypted.
pub(crate) struct Sealed {
    element: String,
    /// Of the sending device.
    pub(crate) device: u32,
    /// The header for this device: different in any two messages.
    pub(crate) header: Vec<u8>,
}

/// Why a message gives nothing to read.
pub(crate) enum Unreadable {
    /// It came before.
    Duplicate,
    /// The sender thinks that there is a session, and there is none.
    NoSession,
    /// Anything else.
    Other(String),
}

/// What decrypting a message gave.
pub(crate) enum Opened {
    /// A text.
    Text(String),
    /// Something genuine without a text: a message that only moves the session, or an extension unknown here.
    WithoutText,
    /// Something genuine whose content cannot be used. Says why.
    Unusable(String),
    /// Nothing; the session has not moved.
    Not(Unreadable),
}

/// What an encrypted element is to this device.
pub(crate) enum Addressed {
    /// It has a header for this device.
    Here(Sealed),
    /// This device made it.
    Own,
    /// It is for other devices. Says who sent it and whether it has a payload: without one nothing was missed.
    Elsewhere { sender: u32, payload: bool },
}

/// The part of a device that belongs to one protocol.
pub(crate) trait Keys: Send {
    /// Everything to be saved.
    fn to_state(&self) -> Result<String, ClientError>;
    /// This device's id.
    fn id(&self) -> u32;
    /// The fingerprint that users compare.
    fn fingerprint(&self) -> String;
    /// The same device in another protocol: the same id and identity, with sessions and prekeys of its own.
    fn sibling(&self, protocol: Protocol) -> Result<Box<dyn Keys>, ClientError>;
    /// The bundle to publish.
    fn bundle(&self) -> Result<Element, ClientError>;
    /// Replaces used prekeys and an old signed prekey. Whether the bundle has to be published afterwards.
    fn refresh_bundle(&mut self) -> Result<bool, ClientError>;
    /// Whether the bundle should be published again.
    fn bundle_changed(&self) -> bool;
    /// The server has accepted the bundle as it is now.
    fn bundle_published(&mut self);
    /// What is published is not the bundle as it is now.
    fn bundle_lost(&mut self);
    /// Takes prekeys that others were given out of the bundle, and fills it up with new ones.
    fn retire_prekeys(&mut self, issued: &[u32]) -> Result<(), ClientError>;
    /// Replaces all prekeys.
    fn replace_prekeys(&mut self) -> Result<(), ClientError>;
    /// The archive is about to be read: what it brings may use prekeys that others have used, too.
    fn catch_up_started(&mut self);
    /// The archive has been read to its end.
    fn catch_up_finished(&mut self);
    /// Whether there is a session with a device.
    fn has_session(&self, account: &BareJid, device: u32) -> bool;
    /// Starts a session from a `<bundle/>`; otherwise says what is wrong with it.
    fn start_session(&mut self, account: &BareJid, device: u32, bundle: &Element) -> Result<(), String>;
    /// Encrypts a text for devices with which there are sessions.
    fn encrypt(&mut self, body: &str, devices: &[(&BareJid, u32)]) -> Result<Element, ClientError>;
    /// A message without content, which moves the session.
    fn encrypt_empty(&mut self, account: &BareJid, device: u32) -> Result<Element, ClientError>;
    /// The devices to which an empty message is due.
    fn replies_due(&self) -> Vec<(BareJid, u32)>;
    /// Looks at an encrypted element from `sender` without decrypting it; otherwise says what is wrong with it.
    fn examine(&self, sender: &BareJid, encrypted: &Element) -> Result<Addressed, String>;
    /// Decrypts. Where this gives anything but [`Opened::Not`], the session has moved and must be saved.
    fn decrypt(&mut self, sender: &BareJid, sealed: &Sealed) -> Opened;
}

/// What goes into the payload of a message.
trait Dialect: Rules {
    /// What is encrypted for a text from `sender`.
    fn wrap(body: &str, sender: &str) -> Result<Vec<u8>, ClientError>;
    /// What was encrypted, when `sender` sent it.
    fn unwrap(plaintext: &[u8], sender: &str) -> Opened;
    /// Whether an element has a payload.
    fn has_payload(message: &Self::Message) -> bool;
}

impl Dialect for Omemo2 {
    fn wrap(body: &str, sender: &str) -> Result<Vec<u8>, ClientError> {
        Ok(Envelope::with_body(body).from_jid(sender).to_xml().map_err(crypto)?.into_bytes())
    }

    fn unwrap(plaintext: &[u8], sender: &str) -> Opened {
        let envelope = match Envelope::from_xml(plaintext) {
            Ok(envelope) => envelope,
            Err(error) => return Opened::Unusable(error.to_string()),
        };
        // The `to` affix matters in rooms only.
        match envelope.check(sender, envelope.to.as_deref().unwrap_or_default(), false) {
            Ok(()) => envelope.body().map_or(Opened::WithoutText, Opened::Text),
            Err(error) => Opened::Unusable(error.to_string()),
        }
    }

    fn has_payload(message: &Self::Message) -> bool {
        message.payload.is_some()
    }
}

impl Dialect for Legacy {
    fn wrap(body: &str, _: &str) -> Result<Vec<u8>, ClientError> {
        Ok(body.as_bytes().to_vec())
    }

    fn unwrap(plaintext: &[u8], _: &str) -> Opened {
        match str::from_utf8(plaintext) {
            Ok(body) => Opened::Text(body.to_owned()),
            Err(_) => Opened::Unusable("the text is not UTF-8".to_owned()),
        }
    }

    fn has_payload(message: &Self::Message) -> bool {
        message.payload.is_some()
    }
}

impl<P: Dialect> Keys for Device<P> {
    fn to_state(&self) -> Result<String, ClientError> {
        let state = self.to_state().map_err(crypto)?;
        String::from_utf8(state.to_vec()).map_err(crypto)
    }

    fn id(&self) -> u32 {
        self.id().get()
    }

    fn fingerprint(&self) -> String {
        self.identity().fingerprint()
    }

    fn sibling(&self, protocol: Protocol) -> Result<Box<dyn Keys>, ClientError> {
        Ok(match protocol {
            Protocol::Omemo2 => Box::new(self.sibling::<Omemo2>(now()).map_err(crypto)?),
            Protocol::Legacy => Box::new(self.sibling::<Legacy>(now()).map_err(crypto)?),
        })
    }

    fn bundle(&self) -> Result<Element, ClientError> {
        element(&self.bundle().to_xml(), "the own bundle")
    }

    fn refresh_bundle(&mut self) -> Result<bool, ClientError> {
        self.rotate_signed_prekey_if_due(now()).map_err(crypto)?;
        self.replenish().map_err(crypto)?;
        Ok(self.bundle_changed())
    }

    fn bundle_changed(&self) -> bool {
        self.bundle_changed()
    }

    fn bundle_published(&mut self) {
        self.bundle_published();
    }

    fn bundle_lost(&mut self) {
        self.bundle_lost();
    }

    fn retire_prekeys(&mut self, issued: &[u32]) -> Result<(), ClientError> {
        let issued: Vec<KeyId> = issued.iter().filter_map(|id| KeyId::new(*id).ok()).collect();
        self.retire_prekeys(&issued).map(drop).map_err(crypto)
    }

    fn replace_prekeys(&mut self) -> Result<(), ClientError> {
        self.replace_prekeys().map_err(crypto)
    }

    fn catch_up_started(&mut self) {
        self.catch_up_started();
    }

    fn catch_up_finished(&mut self) {
        self.catch_up_finished();
    }

    fn has_session(&self, account: &BareJid, device: u32) -> bool {
        Address::new(account.as_str(), device).is_ok_and(|address| self.has_session(&address))
    }

    fn start_session(&mut self, account: &BareJid, device: u32, bundle: &Element) -> Result<(), String> {
        let address = Address::new(account.as_str(), device).map_err(|error| error.to_string())?;
        let mut bundle = Bundle::<P>::from_xml(&String::from(bundle)).map_err(|error| error.to_string())?;
        if account.as_str() == self.owner() {
            // The own account is shown whole bundles, with keys in them that others were handed, oldest first. Two users of
            // one key: the later one's messages are lost. So a sibling stays away from where others are served.
            let older = bundle.prekeys.len() / 2;
            bundle.prekeys.drain(..older);
        }
        self.start_session(&address, &bundle).map_err(|error| error.to_string())
    }

    fn encrypt(&mut self, body: &str, devices: &[(&BareJid, u32)]) -> Result<Element, ClientError> {
        let addresses = devices
            .iter()
            .map(|(account, device)| Address::new(account.as_str(), *device).map_err(crypto))
            .collect::<Result<Vec<_>, _>>()?;
        let plaintext = P::wrap(body, self.owner())?;
        let message = self.encrypt(&plaintext, &addresses).map_err(crypto)?;
        element(&message.write(), "the encrypted message")
    }

    fn encrypt_empty(&mut self, account: &BareJid, device: u32) -> Result<Element, ClientError> {
        let address = Address::new(account.as_str(), device).map_err(crypto)?;
        let message = self.encrypt_empty(&address).map_err(crypto)?;
        element(&message.write(), "the empty message")
    }

    fn replies_due(&self) -> Vec<(BareJid, u32)> {
        self.replies_due()
            .into_iter()
            .filter_map(|address| Some((BareJid::new(address.jid()).ok()?, address.device().get())))
            .collect()
    }

    fn examine(&self, sender: &BareJid, encrypted: &Element) -> Result<Addressed, String> {
        let element = String::from(encrypted);
        let message = P::Message::read(&element).map_err(|error| error.to_string())?;
        if message.sender() == self.id() && sender.as_str() == self.owner() {
            return Ok(Addressed::Own);
        }
        let device = message.sender().get();
        let header = message.headers_for(self.owner(), self.id()).first().map(|header| header.data.clone());
        Ok(match header {
            Some(header) => Addressed::Here(Sealed { element, device, header }),
            None => Addressed::Elsewhere { sender: device, payload: P::has_payload(&message) },
        })
    }

    fn decrypt(&mut self, sender: &BareJid, sealed: &Sealed) -> Opened {
        let message = match P::Message::read(&sealed.element) {
            Ok(message) => message,
            Err(error) => return Opened::Not(Unreadable::Other(error.to_string())),
        };
        match self.decrypt(sender.as_str(), &message) {
            Ok(decrypted) => match decrypted.plaintext {
                Some(plaintext) => P::unwrap(&plaintext, sender.as_str()),
                None => Opened::WithoutText,
            },
            Err(DecryptError::Duplicate) => Opened::Not(Unreadable::Duplicate),
            Err(DecryptError::NoSession(_)) => Opened::Not(Unreadable::NoSession),
            Err(error) => Opened::Not(Unreadable::Other(error.to_string())),
        }
    }
}

/// The keys of a new device of `account`, with a random id.
pub(crate) fn generate(protocol: Protocol, account: &BareJid) -> Result<Box<dyn Keys>, ClientError> {
    let (owner, id) = (account.as_str(), DeviceId::random().map_err(crypto)?);
    Ok(match protocol {
        Protocol::Omemo2 => Box::new(Device::<Omemo2>::generate(owner, id, now()).map_err(crypto)?),
        Protocol::Legacy => Box::new(Device::<Legacy>::generate(owner, id, now()).map_err(crypto)?),
    })
}

/// The keys that [`Keys::to_state`] described.
pub(crate) fn restore(protocol: Protocol, state: &str) -> Result<Box<dyn Keys>, StateError> {
    let state = state.as_bytes();
    Ok(match protocol {
        Protocol::Omemo2 => Box::new(Device::<Omemo2>::from_state(state)?),
        Protocol::Legacy => Box::new(Device::<Legacy>::from_state(state)?),
    })
}

fn element(xml: &str, what: &'static str) -> Result<Element, ClientError> {
    xml.parse().map_err(|_| ClientError::Malformed(what))
}

fn crypto(error: impl std::fmt::Display) -> ClientError {
    ClientError::Crypto(error.to_string())
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
