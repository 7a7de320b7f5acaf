//! What the framer finds in a stream.

use bytes::Bytes;

use super::fault::Fault;
use super::limits::RefusalReason;
use super::stanza_head::{StanzaHead, StanzaKind, unescape};

/// What the stream brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The stream header.
    Open(StreamHeader),
    /// A whole element below the stream that is not of the streams namespace.
    Element(RawElement),
    /// An element that broke a limit. All of it is skipped.
    Refused(Refusal),
    /// An element of the streams namespace, such as `<stream:error/>`, whole, with its prefix declared on it.
    StreamElement(RawElement),
    /// `</stream:stream>`: nothing more will come.
    Close,
}

/// The attributes of the stream header, entities resolved, namespace declarations included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamHeader {
    attributes: Vec<(String, String)>,
}

impl StreamHeader {
    /// Takes in the attributes as they were written.
    pub(super) fn read<'a>(attributes: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<Self, Fault> {
        let mut header = Self::default();
        for (name, value) in attributes {
            let name = String::from_utf8_lossy(name).into_owned();
            if header.attribute(&name).is_some() {
                return Err(Fault::NotWellFormed("the same attribute twice"));
            }
            let value = unescape(value).ok_or(Fault::NotWellFormed("a broken attribute"))?;
            header.attributes.push((name, value));
        }
        Ok(header)
    }

    /// The attribute of this name.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The stream id, which XEP-0114 makes part of the handshake.
    pub fn id(&self) -> Option<&str> {
        self.attribute("id")
    }

    /// The prefixes that it declares, with their namespaces.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.attributes.iter().filter_map(|(name, value)| Some((name.strip_prefix("xmlns:")?, value.as_str())))
    }
}

/// One element as it came: well-formed, within the limits, every prefix declared on it; the default namespace is the
/// stream's where it declares no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawElement {
    /// From its `<` to its last `>`.
    pub bytes: Bytes,
    /// What it is by its name; `None` for anything that is no stanza.
    pub kind: Option<StanzaKind>,
}

/// A stanza that broke a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The first limit that it broke.
    pub reason: RefusalReason,
    /// What its start tag said.
    pub head: StanzaHead,
}
