//! The history of an owner's devices: `<history xmlns='urn:multiend:0'/>` (docs/protocol.md, "History").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::namespace::{MULTIEND, OMEMO_2, OMEMO_LEGACY};
use super::tree::{Element, push_attribute};
use crate::model::{HistoryChange, HistoryEntry, HistoryHead, Owner, Protocol};

/// What somebody asks of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// How far the requester knows it.
    pub known: HistoryHead,
    /// Most entries that it wants.
    pub max: Option<u32>,
}

/// Why a request makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Not a place in a history.
    #[error("'after' is a decimal number below 2^63")]
    After,
    /// Not a hash, or without a place.
    #[error("'hash' is the hash of the entry named by 'after', 64 hexadecimal digits")]
    Hash,
    /// Not a number of entries.
    #[error("'max' is a number from 1")]
    Max,
}

impl Request {
    /// Reads `<history/>`. Without `after` it is about the history from its beginning.
    pub fn parse(element: &Element<'_>) -> Result<Self, HistoryError> {
        let max = match element.attribute("max") {
            Some(max) => Some(number(max).filter(|max| *max > 0).ok_or(HistoryError::Max)?),
            None => None,
        };
        let after = match element.attribute("after") {
            Some(after) => number(after).filter(|after| i64::try_from(*after).is_ok()).ok_or(HistoryError::After)?,
            None => 0,
        };
        let hash = match element.attribute("hash") {
            Some(hash) => {
                let mut bytes = [0; 32];
                hex::decode_to_slice(hash, &mut bytes).map_err(|_| HistoryError::Hash)?;
                bytes
            }
            None if after == 0 => HistoryHead::START.hash,
            None => return Err(HistoryError::Hash),
        };
        let max = max.map(|max| u32::try_from(max).unwrap_or(u32::MAX));
        Ok(Self { known: HistoryHead { index: after, hash }, max })
    }
}

/// Decimal digits; no sign, no spaces.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Writes the answer.
pub fn write(owner: &Owner, head: &HistoryHead, entries: &[HistoryEntry]) -> String {
    let mut out = String::with_capacity(256);
    out.push_str("<history");
    push_attribute(&mut out, "xmlns", MULTIEND);
    push_attribute(&mut out, "version", "1");
    push_attribute(&mut out, "owner", owner.as_str());
    out.push_str("><head");
    push_attribute(&mut out, "index", &head.index.to_string());
    push_attribute(&mut out, "hash", &hex::encode(head.hash));
    out.push_str("/>");
    for entry in entries {
        write_entry(&mut out, entry);
    }
    out.push_str("</history>");
    out
}

fn write_entry(out: &mut String, entry: &HistoryEntry) {
    let name = match &entry.change {
        HistoryChange::List { .. } => "list",
        HistoryChange::NoList => "no-list",
        HistoryChange::Identity { .. } => "identity",
    };
    out.push('<');
    out.push_str(name);
    push_attribute(out, "index", &entry.index.to_string());
    push_attribute(out, "at", &entry.at.to_xmpp());
    let protocol = match entry.protocol {
        Protocol::Legacy => OMEMO_LEGACY,
        Protocol::Omemo2 => OMEMO_2,
    };
    push_attribute(out, "protocol", protocol);
    match &entry.change {
        HistoryChange::List { devices, labels } => {
            if let Some(labels) = labels {
                push_attribute(out, "labels", &hex::encode(labels));
            }
            out.push('>');
            for device in devices {
                out.push_str("<device");
                push_attribute(out, "id", &device.to_string());
                out.push_str("/>");
            }
        }
        HistoryChange::NoList => out.push('>'),
        HistoryChange::Identity { device, key } => {
            push_attribute(out, "device", &device.to_string());
            out.push('>');
            STANDARD.encode_string(key, out);
        }
    }
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DeviceId, Timestamp};

    fn read(attributes: &str) -> Result<Request, HistoryError> {
        let xml = format!("<history xmlns='{MULTIEND}'{attributes}/>");
        Request::parse(&Element::parse(xml.as_bytes()).unwrap())
    }

    #[test]
    fn a_request_names_what_is_known() {
        assert_eq!(read(""), Ok(Request { known: HistoryHead::START, max: None }));
        let hash = "0a".repeat(32);
        let known = HistoryHead { index: 12, hash: [10; 32] };
        assert_eq!(read(&format!(" after='12' hash='{hash}' max='5'")), Ok(Request { known, max: Some(5) }));
        assert_eq!(read(" max='99999999999'").unwrap().max, Some(u32::MAX));
        assert_eq!(read(" after='12'"), Err(HistoryError::Hash));
        assert_eq!(read(&format!(" after='12' hash='{hash}0a'")), Err(HistoryError::Hash));
        assert_eq!(read(" after='12' hash='ü'"), Err(HistoryError::Hash));
        for after in ["-1", "+1", "", "1 ", "9223372036854775808", "x"] {
            assert_eq!(read(&format!(" after='{after}' hash='{hash}'")), Err(HistoryError::After), "{after}");
        }
        assert_eq!(read(" max='0'"), Err(HistoryError::Max));
    }

    #[test]
    fn an_answer_says_all_that_is_hashed() {
        let device = |id| DeviceId::new(id).unwrap();
        let entry = |index, protocol, change| HistoryEntry {
            index,
            at: Timestamp::from_micros(1_780_000_000_000_001),
            protocol,
            change,
        };
        let entries = [
            entry(8, Protocol::Omemo2, HistoryChange::List { devices: vec![device(3), device(1)], labels: None }),
            entry(9, Protocol::Omemo2, HistoryChange::List { devices: vec![], labels: Some([1; 32]) }),
            entry(10, Protocol::Legacy, HistoryChange::NoList),
            entry(11, Protocol::Legacy, HistoryChange::Identity { device: device(3), key: vec![5; 33] }),
        ];
        let owner = Owner::parse("alice@example.org").unwrap();
        let xml = write(&owner, &HistoryHead { index: 11, hash: [0xab; 32] }, &entries);
        let at = "at='2026-05-28T20:26:40.000001Z'";
        assert_eq!(
            xml,
            format!(
                "<history xmlns='urn:multiend:0' version='1' owner='alice@example.org'>\
                 <head index='11' hash='{}'/>\
                 <list index='8' {at} protocol='urn:xmpp:omemo:2'><device id='3'/><device id='1'/></list>\
                 <list index='9' {at} protocol='urn:xmpp:omemo:2' labels='{}'></list>\
                 <no-list index='10' {at} protocol='eu.siacs.conversations.axolotl'></no-list>\
                 <identity index='11' {at} protocol='eu.siacs.conversations.axolotl' device='3'>{}</identity>\
                 </history>",
                "ab".repeat(32),
                "01".repeat(32),
                STANDARD.encode([5; 33]),
            )
        );
    }
}
