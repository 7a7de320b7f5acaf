//! The device's keys and sessions, spoken to in the terms of this crate: accounts, device ids and XML elements.
//!
//! This is the one place that knows which OMEMO protocol is spoken. It does no I/O and saves nothing; see
//! [`crate::memory`] for the order in which things are saved.

use std::time::{SystemTime, UNIX_EPOCH};

use minidom::Element;
use multiend_crypto::omemo2::{
    Address, Bundle, DecryptError, Device, DeviceId, DeviceList, EncryptedMessage, ListedDevice,
};
use multiend_crypto::sce::Envelope;
use xmpp_parsers::jid::BareJid;

use crate::error::ClientError;

/// A device with its sessions.
pub(crate) struct Cipher(Device);

/// A message that is addressed to this device and not yet decrypted.
pub(crate) struct Sealed {
    message: EncryptedMessage,
    header: Vec<u8>,
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
    Here(u32, Sealed),
    /// This device made it.
    Own,
    /// It is for other devices. Says who sent it and whether it has a payload: without one nothing was missed.
    Elsewhere { sender: u32, payload: bool },
}

impl Cipher {
    /// A new device of `account` with a random id.
    pub(crate) fn generate(account: &BareJid) -> Result<Self, ClientError> {
        let id = DeviceId::random().map_err(crypto)?;
        Device::generate(account.as_str(), id, now()).map(Self).map_err(crypto)
    }

    /// The device that [`Cipher::to_state`] described.
    pub(crate) fn from_state(state: &str) -> Result<Self, String> {
        Device::from_state(state.as_bytes()).map(Self).map_err(|error| error.to_string())
    }

    /// Everything to be saved.
    pub(crate) fn to_state(&self) -> Result<String, ClientError> {
        let state = self.0.to_state().map_err(crypto)?;
        String::from_utf8(state.to_vec()).map_err(crypto)
    }

    /// This device's id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id().get()
    }

    /// The fingerprint that users compare.
    pub(crate) fn fingerprint(&self) -> String {
        self.0.identity().fingerprint()
    }

    /// The bundle to publish.
    pub(crate) fn bundle(&self) -> Result<Element, ClientError> {
        element(&self.0.bundle().to_xml(), "the own bundle")
    }

    /// Replaces used prekeys and an old signed prekey. Whether the bundle has to be published afterwards.
    pub(crate) fn refresh_bundle(&mut self) -> Result<bool, ClientError> {
        self.0.rotate_signed_prekey_if_due(now()).map_err(crypto)?;
        self.0.replenish().map_err(crypto)?;
        Ok(self.0.bundle_changed())
    }

    /// Whether the bundle should be published again.
    pub(crate) fn bundle_changed(&self) -> bool {
        self.0.bundle_changed()
    }

    /// The server has accepted the bundle as it is now.
    pub(crate) fn bundle_published(&mut self) {
        self.0.bundle_published();
    }

    /// The archive is about to be read: what it brings may use prekeys that others have used, too.
    pub(crate) fn catch_up_started(&mut self) {
        self.0.catch_up_started();
    }

    /// The archive has been read to its end.
    pub(crate) fn catch_up_finished(&mut self) {
        self.0.catch_up_finished();
    }

    /// Whether there is a session with a device.
    pub(crate) fn has_session(&self, account: &BareJid, device: u32) -> bool {
        Address::new(account.as_str(), device).is_ok_and(|address| self.0.has_session(&address))
    }

    /// Starts a session from a `<bundle/>`; otherwise says what is wrong with it.
    pub(crate) fn start_session(&mut self, account: &BareJid, device: u32, bundle: &Element) -> Result<(), String> {
        let address = Address::new(account.as_str(), device).map_err(|error| error.to_string())?;
        let mut bundle = Bundle::from_xml(&String::from(bundle)).map_err(|error| error.to_string())?;
        if account.as_str() == self.0.owner() {
            // A server that knows which device this is gives it one prekey of a sibling, like anybody else. One that does not
            // know, or is no key server, shows the whole bundle, with keys in it that others were handed, oldest first. Two
            // users of one key: the later one's messages are lost. So a sibling stays away from where others are served.
            let older = bundle.prekeys.len() / 2;
            bundle.prekeys.drain(..older);
        }
        self.0.start_session(&address, &bundle).map_err(|error| error.to_string())
    }

    /// Encrypts a text for devices with which there are sessions.
    pub(crate) fn encrypt(&mut self, body: &str, devices: &[(BareJid, u32)]) -> Result<Element, ClientError> {
        let addresses = devices
            .iter()
            .map(|(account, device)| Address::new(account.as_str(), *device).map_err(crypto))
            .collect::<Result<Vec<_>, _>>()?;
        let envelope = Envelope::with_body(body).from_jid(self.0.owner()).to_xml().map_err(crypto)?;
        let message = self.0.encrypt(envelope.as_bytes(), &addresses).map_err(crypto)?;
        element(&message.to_xml(), "the encrypted message")
    }

    /// A message without content, which moves the session.
    pub(crate) fn encrypt_empty(&mut self, account: &BareJid, device: u32) -> Result<Element, ClientError> {
        let address = Address::new(account.as_str(), device).map_err(crypto)?;
        let message = self.0.encrypt_empty(&address).map_err(crypto)?;
        element(&message.to_xml(), "the empty message")
    }

    /// The devices to which an empty message is due.
    pub(crate) fn replies_due(&self) -> Vec<(BareJid, u32)> {
        self.0
            .replies_due()
            .into_iter()
            .filter_map(|address| Some((BareJid::new(address.jid()).ok()?, address.device().get())))
            .collect()
    }

    /// Looks at an encrypted element from `sender` without decrypting it; otherwise says what is wrong with it.
    pub(crate) fn examine(&self, sender: &BareJid, encrypted: &Element) -> Result<Addressed, String> {
        let message = EncryptedMessage::from_xml(&String::from(encrypted)).map_err(|error| error.to_string())?;
        if message.sid == self.0.id() && sender.as_str() == self.0.owner() {
            return Ok(Addressed::Own);
        }
        let sid = message.sid.get();
        Ok(match message.header_for(self.0.owner(), self.0.id()).map(|header| header.data.clone()) {
            Some(header) => Addressed::Here(sid, Sealed { message, header }),
            None => Addressed::Elsewhere { sender: sid, payload: message.payload.is_some() },
        })
    }

    /// Decrypts. Where this gives anything but [`Opened::Not`], the session has moved and must be saved.
    pub(crate) fn decrypt(&mut self, sender: &BareJid, sealed: &Sealed) -> Opened {
        let plaintext = match self.0.decrypt(sender.as_str(), &sealed.message) {
            Ok(decrypted) => decrypted.plaintext,
            Err(DecryptError::Duplicate) => return Opened::Not(Unreadable::Duplicate),
            Err(DecryptError::NoSession(_)) => return Opened::Not(Unreadable::NoSession),
            Err(error) => return Opened::Not(Unreadable::Other(error.to_string())),
        };
        let Some(plaintext) = plaintext else { return Opened::WithoutText };
        let envelope = match Envelope::from_xml(&plaintext) {
            Ok(envelope) => envelope,
            Err(error) => return Opened::Unusable(error.to_string()),
        };
        // The `to` affix matters in rooms only.
        match envelope.check(sender.as_str(), envelope.to.as_deref().unwrap_or_default(), false) {
            Ok(()) => envelope.body().map_or(Opened::WithoutText, Opened::Text),
            Err(error) => Opened::Unusable(error.to_string()),
        }
    }
}

impl Sealed {
    /// The header for this device: different in any two messages.
    pub(crate) fn header(&self) -> &[u8] {
        &self.header
    }
}

/// The device ids in a `<devices/>`.
pub(crate) fn read_device_ids(devices: &Element) -> Option<Vec<u32>> {
    let list = DeviceList::from_xml(&String::from(devices)).ok()?;
    Some(list.devices.iter().map(|device| device.id.get()).collect())
}

/// `devices` with one device more, everything else as it was; `None` if that one is listed already.
pub(crate) fn list_with(devices: Option<&Element>, device: u32) -> Result<Option<Element>, ClientError> {
    let mut list = match devices {
        Some(devices) => {
            DeviceList::from_xml(&String::from(devices)).map_err(|_| ClientError::Malformed("the device list"))?
        }
        None => DeviceList::default(),
    };
    let id = DeviceId::new(device).map_err(crypto)?;
    if list.contains(id) {
        return Ok(None);
    }
    list.devices.push(ListedDevice { id, label: None });
    element(&list.to_xml(), "the own device list").map(Some)
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
