//! The `<list/>` element: which devices an account has (XEP-0384 0.3.0, section 4.2).

use super::NAMESPACE;
use crate::{
    address::DeviceId,
    xml::{Element, Limits, XmlError},
};

/// How many devices a list may have. Lists of more than a few dozen are accidents.
pub const MAX_DEVICES: usize = 1000;

/// The largest list in bytes of XML.
const MAX_LIST_LENGTH: usize = 128 * 1024;

/// The devices of an account, in the order of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceList {
    /// The devices.
    pub devices: Vec<DeviceId>,
}

impl DeviceList {
    /// Whether the list has a device of that number.
    #[must_use]
    pub fn contains(&self, id: DeviceId) -> bool {
        self.devices.contains(&id)
    }

    /// The element as XML, to be put into a pubsub `<item/>` as it is.
    #[must_use]
    pub fn to_xml(&self) -> String {
        let mut xml = format!("<list xmlns='{NAMESPACE}'>");
        for id in &self.devices {
            xml.push_str(&format!("<device id='{id}'/>"));
        }
        xml.push_str("</list>");
        xml
    }

    /// Reads the element. The repetition of a device is ignored.
    ///
    /// # Errors
    /// [`XmlError`] when it is not a `<list/>` of this namespace, or beyond the limits above.
    pub fn from_xml(xml: &str) -> Result<Self, XmlError> {
        let limits = Limits { bytes: MAX_LIST_LENGTH, elements: MAX_DEVICES.saturating_add(1), depth: 4 };
        let element = Element::parse(xml, limits)?.expect("list", NAMESPACE)?;
        let mut list = Self::default();
        for device in element.all("device") {
            let id = device.id("id")?;
            if !list.contains(id) {
                list.devices.push(id);
            }
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let list = DeviceList { devices: [12345, 4223].map(|id| DeviceId::new(id).unwrap()).to_vec() };
        assert_eq!(DeviceList::from_xml(&list.to_xml()).unwrap(), list);
    }

    #[test]
    fn doubtful_lists_are_read_with_care() {
        let read = |xml: &str| DeviceList::from_xml(&format!("<list xmlns='{NAMESPACE}'>{xml}</list>"));
        assert_eq!(read("").unwrap(), DeviceList::default());
        assert_eq!(read("<device id='1'/><device id='1'/>").unwrap().devices.len(), 1);
        assert_eq!(read("<device id='0'/>"), Err(XmlError::Attribute("id")));
        assert!(matches!(read(&"<device id='1'/>".repeat(1001)), Err(XmlError::TooMany(_))));
    }
}
