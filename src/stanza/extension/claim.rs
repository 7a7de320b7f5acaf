//! Batch claim: one prekey of each of many devices, of one or more accounts, in one request.
//!
//! ```xml
//! <claim xmlns='urn:multiend:0' protocol='urn:xmpp:omemo:2' strict='true'>
//!   <account jid='bob@example.org'><device id='1'/><device id='2'/></account>
//!   <account jid='carol@example.org'/>
//! </claim>
//! ```

use jid::BareJid;

use super::protocol;
use crate::model::{DeviceId, Prekey, Protocol, SignedPrekey};
use crate::stanza::error::{Condition, StanzaError};
use crate::stanza::namespace::MULTIEND;
use crate::stanza::tree::{Element, push_attribute};
use crate::stanza::{bundle, omemo};

/// Most accounts in one claim.
pub const MAX_ACCOUNTS: usize = 64;
/// Most devices in one claim, over all its accounts: their bundles take 200 KB.
pub const MAX_DEVICES: usize = 256;

/// Which devices, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// In which protocol.
    pub protocol: Protocol,
    /// No last resort: an error for a device that has no unissued prekey left.
    pub strict: bool,
    /// Whose devices; each account once.
    pub accounts: Vec<Account>,
}

/// Some devices of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Which account, or its alias; `None` for the one that the request is addressed to.
    pub jid: Option<BareJid>,
    /// Which devices, each once; none for all that are listed.
    pub devices: Vec<DeviceId>,
}

impl Request {
    pub(super) fn parse(claim: &Element<'_>) -> Result<Self, StanzaError> {
        let bad = |text: &str| StanzaError::new(Condition::BadRequest, text);
        let protocol = protocol(claim)?;
        let strict = match claim.attribute("strict") {
            None | Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(_) => return Err(bad("'strict' is true or false")),
        };
        let mut accounts: Vec<Account> = Vec::new();
        let mut named = 0_usize;
        for element in claim.children_named("account", MULTIEND) {
            let account = Account::parse(element)?;
            named = named.saturating_add(account.devices.len());
            if accounts.len() >= MAX_ACCOUNTS || named > MAX_DEVICES {
                let text = format!("at most {MAX_ACCOUNTS} accounts and {MAX_DEVICES} devices in one claim");
                return Err(StanzaError::new(Condition::PolicyViolation, text));
            }
            if accounts.iter().any(|other| other.jid == account.jid) {
                return Err(bad("an account stands twice"));
            }
            accounts.push(account);
        }
        if accounts.is_empty() {
            return Err(bad("a claim names at least one <account/>"));
        }
        Ok(Self { protocol, strict, accounts })
    }
}

impl Account {
    fn parse(element: &Element<'_>) -> Result<Self, StanzaError> {
        let jid = element.attribute("jid").map(|jid| {
            BareJid::new(jid)
                .map_err(|_| StanzaError::new(Condition::BadRequest, "'jid' is the bare JID of an account"))
        });
        let mut devices: Vec<DeviceId> = Vec::new();
        for device in element.children_named("device", MULTIEND) {
            let id = super::device_id(device, "id")?;
            if devices.len() < MAX_DEVICES.saturating_add(1) && !devices.contains(&id) {
                devices.push(id);
            }
        }
        Ok(Self { jid: jid.transpose()?, devices })
    }
}

/// The keys of one device, for one requester.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// The identity key.
    pub identity_key: Vec<u8>,
    /// The signed prekey.
    pub signed_prekey: SignedPrekey,
    /// The one-time prekey, which is this requester's.
    pub prekey: Prekey,
}

/// What one account of a claim gave.
#[derive(Debug)]
pub struct Answer {
    /// The account as it was named.
    pub jid: Option<BareJid>,
    /// Its devices in the order asked; or nothing could be claimed of the account.
    pub devices: Result<Devices, StanzaError>,
}

/// Devices, each with its keys or with the reason why there are none.
pub type Devices = Vec<(DeviceId, Result<Handed, StanzaError>)>;

/// `<claim/>`: the answer, account by account.
pub fn result(protocol: Protocol, answers: &[Answer]) -> String {
    let mut out = super::open("claim");
    push_attribute(&mut out, "protocol", omemo::namespace(protocol));
    out.push('>');
    for answer in answers {
        out.push_str("<account");
        if let Some(jid) = &answer.jid {
            push_attribute(&mut out, "jid", jid.as_str());
        }
        out.push('>');
        match &answer.devices {
            Ok(devices) => devices.iter().for_each(|(id, handed)| push_device(&mut out, *id, handed, protocol)),
            Err(error) => out.push_str(&error.to_xml()),
        }
        out.push_str("</account>");
    }
    out.push_str("</claim>");
    out
}

fn push_device(out: &mut String, id: DeviceId, handed: &Result<Handed, StanzaError>, protocol: Protocol) {
    out.push_str("<device");
    push_attribute(out, "id", &id.to_string());
    out.push('>');
    match handed {
        Ok(keys) => {
            let prekey = std::slice::from_ref(&keys.prekey);
            out.push_str(&bundle::write(&keys.identity_key, &keys.signed_prekey, prekey, protocol));
        }
        Err(error) => out.push_str(&error.to_xml()),
    }
    out.push_str("</device>");
}
