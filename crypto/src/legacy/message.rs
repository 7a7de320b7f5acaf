//! The `<encrypted/>` element (XEP-0384 0.3.0, section 4.5).

use super::{NAMESPACE, payload::is_iv_length};
use crate::{
    address::DeviceId,
    message::{MAX_HEADER_LENGTH, MAX_HEADERS, MAX_MESSAGE_LENGTH, MAX_PLAINTEXT_LENGTH, MessageHeader},
    protocol::EncryptedElement,
    xml::{Element, Limits, XmlError, encode_base64},
};

/// The longest initialisation vector in bytes.
const MAX_IV_LENGTH: usize = 16;

/// How much longer a payload can be than its plaintext: by the tag, which old clients leave there.
const MAX_TAG_LENGTH: usize = 16;

/// An encrypted message: one payload, and for each device that may read it a header with the key.
///
/// Headers name devices by number only, not by account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptedMessage {
    /// The sending device.
    pub sid: DeviceId,
    /// The headers.
    pub headers: Vec<MessageHeader>,
    /// The initialisation vector of the payload: 12 bytes, 16 from older clients, none in some empty messages.
    pub iv: Vec<u8>,
    /// The encrypted text; `None` in an empty message.
    pub payload: Option<Vec<u8>>,
}

impl EncryptedMessage {
    /// The element as XML, to be put into a `<message/>` as it is.
    #[must_use]
    pub fn to_xml(&self) -> String {
        let mut xml = format!("<encrypted xmlns='{NAMESPACE}'><header sid='{}'>", self.sid);
        for header in &self.headers {
            let prekey = if header.kex { " prekey='true'" } else { "" };
            xml.push_str(&format!("<key rid='{}'{prekey}>{}</key>", header.rid, encode_base64(&header.data)));
        }
        if !self.iv.is_empty() {
            xml.push_str(&format!("<iv>{}</iv>", encode_base64(&self.iv)));
        }
        xml.push_str("</header>");
        if let Some(payload) = &self.payload {
            xml.push_str(&format!("<payload>{}</payload>", encode_base64(payload)));
        }
        xml.push_str("</encrypted>");
        xml
    }

    /// Reads the element. Unknown elements and attributes are passed over, and so are headers for numbers that no
    /// device can have. An empty `<payload/>` is read as none.
    ///
    /// # Errors
    /// [`XmlError`] when it is not an `<encrypted/>` of this namespace, or beyond the limits.
    pub fn from_xml(xml: &str) -> Result<Self, XmlError> {
        let limits = Limits { bytes: MAX_MESSAGE_LENGTH, elements: MAX_HEADERS.saturating_add(16), depth: 8 };
        let encrypted = Element::parse(xml, limits)?.expect("encrypted", NAMESPACE)?;
        let header = encrypted.child("header")?;
        let headers = header
            .all("key")
            .filter(|key| key.id::<DeviceId>("rid").is_ok())
            .map(header_in)
            .collect::<Result<_, _>>()?;
        let iv = header.all("iv").next().map(|iv| iv.base64("iv", MAX_IV_LENGTH)).transpose()?.unwrap_or_default();
        let payload = encrypted.all("payload").next();
        let payload = payload
            .map(|payload| payload.base64("payload", MAX_PLAINTEXT_LENGTH.saturating_add(MAX_TAG_LENGTH)))
            .transpose()?
            .filter(|payload| !payload.is_empty());
        if payload.is_some() && !is_iv_length(iv.len()) {
            return Err(XmlError::Content("iv"));
        }
        Ok(Self { sid: header.id("sid")?, headers, iv, payload })
    }
}

fn header_in(key: &Element) -> Result<MessageHeader, XmlError> {
    let kex = match key.attribute("prekey") {
        None | Some("false" | "0") => false,
        Some("true" | "1") => true,
        Some(_) => return Err(XmlError::Attribute("prekey")),
    };
    Ok(MessageHeader { rid: key.id("rid")?, kex, data: key.base64("key", MAX_HEADER_LENGTH)? })
}

impl EncryptedElement for EncryptedMessage {
    fn sender(&self) -> DeviceId {
        self.sid
    }

    fn headers_for(&self, _jid: &str, device: DeviceId) -> Vec<&MessageHeader> {
        self.headers.iter().filter(|header| header.rid == device).collect()
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
            headers: vec![header(31415, false), header(12321, true)],
            iv: vec![7; 12],
            payload: Some(vec![9; 32]),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        for iv in [12, 16] {
            let message = EncryptedMessage { iv: vec![7; iv], ..message() };
            assert_eq!(EncryptedMessage::from_xml(&message.to_xml()).unwrap(), message);
        }
        let empty = EncryptedMessage { payload: None, ..message() };
        assert_eq!(EncryptedMessage::from_xml(&empty.to_xml()).unwrap(), empty);
        let bare = EncryptedMessage { iv: vec![], payload: None, ..message() };
        assert_eq!(EncryptedMessage::from_xml(&bare.to_xml()).unwrap(), bare);
    }

    #[test]
    fn headers_are_found_by_number() {
        let message = message();
        let find = |rid| message.headers_for("whoever@capulet.lit", DeviceId::new(rid).unwrap()).len();
        assert_eq!((find(31415), find(12321), find(1)), (1, 1, 0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let xml = message().to_xml();
        let with = |from: &str, to: &str| EncryptedMessage::from_xml(&xml.replace(from, to)).unwrap_err();
        assert_eq!(with(NAMESPACE, "urn:xmpp:omemo:2"), XmlError::Missing("encrypted"));
        assert_eq!(with("header", "heading"), XmlError::Missing("header"));
        assert_eq!(with("sid='27183'", "sid='0'"), XmlError::Attribute("sid"));
        assert_eq!(with("prekey='true'", "prekey='yes'"), XmlError::Attribute("prekey"));
        assert_eq!(with("AQID", "A"), XmlError::Content("key"));
        assert_eq!(with(&encode_base64(&[7; 12]), &encode_base64(&[7; 13])), XmlError::Content("iv"));
        assert_eq!(with("iv>", "vi>"), XmlError::Content("iv"));
    }

    #[test]
    fn headers_for_impossible_numbers_are_passed_over() {
        let xml = message().to_xml().replace("rid='31415'", "rid='0'");
        assert_eq!(EncryptedMessage::from_xml(&xml).unwrap().headers.len(), 1);
    }
}
