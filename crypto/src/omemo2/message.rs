//! The `<encrypted/>` element (XEP-0384, "Message structure description").

use super::NAMESPACE;
use crate::{
    address::{DeviceId, check_jid},
    message::{MAX_HEADER_LENGTH, MAX_HEADERS, MAX_MESSAGE_LENGTH, MAX_PLAINTEXT_LENGTH, MessageHeader},
    protocol::EncryptedElement,
    xml::{Element, Limits, XmlError, encode_base64, escaped},
};

/// An encrypted message: one payload, and for each device that may read it a header with the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptedMessage {
    /// The sending device.
    pub sid: DeviceId,
    /// The headers, grouped by account.
    pub keys: Vec<RecipientHeaders>,
    /// The encrypted envelope; `None` in an empty message.
    pub payload: Option<Vec<u8>>,
}

/// The headers for the devices of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientHeaders {
    /// The bare JID of the account.
    pub jid: String,
    /// One header for each device.
    pub headers: Vec<MessageHeader>,
}

impl EncryptedMessage {
    /// The header for one device, if there is one. JIDs are compared byte by byte.
    #[must_use]
    pub fn header_for(&self, jid: &str, device: DeviceId) -> Option<&MessageHeader> {
        self.keys
            .iter()
            .filter(|keys| keys.jid == jid)
            .flat_map(|keys| &keys.headers)
            .find(|header| header.rid == device)
    }

    /// The element as XML, to be put into a `<message/>` as it is.
    #[must_use]
    pub fn to_xml(&self) -> String {
        let mut xml = format!("<encrypted xmlns='{NAMESPACE}'><header sid='{}'>", self.sid);
        for keys in &self.keys {
            xml.push_str(&format!("<keys jid='{}'>", escaped(&keys.jid)));
            for header in &keys.headers {
                let kex = if header.kex { " kex='true'" } else { "" };
                xml.push_str(&format!("<key rid='{}'{kex}>{}</key>", header.rid, encode_base64(&header.data)));
            }
            xml.push_str("</keys>");
        }
        xml.push_str("</header>");
        if let Some(payload) = &self.payload {
            xml.push_str(&format!("<payload>{}</payload>", encode_base64(payload)));
        }
        xml.push_str("</encrypted>");
        xml
    }

    /// Reads the element. Unknown elements and attributes are passed over.
    ///
    /// # Errors
    /// [`XmlError`] when it is not an `<encrypted/>` of this namespace, or beyond the limits above.
    pub fn from_xml(xml: &str) -> Result<Self, XmlError> {
        let limits = Limits { bytes: MAX_MESSAGE_LENGTH, elements: MAX_HEADERS.saturating_mul(2), depth: 8 };
        let encrypted = Element::parse(xml, limits)?.expect("encrypted", NAMESPACE)?;
        let header = encrypted.child("header")?;
        let keys = header.all("keys").map(RecipientHeaders::from_element).collect::<Result<Vec<_>, _>>()?;
        let count = keys.iter().fold(0_usize, |count, keys| count.saturating_add(keys.headers.len()));
        if count > MAX_HEADERS {
            return Err(XmlError::TooMany("headers"));
        }
        let payload = match encrypted.all("payload").next() {
            // Padding adds up to one block.
            Some(payload) => Some(payload.base64("payload", MAX_PLAINTEXT_LENGTH.saturating_add(16))?),
            None => None,
        };
        Ok(Self { sid: header.id("sid")?, keys, payload })
    }
}

impl RecipientHeaders {
    fn from_element(keys: &Element) -> Result<Self, XmlError> {
        let jid = keys.attribute("jid").ok_or(XmlError::Attribute("jid"))?;
        check_jid(jid).map_err(|_| XmlError::Attribute("jid"))?;
        let headers = keys.all("key").map(header).collect::<Result<_, _>>()?;
        Ok(Self { jid: jid.to_owned(), headers })
    }
}

fn header(key: &Element) -> Result<MessageHeader, XmlError> {
    let kex = match key.attribute("kex") {
        None | Some("false" | "0") => false,
        Some("true" | "1") => true,
        Some(_) => return Err(XmlError::Attribute("kex")),
    };
    Ok(MessageHeader { rid: key.id("rid")?, kex, data: key.base64("key", MAX_HEADER_LENGTH)? })
}

impl EncryptedElement for EncryptedMessage {
    fn sender(&self) -> DeviceId {
        self.sid
    }

    fn headers_for(&self, jid: &str, device: DeviceId) -> Vec<&MessageHeader> {
        self.header_for(jid, device).into_iter().collect()
    }

    fn write(&self) -> String {
        self.to_xml()
    }

    fn read(xml: &str) -> Result<Self, XmlError> {
        Self::from_xml(xml)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> EncryptedMessage {
        let header = |rid, kex| MessageHeader { rid: DeviceId::new(rid).unwrap(), kex, data: vec![1, 2, 3] };
        EncryptedMessage {
            sid: DeviceId::new(27183).unwrap(),
            keys: vec![
                RecipientHeaders { jid: "juliet@capulet.lit".to_owned(), headers: vec![header(31415, false)] },
                RecipientHeaders {
                    jid: "o'romeo@montague.lit".to_owned(),
                    headers: vec![header(1337, false), header(12321, true)],
                },
            ],
            payload: Some(vec![9; 32]),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let message = message();
        assert_eq!(EncryptedMessage::from_xml(&message.to_xml()).unwrap(), message);
        let empty = EncryptedMessage { payload: None, ..message };
        assert_eq!(EncryptedMessage::from_xml(&empty.to_xml()).unwrap(), empty);
    }

    #[test]
    fn headers_are_found_by_account_and_device() {
        let message = message();
        let device = |id| DeviceId::new(id).unwrap();
        assert!(message.header_for("juliet@capulet.lit", device(31415)).is_some());
        assert!(message.header_for("juliet@capulet.lit", device(1337)).is_none());
        assert!(message.header_for("o'romeo@montague.lit", device(12321)).unwrap().kex);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let xml = message().to_xml();
        let with = |from: &str, to: &str| EncryptedMessage::from_xml(&xml.replace(from, to)).unwrap_err();
        assert_eq!(with("urn:xmpp:omemo:2", "urn:xmpp:omemo:1"), XmlError::Missing("encrypted"));
        assert_eq!(with("header", "heading"), XmlError::Missing("header"));
        assert_eq!(with("sid='27183'", "sid='0'"), XmlError::Attribute("sid"));
        assert_eq!(with("rid='1337'", "rid='2147483648'"), XmlError::Attribute("rid"));
        assert_eq!(with("kex='true'", "kex='yes'"), XmlError::Attribute("kex"));
        assert_eq!(with("jid='juliet@capulet.lit'", ""), XmlError::Attribute("jid"));
        assert_eq!(with("AQID", "A"), XmlError::Content("key"));
    }
}
