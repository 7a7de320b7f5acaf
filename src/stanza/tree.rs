//! A small element tree over the bytes of one stanza, in which every element knows the bytes that it came from.
//!
//! The archive must give back what it was given, byte for byte, and trims a header by cutting its bytes out; the directory
//! must give an owner exactly the bundle that it published. A tree that forgets its source (minidom, xso) cannot do either
//! (prefixes, quoting, CDATA, order of attributes). This one is for reading only.
//!
//! It is bounded on its own account, whatever the link let through: [`MAX_DEPTH`], [`MAX_ELEMENTS`].

mod reader;

use std::borrow::Cow;
use std::ops::Range;

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
    Malformed(&'static str),
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
        let source = std::str::from_utf8(bytes).map_err(|_| TreeError::Malformed("not UTF-8"))?;
        reader::read(source)
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

#[cfg(test)]
mod tests;
