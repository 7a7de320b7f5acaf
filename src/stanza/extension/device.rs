//! One device of a list: added, relabelled or removed, without the rest of the list being read and written.
//!
//! ```xml
//! <add-device xmlns='urn:multiend:0' protocol='urn:xmpp:omemo:2' device='4223' label='phone' labelsig='…'/>
//! <remove-device xmlns='urn:multiend:0' protocol='urn:xmpp:omemo:2' device='4223'/>
//! ```

use super::protocol;
use crate::model::{Device, DeviceList, Protocol};
use crate::stanza::error::{Condition, StanzaError};
use crate::stanza::tree::{Element, push_attribute};
use crate::stanza::{device_list, omemo};

/// A device to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// In which protocol.
    pub protocol: Protocol,
    /// The device with its label.
    pub device: Device,
}

impl Add {
    pub(super) fn parse(payload: &Element<'_>) -> Result<Self, StanzaError> {
        let protocol = protocol(payload)?;
        let id = super::device_id(payload, "device")?;
        let labels = device_list::labels(payload, id, protocol);
        let (label, label_signature) =
            labels.map_err(|error| StanzaError::new(Condition::BadRequest, error.to_string()))?;
        Ok(Self { protocol, device: Device { id, label, label_signature } })
    }
}

/// `<list/>`: the answer, around the list now in force.
pub fn result(list: &DeviceList, protocol: Protocol) -> String {
    let mut out = super::open("list");
    push_attribute(&mut out, "protocol", omemo::namespace(protocol));
    out.push('>');
    out.push_str(&device_list::write(list, protocol));
    out.push_str("</list>");
    out
}
