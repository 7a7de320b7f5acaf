//! Device lists: `<devices xmlns='urn:xmpp:omemo:2'/>` (XEP-0384 §5.3.1) and `<list xmlns='eu.siacs.conversations.axolotl'/>`
//! (XEP-0384 0.3).

use super::namespace;
use super::tree::{Element, push_attribute};
use crate::model::{Device, DeviceId, DeviceList, IdError, Protocol};

/// Longest label taken, in Unicode characters. XEP-0384 recommends less than 53.
const MAX_LABEL: usize = 128;
/// Longest label signature taken, in bytes: 64 bytes in base64 take 88.
const MAX_LABEL_SIGNATURE: usize = 128;

/// Why a payload is not a device list.
#[derive(Debug, thiserror::Error)]
pub enum DeviceListError {
    /// Another element or namespace.
    #[error("the payload of a device list is <{0}/>")]
    Payload(&'static str),
    /// A device without a valid id.
    #[error("a device id is missing or wrong: {0}")]
    Id(#[from] IdError),
    /// A device stands twice.
    #[error("device id {0} stands twice")]
    Duplicate(DeviceId),
    /// A label or its signature is too long.
    #[error("the label of device {0} is too long")]
    Label(DeviceId),
}

fn names(protocol: Protocol) -> (&'static str, &'static str) {
    match protocol {
        Protocol::Legacy => ("list", namespace::OMEMO_LEGACY),
        Protocol::Omemo2 => ("devices", namespace::OMEMO_2),
    }
}

/// Reads the payload of a published device list.
pub fn parse(payload: &Element<'_>, protocol: Protocol) -> Result<DeviceList, DeviceListError> {
    let (name, namespace) = names(protocol);
    if !payload.is(name, namespace) {
        return Err(DeviceListError::Payload(name));
    }
    let mut devices = Vec::new();
    for element in payload.children_named("device", namespace) {
        let id = DeviceId::parse(element.attribute("id").unwrap_or_default())?;
        let (label, label_signature) = labels(element, id, protocol)?;
        devices.push(Device { id, label, label_signature });
    }
    DeviceList::new(devices).map_err(DeviceListError::Duplicate)
}

/// The label of a device and the signature over it, from the attributes that XEP-0384 gives them. The legacy protocol has none.
pub fn labels(
    element: &Element<'_>,
    id: DeviceId,
    protocol: Protocol,
) -> Result<(Option<String>, Option<String>), DeviceListError> {
    let (label, signature) = match protocol {
        Protocol::Legacy => (None, None),
        Protocol::Omemo2 => (element.attribute("label"), element.attribute("labelsig")),
    };
    if label.is_some_and(|label| label.chars().count() > MAX_LABEL)
        || signature.is_some_and(|signature| signature.len() > MAX_LABEL_SIGNATURE)
    {
        return Err(DeviceListError::Label(id));
    }
    Ok((label.map(str::to_owned), signature.map(str::to_owned)))
}

/// Writes a device list as the payload of a pubsub item.
pub fn write(list: &DeviceList, protocol: Protocol) -> String {
    let (name, namespace) = names(protocol);
    let mut out = String::with_capacity(64);
    out.push('<');
    out.push_str(name);
    push_attribute(&mut out, "xmlns", namespace);
    out.push('>');
    for device in list.devices() {
        out.push_str("<device");
        push_attribute(&mut out, "id", &device.id.to_string());
        if let Some(label) = &device.label {
            push_attribute(&mut out, "label", label);
        }
        if let Some(signature) = &device.label_signature {
            push_attribute(&mut out, "labelsig", signature);
        }
        out.push_str("/>");
    }
    out.push_str("</");
    out.push_str(name);
    out.push('>');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(xml: &str, protocol: Protocol) -> Result<DeviceList, DeviceListError> {
        parse(&Element::parse(xml.as_bytes()).unwrap(), protocol)
    }

    #[test]
    fn lists_of_both_protocols_are_read_and_written() {
        let omemo2 = "<devices xmlns='urn:xmpp:omemo:2'><device id='4' label='a&lt;b' labelsig='c2ln'/><device id='9'/></devices>";
        assert_eq!(write(&read(omemo2, Protocol::Omemo2).unwrap(), Protocol::Omemo2), omemo2);
        let legacy = "<list xmlns='eu.siacs.conversations.axolotl'><device id='2147483647'/></list>";
        assert_eq!(write(&read(legacy, Protocol::Legacy).unwrap(), Protocol::Legacy), legacy);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let list =
            |inner: &str| read(&format!("<devices xmlns='urn:xmpp:omemo:2'>{inner}</devices>"), Protocol::Omemo2);
        assert!(matches!(list("<device id='0'/>"), Err(DeviceListError::Id(_))));
        assert!(matches!(list("<device id='2147483648'/>"), Err(DeviceListError::Id(_))));
        assert!(matches!(list("<device id='+1'/>"), Err(DeviceListError::Id(_))));
        assert!(matches!(list("<device/>"), Err(DeviceListError::Id(_))));
        assert!(matches!(list("<device id='1'/><device id='1'/>"), Err(DeviceListError::Duplicate(_))));
        assert!(matches!(
            list(&format!("<device id='1' label='{}'/>", "x".repeat(129))),
            Err(DeviceListError::Label(_))
        ));
        assert!(matches!(
            read("<list xmlns='eu.siacs.conversations.axolotl'/>", Protocol::Omemo2),
            Err(DeviceListError::Payload("devices"))
        ));
    }
}
