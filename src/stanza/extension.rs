//! `urn:multiend:0`, what we add to the standards for the directory (docs/protocol.md): requests about several devices at
//! once, or about one device of a list, and what a device wants to know of its own keys.
//!
//! Everything here is one element in our own namespace, in an IQ. Nothing of it is needed by a client that knows only the
//! standards.

pub mod check;
pub mod claim;
pub mod device;
pub mod notice;
pub mod stock;

use super::error::{Condition, StanzaError};
use super::namespace::MULTIEND;
use super::omemo;
use super::tree::{Element, push_attribute};
use crate::model::{DeviceId, Protocol};

/// What disco#info says of the parts of the extension, beside `urn:multiend:0` itself.
pub const FEATURES: [&str; 4] =
    ["urn:multiend:0#claim", "urn:multiend:0#devices", "urn:multiend:0#stock", "urn:multiend:0#check"];

/// A request of the extension about directories.
#[derive(Debug)]
pub enum Request {
    /// Hand out one prekey of each of several devices.
    Claim(claim::Request),
    /// Put one device into the list.
    AddDevice(device::Add),
    /// Take one device off the list, with its bundle.
    RemoveDevice(Device),
    /// What became of a device's prekeys.
    Stock(stock::Request),
    /// Whether a device's bundle and list are what it thinks.
    Check(Device),
}

/// One device of the owner asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// In which protocol.
    pub protocol: Protocol,
    /// Which.
    pub id: DeviceId,
}

impl Request {
    /// Reads the payload of an IQ.
    pub fn parse(payload: &Element<'_>, is_set: bool) -> Result<Self, StanzaError> {
        match (payload.name(), is_set) {
            ("claim", true) => claim::Request::parse(payload).map(Self::Claim),
            ("add-device", true) => device::Add::parse(payload).map(Self::AddDevice),
            ("remove-device", true) => Device::parse(payload).map(Self::RemoveDevice),
            ("stock", false) => stock::Request::parse(payload).map(Self::Stock),
            ("check", false) => Device::parse(payload).map(Self::Check),
            (_, _) => Err(StanzaError::new(Condition::FeatureNotImplemented, "urn:multiend:0 has no such request")),
        }
    }
}

impl Device {
    fn parse(payload: &Element<'_>) -> Result<Self, StanzaError> {
        Ok(Self { protocol: protocol(payload)?, id: device_id(payload, "device")? })
    }

    /// Writes its attributes.
    fn push(self, out: &mut String) {
        push_attribute(out, "protocol", omemo::namespace(self.protocol));
        push_attribute(out, "device", &self.id.to_string());
    }
}

/// The protocol that a request is about, by its namespace.
fn protocol(element: &Element<'_>) -> Result<Protocol, StanzaError> {
    let name = element.attribute("protocol").unwrap_or_default();
    let protocol = Protocol::ALL.into_iter().find(|protocol| omemo::namespace(*protocol) == name);
    let text = "'protocol' is urn:xmpp:omemo:2 or eu.siacs.conversations.axolotl";
    protocol.ok_or_else(|| StanzaError::new(Condition::BadRequest, text))
}

fn device_id(element: &Element<'_>, attribute: &str) -> Result<DeviceId, StanzaError> {
    let id = DeviceId::parse(element.attribute(attribute).unwrap_or_default());
    id.map_err(|error| StanzaError::new(Condition::BadRequest, format!("'{attribute}' is a device id: {error}")))
}

/// `<name xmlns='urn:multiend:0'`, still open.
fn open(name: &str) -> String {
    let mut out = String::with_capacity(256);
    out.push('<');
    out.push_str(name);
    push_attribute(&mut out, "xmlns", MULTIEND);
    out
}

#[cfg(test)]
mod tests;
