//! The `<devices/>` element: which devices an account has (XEP-0384, "Device list").

use super::NAMESPACE;
use crate::{
    address::DeviceId,
    identity::{IdentityKey, SIGNATURE_LENGTH},
    xml::{Element, Limits, XmlError, decode_base64, encode_base64, escaped},
};

/// How many devices a list may have. Lists of more than a few dozen are accidents.
pub const MAX_DEVICES: usize = 1000;

/// The largest label in bytes. The XEP recommends fewer than 53 code points, each of at most four bytes.
pub const MAX_LABEL_LENGTH: usize = 256;

/// The largest list in bytes of XML.
const MAX_LIST_LENGTH: usize = 512 * 1024;

/// The devices of an account, in the order of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceList {
    /// The devices.
    pub devices: Vec<ListedDevice>,
}

/// One device in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDevice {
    /// Its number.
    pub id: DeviceId,
    /// What its user calls it, with the identity's signature over the UTF-8 bytes. Never show a label for which
    /// [`ListedDevice::label_of`] gives nothing.
    pub label: Option<(String, [u8; SIGNATURE_LENGTH])>,
}

impl DeviceList {
    /// Whether the list has a device of that number.
    #[must_use]
    pub fn contains(&self, id: DeviceId) -> bool {
        self.devices.iter().any(|device| device.id == id)
    }

    /// The element as XML, to be put into a pubsub `<item/>` as it is.
    #[must_use]
    pub fn to_xml(&self) -> String {
        let mut xml = format!("<devices xmlns='{NAMESPACE}'>");
        for ListedDevice { id, label } in &self.devices {
            xml.push_str(&format!("<device id='{id}'"));
            if let Some((label, signature)) = label {
                xml.push_str(&format!(" label='{}' labelsig='{}'", escaped(label), encode_base64(signature)));
            }
            xml.push_str("/>");
        }
        xml.push_str("</devices>");
        xml
    }

    /// Reads the element. A label that is too long, or has no well-formed signature, is ignored, as the XEP wants it;
    /// so is the repetition of a device.
    ///
    /// # Errors
    /// [`XmlError`] when it is not a `<devices/>` of this namespace, or beyond the limits above.
    pub fn from_xml(xml: &str) -> Result<Self, XmlError> {
        let limits = Limits { bytes: MAX_LIST_LENGTH, elements: MAX_DEVICES.saturating_add(1), depth: 4 };
        let element = Element::parse(xml, limits)?.expect("devices", NAMESPACE)?;
        let mut list = Self::default();
        for device in element.all("device") {
            let id = device.id("id")?;
            if !list.contains(id) {
                list.devices.push(ListedDevice { id, label: label(device) });
            }
        }
        Ok(list)
    }
}

impl ListedDevice {
    /// The label, provided that this identity signed it.
    #[must_use]
    pub fn label_of(&self, identity: &IdentityKey) -> Option<&str> {
        let (label, signature) = self.label.as_ref()?;
        identity.verify(label.as_bytes(), signature).ok().map(|()| label.as_str())
    }
}

fn label(device: &Element) -> Option<(String, [u8; SIGNATURE_LENGTH])> {
    let label = device.attribute("label").filter(|label| label.len() <= MAX_LABEL_LENGTH)?;
    let signature = decode_base64(device.attribute("labelsig")?)?.try_into().ok()?;
    Some((label.to_owned(), signature))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentityKeyPair;

    #[test]
    fn what_was_written_is_read_and_labels_are_checked() {
        let identity = IdentityKeyPair::from_seed(&[1; 32]);
        let label = "Gajim on <Linux>";
        let list = DeviceList {
            devices: vec![
                ListedDevice { id: DeviceId::new(12345).unwrap(), label: None },
                ListedDevice {
                    id: DeviceId::new(4223).unwrap(),
                    label: Some((label.to_owned(), identity.sign(label.as_bytes()))),
                },
            ],
        };
        let read = DeviceList::from_xml(&list.to_xml()).unwrap();
        assert_eq!(read, list);
        assert_eq!(read.devices[1].label_of(&identity.public_key()), Some(label));
        assert_eq!(read.devices[1].label_of(&IdentityKeyPair::from_seed(&[2; 32]).public_key()), None);
    }

    #[test]
    fn doubtful_lists_are_read_with_care() {
        let read = |xml: &str| DeviceList::from_xml(&format!("<devices xmlns='urn:xmpp:omemo:2'>{xml}</devices>"));
        assert_eq!(read("").unwrap(), DeviceList::default());
        assert_eq!(read("<device id='1'/><device id='1'/>").unwrap().devices.len(), 1);
        assert_eq!(read("<device id='1' label='x'/>").unwrap().devices[0].label, None);
        assert_eq!(read("<device id='1' label='x' labelsig='AQ=='/>").unwrap().devices[0].label, None);
        assert_eq!(read("<device id='0'/>"), Err(XmlError::Attribute("id")));
        assert!(matches!(read(&"<device id='1'/>".repeat(1001)), Err(XmlError::TooMany(_))));
    }
}
