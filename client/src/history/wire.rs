//! Histories on the wire (docs/protocol.md, "History"). Building and reading only: no I/O.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minidom::Element;
use minidom::rxml::xml_ncname;
use xmpp_parsers::date::DateTime;

use super::chain::{Change, Entry, Hash, Head, HistoryProtocol};
use crate::xml::{Build, ns};

/// The request for what follows `known`.
pub(super) fn request(known: &Head) -> Element {
    let request = Build::new("history", ns::MULTIEND);
    if known.index == 0 {
        return request.into();
    }
    request.attr(xml_ncname!("after"), known.index).attr(xml_ncname!("hash"), hex::encode(known.hash)).into()
}

/// An answer: the head, and entries; `None` if it is none.
pub(super) fn read(answer: &Element) -> Option<(Head, Vec<Entry>)> {
    if !answer.is("history", ns::MULTIEND) || answer.attr("version") != Some("1") {
        return None;
    }
    let head = answer.get_child("head", ns::MULTIEND)?;
    let head = Head { index: head.attr("index")?.parse().ok()?, hash: hash(head.attr("hash")?)? };
    let entries = answer.children().filter(|child| !child.is("head", ns::MULTIEND)).map(entry);
    Some((head, entries.collect::<Option<_>>()?))
}

fn entry(element: &Element) -> Option<Entry> {
    let protocol = match element.attr("protocol")? {
        ns::OMEMO2 => HistoryProtocol::Omemo2,
        ns::LEGACY => HistoryProtocol::Legacy,
        _ => return None,
    };
    let change = match element.name() {
        "list" => {
            let devices = element.children().map(|device| device.attr("id")?.parse().ok());
            let labels = match element.attr("labels") {
                Some(labels) => Some(hash(labels)?),
                None => None,
            };
            Change::List { devices: devices.collect::<Option<_>>()?, labels }
        }
        "no-list" => Change::NoList,
        "identity" => Change::Identity {
            device: element.attr("device")?.parse().ok()?,
            key: STANDARD.decode(element.text().trim()).ok()?,
        },
        _ => return None,
    };
    let at = DateTime::from_str(element.attr("at")?).ok()?.0.timestamp_micros();
    Some(Entry { index: element.attr("index")?.parse().ok()?, at, protocol, change })
}

fn hash(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    hex::decode_to_slice(text, &mut hash).ok()?;
    Some(hash)
}

/// The identity key in a bundle.
pub(super) fn identity_in(bundle: &Element) -> Option<Vec<u8>> {
    let key = bundle.children().find(|child| matches!(child.name(), "ik" | "identityKey"))?;
    let text: String = key.text().split_whitespace().collect();
    STANDARD.decode(text).ok()
}
