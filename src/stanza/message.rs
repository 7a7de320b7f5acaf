//! A message stanza as the archive keeps it and as it is put together again (RFC 6120 §8, RFC 6121 §5).
//!
//! The archive keeps **body bytes**: the stanza without its `from` and `to`, which differ between the two archives that
//! share a body, and without a default namespace that is only the stream's, which differs between the streams on which
//! it is sent again. Everything else of the start tag and all of the content stays byte for byte: order and quoting of
//! attributes, prefixes, CDATA, entities, white space. Nothing here may read a body into a document model and write it
//! out again: none of those that exist gives back what it took.

use std::ops::Range;

use bytes::Bytes;
use jid::{BareJid, Jid};

use super::cut;
use super::stanza_id::is_stanza_id_by;
use super::tree::{Element, STREAM, push_attribute};

/// What body bytes begin with.
const OPENING: &str = "<message";

/// The kind of a message (RFC 6121 §5.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// No type, `normal`, or one that no specification knows, which means the same.
    Normal,
    /// `chat`.
    Chat,
    /// `groupchat`.
    Groupchat,
    /// `headline`.
    Headline,
    /// `error`.
    Error,
}

impl MessageType {
    /// The type behind the value of the attribute.
    pub fn parse(attribute: Option<&str>) -> Self {
        match attribute {
            Some("chat") => Self::Chat,
            Some("groupchat") => Self::Groupchat,
            Some("headline") => Self::Headline,
            Some("error") => Self::Error,
            _ => Self::Normal,
        }
    }
}

/// Why an element is not a message that can be kept.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Not `<message/>` in the stream's namespace.
    #[error("not a message of this stream")]
    NotAMessage,
    /// `<p:message/>`: its namespace could not be changed without touching what is inside.
    #[error("a stanza whose own name has a prefix is not supported")]
    Prefixed,
    /// `from` or `to` is no JID.
    #[error("the address in '{0}' is not a JID")]
    Address(&'static str),
    /// The start tag is not well-formed.
    #[error("the start tag of the message is malformed")]
    StartTag,
}

/// A message stanza, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub kind: MessageType,
    /// The id that its sender gave it, as written.
    pub id: Option<String>,
    /// Who sent it, as stamped by a server.
    pub from: Option<Jid>,
    /// For whom it is.
    pub to: Option<Jid>,
    /// Its `xml:lang`.
    pub lang: Option<String>,
    /// The body bytes: see the module.
    pub body: Bytes,
}

impl std::fmt::Debug for Message {
    /// Leaves the body out: message content is never logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").field("kind", &self.kind).field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

impl Message {
    /// Takes a message stanza apart. Removes every `<stanza-id/>` that claims to come from one of `own_addresses`: what
    /// arrives cannot carry an id that those archives gave (XEP-0359 §3).
    pub fn split(stanza: &Element<'_>, own_addresses: &[&BareJid]) -> Result<Self, MessageError> {
        if !stanza.is("message", STREAM) {
            return Err(MessageError::NotAMessage);
        }
        let source = stanza.raw();
        let offset = stanza.span().start;
        if !begins_a_message(source) {
            return Err(MessageError::Prefixed);
        }
        let mut cuts = Vec::new();
        for attribute in StartTag::new(source) {
            let attribute = attribute?;
            // What is asked for is the stream's namespace, so a default namespace declared here is no other.
            if matches!(attribute.name, "from" | "to" | "xmlns") {
                cuts.push(attribute.span);
            }
        }
        for child in stanza.children().iter().filter(|child| is_stanza_id_by(child, own_addresses)) {
            let span = child.span();
            cuts.push(span.start.saturating_sub(offset)..span.end.saturating_sub(offset));
        }
        let (body, _) = cut::without(source, cuts);
        Ok(Self {
            kind: MessageType::parse(stanza.attribute("type")),
            id: stanza.attribute("id").map(str::to_owned),
            from: address(stanza, "from")?,
            to: address(stanza, "to")?,
            lang: stanza.attribute("xml:lang").map(str::to_owned),
            body: Bytes::from(body),
        })
    }
}

fn address(stanza: &Element<'_>, attribute: &'static str) -> Result<Option<Jid>, MessageError> {
    stanza.attribute(attribute).map(|text| Jid::new(text).map_err(|_| MessageError::Address(attribute))).transpose()
}

/// Bytes that [`Message::split`] has not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the body of a message")]
pub struct NotABody;

/// Puts a message together from body bytes: with these addresses, in `namespace` (none: that of the stream or document
/// around it), and with `extra_children` (well-formed XML with its own namespace declarations) after its own children.
pub fn assemble(
    body: &[u8],
    from: Option<&str>,
    to: Option<&str>,
    namespace: Option<&str>,
    extra_children: &str,
) -> Result<String, NotABody> {
    let body = std::str::from_utf8(body).map_err(|_| NotABody)?;
    if !begins_a_message(body) {
        return Err(NotABody);
    }
    let rest = body.get(OPENING.len()..).ok_or(NotABody)?;
    let room = body.len().saturating_add(extra_children.len()).saturating_add(256);
    let mut out = String::with_capacity(room);
    out.push_str(OPENING);
    for (key, value) in [("xmlns", namespace), ("from", from), ("to", to)] {
        if let Some(value) = value {
            push_attribute(&mut out, key, value);
        }
    }
    if extra_children.is_empty() {
        out.push_str(rest);
    } else if let Some(start_tag) = rest.strip_suffix("/>") {
        // Only an element without content ends like this: one with content ends in its own name.
        out.push_str(start_tag);
        out.push('>');
        out.push_str(extra_children);
        out.push_str("</message>");
    } else {
        // The last end tag is the message's own: nothing but its name can follow.
        let (content, end_tag) = rest.rfind("</").and_then(|at| rest.split_at_checked(at)).ok_or(NotABody)?;
        out.push_str(content);
        out.push_str(extra_children);
        out.push_str(end_tag);
    }
    Ok(out)
}

/// Whether the text begins with the start tag of `message`, without a prefix.
fn begins_a_message(text: &str) -> bool {
    text.strip_prefix(OPENING)
        .and_then(|rest| rest.bytes().next())
        .is_some_and(|next| next.is_ascii_whitespace() || matches!(next, b'/' | b'>'))
}

/// An attribute as it stands in a start tag.
struct RawAttribute<'a> {
    name: &'a str,
    /// From the white space before the name to the closing quote.
    span: Range<usize>,
}

/// Walks over the attributes of the start tag that a text begins with.
struct StartTag<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> StartTag<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: OPENING.len() }
    }

    fn skip_spaces(&mut self) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at = self.text.len().saturating_sub(rest.trim_ascii_start().len());
    }

    fn attribute(&mut self) -> Option<RawAttribute<'a>> {
        let start = self.at;
        self.skip_spaces();
        if self.at == start {
            // `a='1'b='2'` is not XML, and to cut one of them out would join the other to what is before it.
            return None;
        }
        let (name, _) = self.text.get(self.at..)?.split_once('=')?;
        self.at = self.at.checked_add(name.len())?.checked_add(1)?;
        self.skip_spaces();
        let quote = self.text.get(self.at..)?.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let value = self.at.checked_add(1)?;
        let length = self.text.get(value..)?.find(quote)?;
        self.at = value.checked_add(length)?.checked_add(1)?;
        Some(RawAttribute { name: name.trim_ascii_end(), span: start..self.at })
    }
}

impl<'a> Iterator for StartTag<'a> {
    type Item = Result<RawAttribute<'a>, MessageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.text.get(self.at..).unwrap_or_default().trim_ascii_start();
        if rest.starts_with(['/', '>']) {
            return None;
        }
        match self.attribute() {
            Some(attribute) => Some(Ok(attribute)),
            None => {
                // Ends the walk: nothing after this can be trusted.
                self.text = "<message>";
                self.at = OPENING.len();
                Some(Err(MessageError::StartTag))
            }
        }
    }
}

#[cfg(test)]
mod tests;
