//! A small element tree over the bytes of one stanza, in which every element knows the bytes that it came from.
//!
//! The archive must give back what it was given, byte for byte, and trims a header by cutting its bytes out; the directory
//! must give an owner exactly the bundle that it published. A tree that forgets its source (minidom, xso) cannot do either
//! (prefixes, quoting, CDATA, order of attributes). This one is for reading only.
//!
//! It is bounded on its own account, whatever the link let through: [`MAX_DEPTH`], [`MAX_ELEMENTS`].

use std::borrow::Cow;
use std::ops::Range;

use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::reader::NsReader;

/// Deepest nesting, the stanza itself included. OMEMO needs 5, a delegated MAM form 9.
pub const MAX_DEPTH: usize = 128;
/// Most elements in one stanza. A bundle of 250 prekeys has about 260; a message to 1,000 devices about 1,010.
pub const MAX_ELEMENTS: usize = 20_000;

/// What the stream's own namespace (`jabber:component:accept`, or `jabber:client` in a forwarded stanza) is called here.
pub const STREAM: &str = "";

/// Why bytes are not a stanza that we read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Not well-formed XML with namespaces, or not UTF-8.
    #[error("not well-formed: {0}")]
    Malformed(String),
    /// A comment, processing instruction, document type or entity of its own (RFC 6120 §11.1).
    #[error("XML that a stream may not contain")]
    Restricted,
    /// Beyond [`MAX_DEPTH`] or [`MAX_ELEMENTS`].
    #[error("nested too deeply or made of too many elements")]
    TooLarge,
    /// Nothing, or more than one element.
    #[error("not exactly one element")]
    NotOneElement,
}

/// One element.
#[derive(Debug)]
pub struct Element<'a> {
    source: &'a str,
    name: &'a str,
    namespace: Cow<'a, str>,
    attributes: Vec<(&'a str, Cow<'a, str>)>,
    children: Vec<Element<'a>>,
    text: Cow<'a, str>,
    span: Range<usize>,
    content: Range<usize>,
}

impl<'a> Element<'a> {
    /// Reads exactly one element.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TreeError> {
        let source = std::str::from_utf8(bytes).map_err(|_| TreeError::Malformed("not UTF-8".to_owned()))?;
        Builder::new(source).run()
    }

    /// The name without prefix.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The namespace; [`STREAM`] for that of the stream.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether this is `name` in `namespace`.
    pub fn is(&self, name: &str, namespace: &str) -> bool {
        self.name == name && self.namespace == namespace
    }

    /// The value of an attribute, by its name as written (`xml:lang` has a prefix, nearly all others have none).
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_ref())
    }

    /// All attributes in order, namespace declarations included.
    pub fn attributes(&self) -> impl Iterator<Item = (&'a str, &str)> + '_ {
        self.attributes.iter().map(|(key, value)| (*key, value.as_ref()))
    }

    /// The child elements in order.
    pub fn children(&self) -> &[Element<'a>] {
        &self.children
    }

    /// The first child of this name and namespace.
    pub fn child(&self, name: &str, namespace: &str) -> Option<&Element<'a>> {
        self.children.iter().find(|child| child.is(name, namespace))
    }

    /// All children of this name and namespace.
    pub fn children_named<'s>(
        &'s self,
        name: &'s str,
        namespace: &'s str,
    ) -> impl Iterator<Item = &'s Element<'a>> + 's {
        self.children.iter().filter(move |child| child.is(name, namespace))
    }

    /// The text directly inside, all pieces joined, with entities and CDATA resolved.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The element's bytes, from its `<` to its last `>`.
    pub fn raw(&self) -> &'a str {
        self.source.get(self.span.clone()).unwrap_or_default()
    }

    /// Where [`Self::raw`] stands in the bytes parsed.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Where the content stands: between the start tag and the end tag; empty for `<a/>`.
    pub fn content_span(&self) -> Range<usize> {
        self.content.clone()
    }

    /// The element as a document of its own: the same bytes where they do not lean on declarations of an ancestor, else
    /// written anew with the same meaning.
    pub fn standalone(&self) -> String {
        if self.leans_on_ancestors(false, &mut Vec::new()) {
            let mut out = String::with_capacity(self.span.len().saturating_add(64));
            self.write(&mut out, None);
            out
        } else {
            self.raw().to_owned()
        }
    }

    /// Whether any name below uses a prefix or default namespace that is declared above the element asked.
    fn leans_on_ancestors<'s>(&'s self, default_declared: bool, prefixes: &mut Vec<&'s str>) -> bool {
        let before = prefixes.len();
        let mut default_declared = default_declared;
        for (key, _) in self.attributes() {
            match key.split_once(':') {
                None if key == "xmlns" => default_declared = true,
                Some(("xmlns", prefix)) => prefixes.push(prefix),
                _ => {}
            }
        }
        let unknown = |name: &str| match name.split_once(':') {
            Some((prefix, _)) => !matches!(prefix, "xml" | "xmlns") && !prefixes.contains(&prefix),
            None => false,
        };
        let leans = self.qualified_name().split_once(':').map_or(!default_declared, |_| unknown(self.qualified_name()))
            || self.attributes().any(|(key, _)| unknown(key))
            || self.children.iter().any(|child| child.leans_on_ancestors(default_declared, prefixes));
        prefixes.truncate(before);
        leans
    }

    fn qualified_name(&self) -> &'a str {
        let tag = self.raw().get(1..).unwrap_or_default();
        let end = tag.find(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>')).unwrap_or(tag.len());
        tag.get(..end).unwrap_or_default()
    }

    /// Writes the element with default namespaces only. Attributes with a foreign prefix are dropped: nothing that we store
    /// this way has any.
    fn write(&self, out: &mut String, parent: Option<&str>) {
        out.push('<');
        out.push_str(self.name);
        if parent != Some(&self.namespace) {
            push_attribute(out, "xmlns", &self.namespace);
        }
        for (key, value) in self.attributes() {
            if key != "xmlns" && (!key.contains(':') || key.starts_with("xml:")) {
                push_attribute(out, key, value);
            }
        }
        out.push('>');
        push_text(out, &self.text);
        for child in &self.children {
            child.write(out, Some(&self.namespace));
        }
        out.push_str("</");
        out.push_str(self.name);
        out.push('>');
    }
}

/// Appends ` key='value'`, escaped.
pub fn push_attribute(out: &mut String, key: &str, value: &str) {
    out.push(' ');
    out.push_str(key);
    out.push_str("='");
    push_text(out, value);
    out.push('\'');
}

/// Appends text, escaped so that it may stand in content and in attributes; characters that XML cannot hold are left out.
pub fn push_text(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\'' => out.push_str("&apos;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => {
                out.push_str(match character {
                    '\t' => "&#9;",
                    '\n' => "&#10;",
                    _ => "&#13;",
                });
            }
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {}
            other => out.push(other),
        }
    }
}

/// Builds a tree without recursion. What stands in the source as it is meant is not copied.
struct Builder<'a> {
    reader: NsReader<&'a [u8]>,
    tree: Unfinished<'a>,
}

impl<'a> Builder<'a> {
    fn new(source: &'a str) -> Self {
        Self { reader: NsReader::from_str(source), tree: Unfinished { source, open: Vec::new(), elements: 0 } }
    }

    fn run(mut self) -> Result<Element<'a>, TreeError> {
        let mut root = None;
        let mut start = 0;
        loop {
            let event = self.reader.read_event().map_err(malformed)?;
            let end = usize::try_from(self.reader.buffer_position()).map_err(|_| TreeError::TooLarge)?;
            let span = start..end;
            let closed = match event {
                Event::Start(tag) => {
                    self.tree.open(&tag, self.reader.resolver().resolve_element(tag.name()).0, span)?;
                    None
                }
                Event::Empty(tag) => {
                    self.tree.open(&tag, self.reader.resolver().resolve_element(tag.name()).0, span)?;
                    self.tree.close(end..end)?
                }
                Event::End(_) => self.tree.close(span)?,
                Event::Text(text) => {
                    self.tree.text(text.xml_content(quick_xml::XmlVersion::Implicit1_0))?;
                    None
                }
                Event::CData(data) => {
                    self.tree.text(data.into_inner())?;
                    None
                }
                Event::GeneralRef(reference) => {
                    let text = match reference.resolve_char_ref().map_err(malformed)? {
                        Some(character) => Cow::Owned(character.to_string()),
                        None => Cow::Borrowed(
                            quick_xml::escape::resolve_xml_entity(&reference).ok_or(TreeError::Restricted)?,
                        ),
                    };
                    self.tree.text(text)?;
                    None
                }
                Event::Eof => break,
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {
                    return Err(TreeError::Restricted);
                }
            };
            start = end;
            if let Some(element) = closed {
                if root.is_some() {
                    return Err(TreeError::NotOneElement);
                }
                root = Some(element);
            }
        }
        match root {
            Some(root) if self.tree.open.is_empty() => Ok(root),
            _ => Err(TreeError::NotOneElement),
        }
    }
}

/// What of a tree has been read.
struct Unfinished<'a> {
    source: &'a str,
    open: Vec<Element<'a>>,
    elements: usize,
}

impl<'a> Unfinished<'a> {
    fn open(
        &mut self,
        tag: &BytesStart<'_>,
        namespace: ResolveResult<'_>,
        span: Range<usize>,
    ) -> Result<(), TreeError> {
        self.elements = self.elements.saturating_add(1);
        if self.open.len() >= MAX_DEPTH || self.elements > MAX_ELEMENTS {
            return Err(TreeError::TooLarge);
        }
        let namespace = match namespace {
            ResolveResult::Bound(bound) => normalised(bound.into_inner()),
            ResolveResult::Unbound => STREAM,
            ResolveResult::Unknown(_) => return Err(TreeError::Malformed("undeclared prefix".to_owned())),
        };
        let raw_tag = self.source.get(span.clone()).unwrap_or_default();
        let qualified = raw_tag.get(1..).unwrap_or_default();
        let stop =
            qualified.find(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>')).unwrap_or(qualified.len());
        let qualified = qualified.get(..stop).unwrap_or_default();
        let name = qualified.rsplit_once(':').map_or(qualified, |(_, local)| local);
        let mut attributes = Vec::new();
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(malformed)?;
            // Key and value borrow from the tag, which borrows from the source; find them there to get the source's lifetime.
            let key = attribute.key.into_inner();
            let key = borrowed_in(self.source, key).ok_or_else(|| TreeError::Malformed("attribute".to_owned()))?;
            let value = attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).map_err(malformed)?;
            let value = match borrowed_in(self.source, &value) {
                Some(value) => Cow::Borrowed(value),
                None => Cow::Owned(value.into_owned()),
            };
            attributes.push((key, value));
        }
        let namespace = self.namespace(namespace, &attributes);
        let content = span.end..span.end;
        self.open.push(Element {
            source: self.source,
            name,
            namespace,
            attributes,
            children: Vec::new(),
            text: Cow::Borrowed(""),
            span,
            content,
        });
        Ok(())
    }

    /// A namespace as the declaration in the source has it, or as an element around this one has it.
    fn namespace(&self, namespace: &str, attributes: &[(&'a str, Cow<'a, str>)]) -> Cow<'a, str> {
        if namespace == STREAM {
            return Cow::Borrowed(STREAM);
        }
        let declared = attributes.iter().map(|(_, value)| value);
        let inherited = self.open.iter().rev().map(|element| &element.namespace);
        let same = declared.chain(inherited).find_map(|known| match known {
            Cow::Borrowed(known) if *known == namespace => Some(*known),
            _ => None,
        });
        same.map_or_else(|| Cow::Owned(namespace.to_owned()), Cow::Borrowed)
    }

    /// Closes the innermost element; gives it back if it was the outermost.
    fn close(&mut self, end_tag: Range<usize>) -> Result<Option<Element<'a>>, TreeError> {
        let mut element = self.open.pop().ok_or(TreeError::NotOneElement)?;
        element.span.end = end_tag.end;
        // Of an element without content, both are the end of its only tag.
        element.content.end = end_tag.start;
        match self.open.last_mut() {
            Some(parent) => {
                parent.children.push(element);
                Ok(None)
            }
            None => Ok(Some(element)),
        }
    }

    fn text(&mut self, text: Cow<'_, str>) -> Result<(), TreeError> {
        let Some(element) = self.open.last_mut() else {
            return if text.trim().is_empty() { Ok(()) } else { Err(TreeError::NotOneElement) };
        };
        if element.text.is_empty() {
            element.text = match borrowed_in(self.source, &text) {
                Some(text) => Cow::Borrowed(text),
                None => Cow::Owned(text.into_owned()),
            };
        } else {
            element.text.to_mut().push_str(&text);
        }
        Ok(())
    }
}

/// The same text as a part of `source`, if that is where it stands.
fn borrowed_in<'a>(source: &'a str, part: &str) -> Option<&'a str> {
    let offset = (part.as_ptr() as usize).checked_sub(source.as_ptr() as usize)?;
    source.get(offset..offset.checked_add(part.len())?)
}

fn normalised(namespace: &str) -> &str {
    match namespace {
        "jabber:component:accept" | "jabber:client" | "jabber:server" => STREAM,
        other => other,
    }
}

fn malformed(error: impl std::fmt::Display) -> TreeError {
    TreeError::Malformed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_know_their_bytes() {
        let source = "<message to='a'><body>hi &amp; <![CDATA[<you>]]></body><x:y xmlns:x=\"urn:x\" q='1'/></message>";
        let root = Element::parse(source.as_bytes()).unwrap();
        assert_eq!(root.raw(), source);
        assert_eq!(root.attribute("to"), Some("a"));
        assert_eq!(root.children()[0].text(), "hi & <you>");
        assert_eq!(root.children()[1].raw(), "<x:y xmlns:x=\"urn:x\" q='1'/>");
        assert!(root.children()[1].is("y", "urn:x"));
        assert_eq!(&source[root.content_span()], &source[16..source.len() - 10]);
    }

    #[test]
    fn the_streams_namespaces_are_one() {
        for namespace in ["", " xmlns='jabber:client'", " xmlns='jabber:component:accept'"] {
            let source = format!("<message{namespace}><body/></message>");
            let root = Element::parse(source.as_bytes()).unwrap();
            assert!(root.is("message", STREAM) && root.child("body", STREAM).is_some());
        }
    }

    #[test]
    fn what_leans_on_an_ancestor_is_written_anew() {
        let source = "<a xmlns='urn:a' xmlns:p='urn:p'><b id='1'>t&lt;</b><p:c/><d xmlns='urn:d'><e/></d></a>";
        let root = Element::parse(source.as_bytes()).unwrap();
        assert_eq!(root.children()[0].standalone(), "<b xmlns='urn:a' id='1'>t&lt;</b>");
        assert_eq!(root.children()[1].standalone(), "<c xmlns='urn:p'></c>");
        assert_eq!(root.children()[2].standalone(), "<d xmlns='urn:d'><e/></d>");
        assert_eq!(root.standalone(), source);
    }

    #[test]
    fn what_a_stream_may_not_hold_is_refused() {
        for source in ["<a><!-- c --></a>", "<a><?p i?></a>", "<!DOCTYPE a><a/>", "<a>&own;</a>"] {
            assert!(matches!(Element::parse(source.as_bytes()), Err(TreeError::Restricted)), "{source}");
        }
        for source in ["", "<a/><b/>", "<a></b>", "<a", "<p:a/>", "<a b='1' b='2'/>", "text", "<a/>text"] {
            assert!(Element::parse(source.as_bytes()).is_err(), "{source}");
        }
    }

    #[test]
    fn depth_and_count_are_bounded() {
        let deep = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
        assert!(Element::parse(deep(MAX_DEPTH).as_bytes()).is_ok());
        assert!(matches!(Element::parse(deep(MAX_DEPTH + 1).as_bytes()), Err(TreeError::TooLarge)));
        let wide = format!("<a>{}</a>", "<b/>".repeat(MAX_ELEMENTS));
        assert!(matches!(Element::parse(wide.as_bytes()), Err(TreeError::TooLarge)));
    }
}
