//! How far a device has read its archive (docs/protocol.md, "How far a device has read"):
//!
//! ```xml
//! <read xmlns='urn:multiend:0' id='28482-98726-73623' device='omemo2:27183'/>
//! ```

use super::mam::RequestError;
use super::tree::Element;
use crate::model::{ArchiveId, ProtocolDevice};

/// The payload of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The device has everything up to the message with this id.
    pub id: ArchiveId,
    /// Which device, if the client says.
    pub device: Option<ProtocolDevice>,
}

impl Read {
    /// Reads `<read/>`.
    pub fn parse(read: &Element<'_>) -> Result<Self, RequestError> {
        let bad = |text: &str| RequestError::BadRequest(text.to_owned());
        let id = read.attribute("id").ok_or_else(|| bad("the id of a message is missing"))?;
        let device = read.attribute("device").map(|text| {
            ProtocolDevice::parse(text).ok_or_else(|| bad("a device is written as legacy:ID or omemo2:ID"))
        });
        // An id that could not be one of ours is in no archive.
        let id = ArchiveId::parse(id).map_err(|_| RequestError::UnknownId)?;
        Ok(Self { id, device: device.transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(attributes: &str) -> Result<Read, RequestError> {
        let source = format!("<read xmlns='urn:multiend:0' {attributes}/>");
        Read::parse(&Element::parse(source.as_bytes()).unwrap())
    }

    #[test]
    fn a_message_is_named_and_perhaps_a_device() {
        assert_eq!(read("id='a1'").unwrap().device, None);
        let named = read("id='a1' device='legacy:7'").unwrap();
        assert_eq!((named.id.as_str(), named.device.unwrap().to_string()), ("a1", "legacy:7".to_owned()));
        for bad in ["", "id='a' device='7'", "id='a' device='omemo:7'", "id='a' device='omemo2:0'"] {
            assert!(matches!(read(bad), Err(RequestError::BadRequest(_))), "{bad}");
        }
        assert_eq!(read("id=''"), Err(RequestError::UnknownId));
    }
}
