//! What the start tag of a stanza, and that of its payload, says: enough to answer one that is not read further.

use quick_xml::events::{BytesStart, Event};

/// The three stanzas of RFC 6120 §8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StanzaKind {
    /// `<message/>`
    Message,
    /// `<presence/>`
    Presence,
    /// `<iq/>`
    Iq,
}

impl StanzaKind {
    /// All kinds, for metrics that start at zero.
    pub const ALL: [Self; 3] = [Self::Message, Self::Presence, Self::Iq];

    /// The kind that an element of this name is.
    pub fn of_name(name: &[u8]) -> Option<Self> {
        match name {
            b"message" => Some(Self::Message),
            b"presence" => Some(Self::Presence),
            b"iq" => Some(Self::Iq),
            _ => None,
        }
    }

    /// The kind of a stanza that we have written ourselves, which begins with its `<`.
    pub fn of_bytes(stanza: &[u8]) -> Option<Self> {
        let name = stanza.strip_prefix(b"<")?;
        let end = name.iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'/' | b'>'))?;
        Self::of_name(name.get(..end)?)
    }

    /// The element name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Presence => "presence",
            Self::Iq => "iq",
        }
    }
}

/// The routing attributes of a stanza, entities resolved, otherwise unchecked text from outside. An attribute that broke
/// a limit is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StanzaHead {
    /// What it is; `None` for anything that is no stanza.
    pub kind: Option<StanzaKind>,
    /// `from`
    pub from: Option<String>,
    /// `to`
    pub to: Option<String>,
    /// `id`
    pub id: Option<String>,
    /// `type`
    pub stanza_type: Option<String>,
    /// The default namespace that the first child declares, which tells what an IQ is about; absent where it was not read.
    pub payload: Option<String>,
}

impl StanzaHead {
    /// Reads the start tag at the front of `stanza`, and that of the first child if it stands there too. What cannot be read
    /// stays absent.
    pub fn read(stanza: &[u8]) -> Self {
        let mut reader = quick_xml::Reader::from_reader(stanza);
        let mut head = match reader.read_event() {
            Ok(Event::Start(tag)) => Self::of_tag(&tag),
            Ok(Event::Empty(tag)) => return Self::of_tag(&tag),
            _ => return Self::default(),
        };
        let first = match reader.read_event() {
            Ok(Event::Text(_)) => reader.read_event(),
            first => first,
        };
        if let Ok(Event::Start(child) | Event::Empty(child)) = first {
            for attribute in child.attributes().with_checks(false).flatten() {
                if attribute.key.as_ref().as_bytes() == b"xmlns" {
                    head.payload = unescape(attribute.value.as_bytes());
                }
            }
        }
        head
    }

    fn of_tag(tag: &BytesStart<'_>) -> Self {
        let mut head = Self { kind: StanzaKind::of_name(tag.name().as_ref().as_bytes()), ..Self::default() };
        for attribute in tag.attributes().with_checks(false).flatten() {
            head.take(attribute.key.as_ref().as_bytes(), attribute.value.as_bytes());
        }
        head
    }

    /// Notes an attribute as it was written, if it is one of ours.
    pub(super) fn take(&mut self, name: &[u8], value: &[u8]) {
        let place = match name {
            b"from" => &mut self.from,
            b"to" => &mut self.to,
            b"id" => &mut self.id,
            b"type" => &mut self.stanza_type,
            _ => return,
        };
        *place = unescape(value);
    }
}

/// An attribute value as written, with its references resolved.
pub(super) fn unescape(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    Some(quick_xml::escape::unescape(text).ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_read_from_a_stanza_that_goes_on() {
        let head = StanzaHead::read(b"<iq type='get' to=\"a@b/&lt;c&gt;\" from='d@e' id='&#x31;'><query><broken");
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            head,
            StanzaHead {
                kind: Some(StanzaKind::Iq),
                from: text("d@e"),
                to: text("a@b/<c>"),
                id: text("1"),
                stanza_type: text("get"),
                payload: None,
            }
        );
        let about = |stanza: &[u8]| StanzaHead::read(stanza).payload;
        assert_eq!(about(b"<iq>\n <delegation a='b' xmlns='urn:&lt;x'><forwarded><bro"), text("urn:<x"));
        assert_eq!(about(b"<iq><query xmlns='urn:x'/></iq>"), text("urn:x"));
        for none in [&b"<iq/>"[..], b"<iq><query", b"<iq></iq>", b"<message><body xmlns:p='urn:x'>b</body></message>"] {
            assert_eq!(about(none), None);
        }
    }

    #[test]
    fn kinds_of_our_own_stanzas() {
        assert_eq!(StanzaKind::of_bytes(b"<message to='a'/>"), Some(StanzaKind::Message));
        assert_eq!(StanzaKind::of_bytes(b"<iq/>"), Some(StanzaKind::Iq));
        assert_eq!(StanzaKind::of_bytes(b"<iqs/>"), None);
    }
}
