//! The envelope of Stanza Content Encryption (XEP-0420): what OMEMO 2 encrypts, and what says who meant it for whom.
//!
//! OMEMO's profile of it (XEP-0384, "SCE Profile") wants `<rpad/>` always, `<from/>` nearly always, and `<to/>` in group
//! chats. An envelope is made by another client, so it is read with bounds, and nothing in it may be believed before
//! [`Envelope::check`] has compared the affixes with the stanza.

use thiserror::Error;

use crate::{
    random::{RandomError, random_bytes},
    xml::{Element, Limits, XmlError, escaped},
};

/// The XML namespace of the envelope.
pub const NAMESPACE: &str = "urn:xmpp:sce:1";

/// The largest envelope in bytes of XML that is read.
pub const MAX_ENVELOPE_LENGTH: usize = 1024 * 1024;

/// Envelopes are padded to at least this many bytes of content and padding (XEP-0420, "Affix Elements", which wants a
/// minimum but names none): short answers like "yes" and "no" look the same.
const MIN_PADDED_LENGTH: usize = 256;

/// At most so many characters of padding come on top (XEP-0420, "Affix Elements": between 0 and 200).
const MAX_RANDOM_PADDING: u8 = 200;

/// How many elements an envelope may have, and how deeply they may be nested.
const MAX_ELEMENTS: usize = 4096;
const MAX_DEPTH: usize = 64;

/// An envelope.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The elements in `<content/>`, as XML. When writing, each declares its own namespace, like
    /// `<body xmlns='jabber:client'>…</body>`. What was read came from a peer and is well-formed, but not checked
    /// otherwise: XEP-0420, "Server-processed Elements", lists what must be discarded from it. If the peer declared
    /// prefixes further out, read [`Envelope::content_element`] instead.
    pub content: String,
    /// Bare JID of the sender.
    pub from: Option<String>,
    /// Bare JID of the recipient; in a group chat, of the room.
    pub to: Option<String>,
    /// When it was sent, in the form of XEP-0082.
    pub time: Option<String>,
    /// Namespaces declared around the content when it was read.
    declarations: Vec<(String, String)>,
}

impl core::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Envelope").field("from", &self.from).field("to", &self.to).finish_non_exhaustive()
    }
}

/// An envelope does not belong to the stanza that it came in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AffixError {
    /// The sender of the stanza is not the one who made the envelope.
    #[error("made by {inside}, but sent by {outside}")]
    From {
        /// The sender named in the envelope.
        inside: String,
        /// The sender of the stanza.
        outside: String,
    },
    /// The recipient of the stanza is not the one for whom the envelope was made.
    #[error("made for {inside}, but sent to {outside}")]
    To {
        /// The recipient named in the envelope.
        inside: String,
        /// The recipient of the stanza.
        outside: String,
    },
    /// There is no `<to/>`, without which a message of a group chat must not be believed.
    #[error("a message of a group chat lacks its recipient")]
    MissingTo,
}

impl Envelope {
    /// An envelope around elements that are given as XML, each of which declares its own namespace.
    #[must_use]
    pub fn new(content: impl Into<String>) -> Self {
        Self { content: content.into(), ..Self::default() }
    }

    /// An envelope around the text of a message.
    #[must_use]
    pub fn with_body(body: &str) -> Self {
        Self::new(format!("<body xmlns='jabber:client'>{}</body>", escaped(body)))
    }

    /// The same, saying who sends it.
    #[must_use]
    pub fn from_jid(mut self, jid: &str) -> Self {
        self.from = Some(jid.to_owned());
        self
    }

    /// The same, saying for whom it is.
    #[must_use]
    pub fn to_jid(mut self, jid: &str) -> Self {
        self.to = Some(jid.to_owned());
        self
    }

    /// The envelope as XML with fresh padding, ready to be encrypted.
    ///
    /// # Errors
    /// [`RandomError`] when there is no randomness for the padding.
    pub fn to_xml(&self) -> Result<String, RandomError> {
        let mut xml = format!(
            "<envelope xmlns='{NAMESPACE}'><content>{}</content><rpad>{}</rpad>",
            self.content,
            self.padding()?
        );
        for (name, jid) in [("from", &self.from), ("to", &self.to)] {
            if let Some(jid) = jid {
                xml.push_str(&format!("<{name} jid='{}'/>", escaped(jid)));
            }
        }
        if let Some(time) = &self.time {
            xml.push_str(&format!("<time stamp='{}'/>", escaped(time)));
        }
        xml.push_str("</envelope>");
        Ok(xml)
    }

    /// Reads what was decrypted.
    ///
    /// # Errors
    /// [`XmlError`] when it is not an `<envelope/>` of this namespace, or beyond the limits.
    pub fn from_xml(plaintext: &[u8]) -> Result<Self, XmlError> {
        let source = core::str::from_utf8(plaintext).map_err(|error| XmlError::Syntax(error.to_string()))?;
        let limits = Limits { bytes: MAX_ENVELOPE_LENGTH, elements: MAX_ELEMENTS, depth: MAX_DEPTH };
        let envelope = Element::parse(source, limits)?.expect("envelope", NAMESPACE)?;
        let content = envelope.child("content")?;
        let affix = |name, attribute| {
            let element = envelope.all(name).next();
            element.map(|element| element.attribute(attribute).map(str::to_owned).ok_or(XmlError::Attribute(attribute)))
        };
        Ok(Self {
            content: source.get(content.content.clone()).unwrap_or_default().to_owned(),
            from: affix("from", "jid").transpose()?,
            to: affix("to", "jid").transpose()?,
            time: affix("time", "stamp").transpose()?,
            // Inner declarations come last, where they win.
            declarations: envelope.declarations.iter().chain(&content.declarations).cloned().collect(),
        })
    }

    /// Compares what the envelope says with the stanza: `from` and `to` are its bare JIDs. With `group`, `to` is the
    /// room's, and must have been said. The time is left to the client, which knows what delay is plausible.
    ///
    /// # Errors
    /// [`AffixError`]: show no content of this message.
    pub fn check(&self, from: &str, to: &str, group: bool) -> Result<(), AffixError> {
        if let Some(inside) = self.from.as_deref().filter(|inside| *inside != from) {
            return Err(AffixError::From { inside: inside.to_owned(), outside: from.to_owned() });
        }
        match self.to.as_deref() {
            Some(inside) if inside != to => Err(AffixError::To { inside: inside.to_owned(), outside: to.to_owned() }),
            None if group => Err(AffixError::MissingTo),
            _ => Ok(()),
        }
    }

    /// The whole `<content/>` as an XML element that stands by itself.
    #[must_use]
    pub fn content_element(&self) -> String {
        let mut declared: Vec<(&str, &str)> = vec![("xmlns", NAMESPACE)];
        for (name, namespace) in &self.declarations {
            declared.retain(|(earlier, _)| earlier != name);
            declared.push((name, namespace));
        }
        let mut xml = "<content".to_owned();
        for (name, namespace) in declared {
            xml.push_str(&format!(" {name}='{}'", escaped(namespace)));
        }
        xml.push('>');
        xml.push_str(&self.content);
        xml.push_str("</content>");
        xml
    }

    /// The text of the message, if it has one: `<body xmlns='jabber:client'/>` in the content.
    #[must_use]
    pub fn body(&self) -> Option<String> {
        let source = self.content_element();
        // The source grew by declarations that were read before.
        let limits = Limits { bytes: MAX_ENVELOPE_LENGTH.saturating_mul(2), elements: MAX_ELEMENTS, depth: MAX_DEPTH };
        let content = Element::parse(&source, limits).ok()?;
        content.children.into_iter().find(|child| child.is("body", "jabber:client")).map(|body| body.text)
    }

    /// Characters of no meaning, as many as hide how long the content is.
    fn padding(&self) -> Result<String, RandomError> {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let random = random_bytes::<{ MIN_PADDED_LENGTH + 256 }>()?;
        let (length, characters) = random.split_last().unwrap_or((&0, &[]));
        let extra = u16::from(*length).checked_rem(u16::from(MAX_RANDOM_PADDING).saturating_add(1)).unwrap_or_default();
        let length = MIN_PADDED_LENGTH.saturating_sub(self.content.len()).saturating_add(usize::from(extra));
        let character = |byte: &u8| ALPHABET.get(usize::from(byte & 0x3F)).copied().map(char::from);
        Ok(characters.iter().filter_map(character).take(length).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let envelope = Envelope::with_body("a < b & c").from_jid("romeo@montague.lit").to_jid("juliet@capulet.lit");
        let read = Envelope::from_xml(envelope.to_xml().unwrap().as_bytes()).unwrap();
        assert_eq!(read.content, envelope.content);
        assert_eq!(read.body().as_deref(), Some("a < b & c"));
        assert_eq!(read.check("romeo@montague.lit", "juliet@capulet.lit", true), Ok(()));
    }

    #[test]
    fn affixes_are_compared() {
        let envelope = Envelope::new("").from_jid("romeo@montague.lit");
        assert_eq!(envelope.check("romeo@montague.lit", "room@chat.lit", false), Ok(()));
        assert_eq!(envelope.check("romeo@montague.lit", "room@chat.lit", true), Err(AffixError::MissingTo));
        assert!(matches!(envelope.check("mallory@evil.lit", "x@y", false), Err(AffixError::From { .. })));
        let envelope = envelope.to_jid("room@chat.lit");
        assert!(matches!(envelope.check("romeo@montague.lit", "x@y", false), Err(AffixError::To { .. })));
    }

    #[test]
    fn length_tells_little() {
        let length = |body: &str| Envelope::with_body(body).to_xml().unwrap().len();
        for body in ["", "yes", "a much longer answer"] {
            assert!((MIN_PADDED_LENGTH..MIN_PADDED_LENGTH + 320).contains(&length(body)));
        }
    }

    #[test]
    fn prefixes_from_further_out_are_kept() {
        let xml = b"<e:envelope xmlns:e='urn:xmpp:sce:1' xmlns:j='x' ><e:content xmlns:j='jabber:client'><j:body>hi</j:body></e:content></e:envelope>";
        let envelope = Envelope::from_xml(xml).unwrap();
        assert_eq!(envelope.content, "<j:body>hi</j:body>");
        assert_eq!(envelope.body().as_deref(), Some("hi"));
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        assert!(Envelope::from_xml(b"\xFF").is_err());
        assert!(Envelope::from_xml(b"<envelope xmlns='urn:xmpp:sce:0'/>").is_err());
        assert_eq!(
            Envelope::from_xml(b"<envelope xmlns='urn:xmpp:sce:1'/>").unwrap_err(),
            XmlError::Missing("content")
        );
        assert_eq!(
            Envelope::from_xml(b"<envelope xmlns='urn:xmpp:sce:1'><content/><from/></envelope>").unwrap_err(),
            XmlError::Attribute("jid")
        );
    }
}
