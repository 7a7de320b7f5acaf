//! The outermost element of what the server routes to us: who, to whom, of which kind (RFC 6120 §8).

use jid::Jid;

use super::error::StanzaError;
use super::message::MessageType;
use super::tree::{self, Element, TreeError, push_attribute};

/// Longest `id` of a stanza that is taken, in bytes. RFC 6120 sets no limit; clients use at most 64.
pub const MAX_ID_LENGTH: usize = 1_024;

/// What kind of stanza.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `<iq type='get'>`
    IqGet,
    /// `<iq type='set'>`
    IqSet,
    /// `<iq type='result'>` or `<iq type='error'>`
    IqReply,
    /// `<message/>` of a type that RFC 6121 knows, or of none.
    Message(MessageType),
    /// `<presence/>` of any type.
    Presence,
    /// A stanza whose `type` does not exist.
    BadType,
}

/// Why an element is not a stanza to act upon. There is nobody to answer: it is dropped and counted.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    /// Not XML that we read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Neither message, presence nor iq.
    #[error("not a stanza")]
    NotAStanza,
    /// `from` or `to` is missing or no JID: no server sends that.
    #[error("the {0} is missing or not a JID")]
    Address(&'static str),
}

/// A stanza.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// What it is.
    pub kind: Kind,
    /// Who sent it: stamped by a server.
    pub from: Jid,
    /// Whom it is for.
    pub to: Jid,
    /// Its id; empty if it has none.
    pub id: String,
    /// All of it.
    pub element: Element<'a>,
}

impl<'a> Incoming<'a> {
    /// Reads a stanza.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, IncomingError> {
        let element = Element::parse(bytes)?;
        if element.namespace() != tree::STREAM {
            return Err(IncomingError::NotAStanza);
        }
        let address =
            |name| element.attribute(name).and_then(|text| Jid::new(text).ok()).ok_or(IncomingError::Address(name));
        let (from, to) = (address("from")?, address("to")?);
        let kind = match (element.name(), element.attribute("type")) {
            ("iq", Some("get")) => Kind::IqGet,
            ("iq", Some("set")) => Kind::IqSet,
            ("iq", Some("result" | "error")) => Kind::IqReply,
            ("message", None | Some("normal" | "")) => Kind::Message(MessageType::Normal),
            ("message", Some("chat")) => Kind::Message(MessageType::Chat),
            ("message", Some("headline")) => Kind::Message(MessageType::Headline),
            ("message", Some("groupchat")) => Kind::Message(MessageType::Groupchat),
            ("message", Some("error")) => Kind::Message(MessageType::Error),
            ("presence", _) => Kind::Presence,
            ("iq" | "message", _) => Kind::BadType,
            _ => return Err(IncomingError::NotAStanza),
        };
        let id = element.attribute("id").unwrap_or_default().to_owned();
        Ok(Self { kind, from, to, id, element })
    }

    /// The start of the answer to this stanza: same name and id, addresses turned round.
    fn reply_head(&self, kind: &str) -> String {
        let mut out = String::with_capacity(256);
        out.push('<');
        out.push_str(self.element.name());
        push_attribute(&mut out, "type", kind);
        if !self.id.is_empty() {
            push_attribute(&mut out, "id", &self.id);
        }
        push_attribute(&mut out, "from", self.to.as_str());
        push_attribute(&mut out, "to", self.from.as_str());
        out
    }

    /// `<iq type='result'>` around a payload (empty for none).
    pub fn result(&self, payload: &str) -> String {
        let mut out = self.reply_head("result");
        out.push('>');
        out.push_str(payload);
        out.push_str("</");
        out.push_str(self.element.name());
        out.push('>');
        out
    }

    /// The stanza as an error.
    pub fn error(&self, error: &StanzaError) -> String {
        let mut out = self.reply_head("error");
        out.push('>');
        out.push_str(&error.to_xml());
        out.push_str("</");
        out.push_str(self.element.name());
        out.push('>');
        out
    }
}
