//! Reading and writing the few XML elements that OMEMO defines.
//!
//! The reader builds a tree of bounded size, depth and width from one complete element, such as an XMPP library hands
//! over. It takes no document type, comment or processing instruction: XMPP forbids them (RFC 6120, section 11.1), and
//! without them there is nothing to expand. It must never be given a stream.

use core::ops::Range;

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use quick_xml::{
    NsReader, XmlVersion,
    escape::{escape, resolve_predefined_entity},
    events::{BytesRef, BytesStart, Event},
    name::{Namespace, ResolveResult},
};
use thiserror::Error;

/// How many attributes one element may have.
const MAX_ATTRIBUTES: usize = 32;

/// Base64 as clients write it; some leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The XML is not an element of the kind that was expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum XmlError {
    /// The text is longer than elements of its kind may be.
    #[error("{actual} bytes of XML, more than {limit}")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
        /// Number of bytes given.
        actual: usize,
    },
    /// There are more elements, or they are nested more deeply, or one has more attributes, than any client needs.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// The text is not well-formed, or has what XMPP forbids.
    #[error("not well-formed: {0}")]
    Syntax(String),
    /// Another element was expected.
    #[error("the element {0} is missing")]
    Missing(&'static str),
    /// An attribute is missing or has an impossible value.
    #[error("the attribute {0} is missing or wrong")]
    Attribute(&'static str),
    /// The text of an element is not base64, or not of as many bytes as it should be.
    #[error("the content of {0} is wrong")]
    Content(&'static str),
}

/// How much of what an element may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of text.
    pub(crate) bytes: usize,
    /// Elements, the outermost included.
    pub(crate) elements: usize,
    /// Levels of nesting, the outermost included.
    pub(crate) depth: usize,
}

/// One element with all that is in it.
#[derive(Debug, Default)]
pub(crate) struct Element {
    /// Its namespace; empty for none.
    pub(crate) namespace: String,
    /// Its name without prefix.
    pub(crate) name: String,
    /// Its attributes that are in no namespace.
    attributes: Vec<(String, String)>,
    /// The namespaces that it declares: name of the attribute, and the namespace.
    pub(crate) declarations: Vec<(String, String)>,
    /// The elements directly in it.
    pub(crate) children: Vec<Element>,
    /// The text directly in it.
    pub(crate) text: String,
    /// Where in the source its content is.
    pub(crate) content: Range<usize>,
}

impl Element {
    /// Reads one complete element.
    pub(crate) fn parse(source: &str, limits: Limits) -> Result<Self, XmlError> {
        if source.len() > limits.bytes {
            return Err(XmlError::TooLong { limit: limits.bytes, actual: source.len() });
        }
        let mut reader = NsReader::from_str(source);
        let mut open: Vec<Element> = Vec::new();
        let mut root = None;
        let mut elements = 0_usize;
        loop {
            let before = position(&reader);
            let (namespace, event) = reader.read_resolved_event().map_err(|error| syntax(&error))?;
            let namespace = match namespace {
                ResolveResult::Bound(Namespace(namespace)) => namespace.to_owned(),
                ResolveResult::Unbound => String::new(),
                ResolveResult::Unknown(prefix) => return Err(XmlError::Syntax(format!("unknown prefix {prefix}"))),
            };
            match event {
                Event::Start(ref start) | Event::Empty(ref start) => {
                    elements = elements.saturating_add(1);
                    if root.is_some() {
                        return Err(XmlError::Syntax("more than one element".to_owned()));
                    }
                    if elements > limits.elements || open.len() >= limits.depth {
                        return Err(XmlError::TooMany("elements"));
                    }
                    let mut element = Self::start(namespace, start)?;
                    let after = position(&reader);
                    element.content = after..after;
                    if matches!(event, Event::Empty(_)) {
                        close(element, &mut open, &mut root);
                    } else {
                        open.push(element);
                    }
                }
                Event::End(_) => {
                    let mut element = open.pop().ok_or_else(|| XmlError::Syntax("unmatched end".to_owned()))?;
                    element.content.end = before;
                    close(element, &mut open, &mut root);
                }
                Event::Text(text) => add_text(&mut open, &text.xml10_content())?,
                Event::CData(text) => add_text(&mut open, &text.xml10_content())?,
                Event::GeneralRef(reference) => add_text(&mut open, &resolve(&reference)?)?,
                Event::Eof => break,
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {
                    return Err(XmlError::Syntax("XMPP forbids this".to_owned()));
                }
            }
        }
        if !open.is_empty() {
            return Err(XmlError::Syntax("the element does not end".to_owned()));
        }
        root.ok_or_else(|| XmlError::Syntax("no element".to_owned()))
    }

    fn start(namespace: String, start: &BytesStart<'_>) -> Result<Self, XmlError> {
        let mut element = Self { namespace, name: start.local_name().into_inner().to_owned(), ..Self::default() };
        for (count, attribute) in start.attributes().enumerate() {
            if count >= MAX_ATTRIBUTES {
                return Err(XmlError::TooMany("attributes"));
            }
            let attribute = attribute.map_err(|error| syntax(&error))?;
            let name = attribute.key.into_inner();
            let value =
                attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| syntax(&error))?.into_owned();
            if name == "xmlns" || name.starts_with("xmlns:") {
                element.declarations.push((name.to_owned(), value));
            } else if !name.contains(':') {
                element.attributes.push((name.to_owned(), value));
            }
        }
        Ok(element)
    }

    /// Whether it is the element of that name.
    pub(crate) fn is(&self, name: &str, namespace: &str) -> bool {
        self.name == name && self.namespace == namespace
    }

    /// The element itself, provided that it is the one of that name.
    pub(crate) fn expect(self, name: &'static str, namespace: &str) -> Result<Self, XmlError> {
        if self.is(name, namespace) { Ok(self) } else { Err(XmlError::Missing(name)) }
    }

    /// The first child of that name, in the same namespace.
    pub(crate) fn child(&self, name: &'static str) -> Result<&Self, XmlError> {
        self.all(name).next().ok_or(XmlError::Missing(name))
    }

    /// All children of that name, in the same namespace.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.is(name, &self.namespace))
    }

    /// The value of an attribute.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value of an attribute that is an id of a device or a key.
    pub(crate) fn id<T: TryFrom<u32>>(&self, name: &'static str) -> Result<T, XmlError> {
        self.attribute(name)
            .and_then(|value| value.trim().parse::<u32>().ok())
            .and_then(|id| T::try_from(id).ok())
            .ok_or(XmlError::Attribute(name))
    }

    /// The text as base64 of at most `limit` bytes.
    pub(crate) fn base64(&self, what: &'static str, limit: usize) -> Result<Vec<u8>, XmlError> {
        let bytes = decode_base64(&self.text).ok_or(XmlError::Content(what))?;
        if bytes.len() > limit { Err(XmlError::Content(what)) } else { Ok(bytes) }
    }
}

/// Decodes base64 that may contain white space and may lack its padding.
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let compact: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    BASE64.decode(compact).ok()
}

/// Encodes base64 with padding.
pub(crate) fn encode_base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Text as it has to be written in an attribute or an element.
pub(crate) fn escaped(text: &str) -> String {
    escape(text).into_owned()
}

fn position(reader: &NsReader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

fn syntax(error: &dyn core::fmt::Display) -> XmlError {
    XmlError::Syntax(error.to_string())
}

fn close(element: Element, open: &mut [Element], root: &mut Option<Element>) {
    match open.last_mut() {
        Some(parent) => parent.children.push(element),
        None => *root = Some(element),
    }
}

fn add_text(open: &mut [Element], text: &str) -> Result<(), XmlError> {
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err(XmlError::Syntax("text outside of the element".to_owned())),
    }
    Ok(())
}

fn resolve(reference: &BytesRef<'_>) -> Result<String, XmlError> {
    if let Some(character) = reference.resolve_char_ref().map_err(|error| syntax(&error))? {
        return Ok(character.to_string());
    }
    resolve_predefined_entity(&reference.xml10_content())
        .map(str::to_owned)
        .ok_or_else(|| XmlError::Syntax("unknown entity".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 1000, elements: 5, depth: 3 };

    #[test]
    fn reads_names_attributes_text_and_place() {
        let source = "<a xmlns='n' k='v&amp;w'>x&#65;<b:c xmlns:b='m' b:k='1'/><![CDATA[<y]]></a> ";
        let element = Element::parse(source, LIMITS).unwrap();
        assert!(element.is("a", "n"));
        assert_eq!(element.attribute("k"), Some("v&w"));
        assert_eq!(element.text, "xA<y");
        assert!(element.children[0].is("c", "m"));
        assert_eq!(element.children[0].attribute("k"), None);
        assert_eq!(&source[element.content], "x&#65;<b:c xmlns:b='m' b:k='1'/><![CDATA[<y]]>");
    }

    #[test]
    fn refuses_what_is_too_much_or_forbidden() {
        for source in [
            "",
            "x",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>x",
            "<a>&unknown;</a>",
            "<!DOCTYPE a><a/>",
            "<a><!-- --></a>",
            "<?xml version='1.0'?><a/>",
            "<x:a/>",
            "<a k='1' k='2'/>",
            "</a>",
        ] {
            assert!(matches!(Element::parse(source, LIMITS), Err(XmlError::Syntax(_))), "{source}");
        }
        assert!(matches!(Element::parse("<a><a><a><a/></a></a></a>", LIMITS), Err(XmlError::TooMany(_))));
        assert!(matches!(Element::parse("<a><b/><b/><b/><b/><b/></a>", LIMITS), Err(XmlError::TooMany(_))));
        assert!(matches!(Element::parse(&" ".repeat(1001), LIMITS), Err(XmlError::TooLong { .. })));
    }

    #[test]
    fn base64_may_be_wrapped_and_unpadded() {
        assert_eq!(decode_base64(" AQ I\n").unwrap(), [1, 2]);
        assert!(decode_base64("!").is_none());
    }
}
