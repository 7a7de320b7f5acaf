//! Device lists as they are published (XEP-0384 "Device list"; XEP-0384 0.3.0 §4.2). Building and reading only: no I/O.

use minidom::Element;
use multiend_crypto::address::DeviceId;
use multiend_crypto::{legacy, omemo2};

use crate::error::ClientError;
use crate::protocol::Protocol;

/// The device ids in a list; `None` if it is none.
pub(crate) fn read_ids(protocol: Protocol, list: &Element) -> Option<Vec<u32>> {
    let xml = String::from(list);
    Some(match protocol {
        Protocol::Omemo2 => {
            omemo2::DeviceList::from_xml(&xml).ok()?.devices.iter().map(|device| device.id.get()).collect()
        }
        Protocol::Legacy => legacy::DeviceList::from_xml(&xml).ok()?.devices.iter().map(|id| id.get()).collect(),
    })
}

/// The list with one device more, everything else as it was; `None` if that one is listed already.
pub(crate) fn with(protocol: Protocol, list: Option<&Element>, device: u32) -> Result<Option<Element>, ClientError> {
    let malformed = |_| ClientError::Malformed("the device list");
    let xml = list.map(String::from);
    let id = DeviceId::new(device).map_err(|error| ClientError::Crypto(error.to_string()))?;
    let longer = match protocol {
        Protocol::Omemo2 => {
            let mut list =
                xml.as_deref().map(omemo2::DeviceList::from_xml).transpose().map_err(malformed)?.unwrap_or_default();
            if list.contains(id) {
                return Ok(None);
            }
            list.devices.push(omemo2::ListedDevice { id, label: None });
            list.to_xml()
        }
        Protocol::Legacy => {
            let mut list =
                xml.as_deref().map(legacy::DeviceList::from_xml).transpose().map_err(malformed)?.unwrap_or_default();
            if list.contains(id) {
                return Ok(None);
            }
            list.devices.push(id);
            list.to_xml()
        }
    };
    longer.parse().map(Some).map_err(|_| ClientError::Malformed("the own device list"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_added_once_and_the_others_stay() {
        for protocol in Protocol::ALL {
            let first = with(protocol, None, 7).unwrap().unwrap();
            let second = with(protocol, Some(&first), 8).unwrap().unwrap();
            assert_eq!(read_ids(protocol, &second), Some(vec![7, 8]));
            assert!(with(protocol, Some(&second), 7).unwrap().is_none());
        }
        let labelled = "<devices xmlns='urn:xmpp:omemo:2'><device id='7' label='Gajim' labelsig='".to_owned()
            + &"A".repeat(86)
            + "=='/></devices>";
        let longer = with(Protocol::Omemo2, Some(&labelled.parse().unwrap()), 8).unwrap().unwrap();
        assert!(String::from(&longer).contains("Gajim"), "what others said about their devices is kept");
    }

    #[test]
    fn a_list_of_the_other_protocol_is_none() {
        let list = with(Protocol::Legacy, None, 7).unwrap().unwrap();
        assert_eq!(read_ids(Protocol::Omemo2, &list), None);
        assert!(with(Protocol::Omemo2, Some(&list), 8).is_err());
    }
}
