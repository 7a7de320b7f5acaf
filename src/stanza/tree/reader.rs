//! Reads a stanza into a tree: one pass over the bytes, and nothing is copied that stands in the source as it
//! is meant. A general parser takes twice as long for the same, and of what the archive spends on a message, reading is most.
//!
//! A message between two accounts of a server comes as two copies, one behind the other: the second one is not read again.
//!
//! It takes XML 1.0 with namespaces, less what a stream may not hold. Which characters a name is made of is not looked at:
//! what comes over a link has been through the framer.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memchr2, memmem};

use super::{Element, MAX_DEPTH, MAX_ELEMENTS, STREAM, TreeError};

/// Most declarations of namespaces that hold at one place.
const MAX_DECLARATIONS: usize = 1_000;
/// Fewest bytes of an element that is looked for again.
const SHORTEST_AGAIN: usize = 256;

const XML: &str = "http://www.w3.org/XML/1998/namespace";
const XMLNS: &str = "http://www.w3.org/2000/xmlns/";
const CDATA: &str = "<![CDATA[";

const START_TAG: TreeError = TreeError::Malformed("a start tag");
const END_TAG: TreeError = TreeError::Malformed("an end tag");
const REFERENCE: TreeError = TreeError::Malformed("a character reference");
const DECLARATION: TreeError = TreeError::Malformed("a declaration of a namespace");

/// Reads exactly one element, with nothing but white space around it.
pub(super) fn read(source: &str) -> Result<Element<'_>, TreeError> {
    let mut reader = Reader { source, open: Vec::new(), declared: Vec::new(), elements: 0, root: None };
    let mut at = 0_usize;
    loop {
        let rest = source.get(at..).unwrap_or_default();
        let Some(length) = memchr(b'<', rest.as_bytes()) else {
            reader.text(rest)?;
            break;
        };
        if let Some(text @ [_, ..]) = rest.as_bytes().get(..length) {
            reader.text(rest.get(..text.len()).unwrap_or_default())?;
            at = at.saturating_add(length);
        }
        at = match source.as_bytes().get(at.saturating_add(1)) {
            Some(b'/') => reader.end_tag(at)?,
            Some(b'!') => reader.cdata(at)?,
            Some(b'?') => return Err(TreeError::Restricted),
            _ => match reader.again(at)? {
                Some(end) => end,
                None => reader.start_tag(at)?,
            },
        };
    }
    reader.root.filter(|_| reader.open.is_empty()).ok_or(TreeError::NotOneElement)
}

struct Reader<'a> {
    source: &'a str,
    /// The elements around the present place, outermost first, with their names as written.
    open: Vec<(Element<'a>, &'a str)>,
    /// Declarations that hold here, the latest last.
    declared: Vec<Declaration<'a>>,
    elements: usize,
    root: Option<Element<'a>>,
}

struct Declaration<'a> {
    /// How many elements are around the one that declares it.
    depth: usize,
    /// Empty for the default namespace.
    prefix: &'a str,
    namespace: Cow<'a, str>,
}

impl<'a> Reader<'a> {
    /// Reads the start tag that begins at a place; gives where it ends.
    fn start_tag(&mut self, start: usize) -> Result<usize, TreeError> {
        self.elements = self.elements.saturating_add(1);
        if self.open.len() >= MAX_DEPTH || self.elements > MAX_ELEMENTS {
            return Err(TreeError::TooLarge);
        }
        let bytes = self.source.as_bytes();
        let mut at = start.saturating_add(1);
        let qualified = name(self.source, at).ok_or(START_TAG)?;
        at = at.saturating_add(qualified.len());
        let mut attributes: Vec<(&'a str, Cow<'a, str>)> = Vec::new();
        let is_empty = loop {
            let spaces = spaces(bytes, at);
            at = at.saturating_add(spaces);
            match bytes.get(at) {
                Some(b'>') => {
                    at = at.saturating_add(1);
                    break false;
                }
                Some(b'/') if bytes.get(at.saturating_add(1)) == Some(&b'>') => {
                    at = at.saturating_add(2);
                    break true;
                }
                Some(_) if spaces > 0 => {
                    let (key, value, end) = attribute(self.source, at).ok_or(START_TAG)?;
                    let value = value_of(value)?;
                    if attributes.iter().any(|(other, _)| *other == key) {
                        return Err(TreeError::Malformed("an attribute twice"));
                    }
                    if let Some(prefix) = declares(key) {
                        self.declare(prefix, value.clone())?;
                    }
                    attributes.push((key, value));
                    at = end;
                }
                _ => return Err(START_TAG),
            }
        };
        let (prefix, name) = split(qualified).ok_or(START_TAG)?;
        let element = Element {
            source: self.source,
            name,
            namespace: self.namespace(prefix)?,
            attributes,
            children: Vec::new(),
            text: Cow::Borrowed(""),
            span: start..at,
            content: at..at,
        };
        self.open.push((element, qualified));
        if is_empty {
            self.close(at, at)?;
        }
        Ok(at)
    }

    /// Takes the element that begins at a place over from the parent's neighbour, if the same stands at the same place in
    /// it and means the same there; gives where it ends.
    fn again(&mut self, start: usize) -> Result<Option<usize>, TreeError> {
        let [.., (grandparent, _), (parent, _)] = self.open.as_mut_slice() else { return Ok(None) };
        let Some(neighbour) = grandparent.children.last() else { return Ok(None) };
        let Some(known) = neighbour.children.get(parent.children.len()) else { return Ok(None) };
        let (raw, rest) = (known.raw(), self.source.get(start..).unwrap_or_default());
        if raw.len() < SHORTEST_AGAIN || !rest.starts_with(raw) || declares_any(parent) || declares_any(neighbour) {
            return Ok(None);
        }
        let by = start.checked_sub(known.span.start).ok_or(START_TAG)?;
        let again = moved(known, by, &mut self.elements);
        if self.elements > MAX_ELEMENTS {
            return Err(TreeError::TooLarge);
        }
        let end = again.span.end;
        parent.children.push(again);
        Ok(Some(end))
    }

    /// Reads the end tag that begins at a place; gives where it ends.
    fn end_tag(&mut self, start: usize) -> Result<usize, TreeError> {
        let at = start.saturating_add(2);
        let name = name(self.source, at).ok_or(END_TAG)?;
        if self.open.last().is_none_or(|(_, open)| *open != name) {
            return Err(TreeError::Malformed("an end tag that does not fit its start tag"));
        }
        let at = at.saturating_add(name.len());
        let bytes = self.source.as_bytes();
        let at = at.saturating_add(spaces(bytes, at));
        if bytes.get(at) != Some(&b'>') {
            return Err(END_TAG);
        }
        let end = at.saturating_add(1);
        self.close(start, end)?;
        Ok(end)
    }

    /// Closes the innermost element, whose end tag stands from `start` to `end`; both are the end of its only tag if it has
    /// no content.
    fn close(&mut self, start: usize, end: usize) -> Result<(), TreeError> {
        let (mut element, _) = self.open.pop().ok_or(END_TAG)?;
        element.span.end = end;
        element.content.end = start;
        let depth = self.open.len();
        while self.declared.last().is_some_and(|declaration| declaration.depth >= depth) {
            self.declared.pop();
        }
        match self.open.last_mut() {
            Some((parent, _)) => parent.children.push(element),
            None if self.root.is_some() => return Err(TreeError::NotOneElement),
            None => self.root = Some(element),
        }
        Ok(())
    }

    /// Reads the CDATA section that begins at a place; gives where it ends.
    fn cdata(&mut self, start: usize) -> Result<usize, TreeError> {
        let rest = self.source.get(start..).unwrap_or_default();
        let data = rest.strip_prefix(CDATA).ok_or(TreeError::Restricted)?;
        let length =
            memmem::find(data.as_bytes(), b"]]>").ok_or(TreeError::Malformed("a CDATA section without end"))?;
        let (element, _) = self.open.last_mut().ok_or(TreeError::NotOneElement)?;
        append(&mut element.text, Cow::Borrowed(data.get(..length).unwrap_or_default()));
        Ok(start.saturating_add(CDATA.len()).saturating_add(length).saturating_add("]]>".len()))
    }

    /// Takes in what stands between two tags.
    fn text(&mut self, raw: &'a str) -> Result<(), TreeError> {
        let Some((element, _)) = self.open.last_mut() else {
            return if raw.trim_ascii().is_empty() { Ok(()) } else { Err(TreeError::NotOneElement) };
        };
        let text = match memchr2(b'&', b'\r', raw.as_bytes()) {
            None => Cow::Borrowed(raw),
            Some(_) => Cow::Owned(resolve(raw, &['&', '\r'], '\n')?),
        };
        append(&mut element.text, text);
        Ok(())
    }

    /// Takes in a declaration of the element that is read (Namespaces in XML 1.0 §3, §5).
    fn declare(&mut self, prefix: &'a str, namespace: Cow<'a, str>) -> Result<(), TreeError> {
        let allowed = match prefix {
            "xmlns" => false,
            "xml" => namespace == XML,
            "" => !matches!(namespace.as_ref(), XML | XMLNS),
            _ => !prefix.contains(':') && !matches!(namespace.as_ref(), "" | XML | XMLNS),
        };
        if !allowed {
            return Err(DECLARATION);
        }
        if self.declared.len() >= MAX_DECLARATIONS {
            return Err(TreeError::TooLarge);
        }
        let namespace = match namespace.as_ref() {
            "jabber:component:accept" | "jabber:client" | "jabber:server" => Cow::Borrowed(STREAM),
            _ => namespace,
        };
        self.declared.push(Declaration { depth: self.open.len(), prefix, namespace });
        Ok(())
    }

    /// The namespace of an element with this prefix, or with none if it is empty.
    fn namespace(&self, prefix: &str) -> Result<Cow<'a, str>, TreeError> {
        match self.declared.iter().rev().find(|declaration| declaration.prefix == prefix) {
            Some(declaration) => Ok(declaration.namespace.clone()),
            None if prefix.is_empty() => Ok(Cow::Borrowed(STREAM)),
            None if prefix == "xml" => Ok(Cow::Borrowed(XML)),
            None => Err(TreeError::Malformed("a prefix that is not declared")),
        }
    }
}

fn declares_any(element: &Element<'_>) -> bool {
    element.attributes.iter().any(|(key, _)| declares(key).is_some())
}

/// An element that stands so many bytes further on; `elements` counts it and what is in it.
fn moved<'a>(element: &Element<'a>, by: usize, elements: &mut usize) -> Element<'a> {
    *elements = elements.saturating_add(1);
    let moved_range = |range: &Range<usize>| range.start.saturating_add(by)..range.end.saturating_add(by);
    Element {
        source: element.source,
        name: element.name,
        namespace: element.namespace.clone(),
        attributes: element.attributes.clone(),
        children: element.children.iter().map(|child| moved(child, by, elements)).collect(),
        text: element.text.clone(),
        span: moved_range(&element.span),
        content: moved_range(&element.content),
    }
}

/// The prefix that an attribute declares, empty for the default namespace, if it is a declaration.
fn declares(key: &str) -> Option<&str> {
    match key.strip_prefix("xmlns")? {
        "" => Some(""),
        // `xmlns:` alone declares nothing that is allowed, no more than `xmlns:xmlns`.
        ":" => Some("xmlns"),
        rest => rest.strip_prefix(':'),
    }
}

/// Prefix, empty if there is none, and name.
fn split(qualified: &str) -> Option<(&str, &str)> {
    match qualified.split_once(':') {
        None => Some(("", qualified)),
        Some((prefix, name)) => {
            (!prefix.is_empty() && !name.is_empty() && !name.contains(':')).then_some((prefix, name))
        }
    }
}

/// The name at a place.
fn name(source: &str, at: usize) -> Option<&str> {
    let ends =
        |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'/' | b'>' | b'=' | b'<' | b'&' | b'"' | b'\'');
    let length = source.as_bytes().get(at..)?.iter().position(ends)?;
    source.get(at..at.checked_add(length)?).filter(|name| !name.is_empty())
}

fn spaces(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count()
}

/// The attribute at a place: its name, what stands between its quotes, and where it ends.
fn attribute(source: &str, at: usize) -> Option<(&str, &str, usize)> {
    let bytes = source.as_bytes();
    let key = name(source, at)?;
    let mut at = at.checked_add(key.len())?;
    at = at.checked_add(spaces(bytes, at))?;
    if bytes.get(at) != Some(&b'=') {
        return None;
    }
    at = at.checked_add(1)?;
    at = at.checked_add(spaces(bytes, at))?;
    let quote = bytes.get(at).copied().filter(|byte| matches!(byte, b'\'' | b'"'))?;
    let start = at.checked_add(1)?;
    let end = start.checked_add(memchr(quote, bytes.get(start..)?)?)?;
    Some((key, source.get(start..end)?, end.checked_add(1)?))
}

/// What an attribute says (XML 1.0 §3.3.3).
fn value_of(raw: &str) -> Result<Cow<'_, str>, TreeError> {
    // Without an early exit the compiler makes this wide.
    let is_plain = !raw.bytes().fold(false, |found, byte| found | (byte < b' ') | (byte == b'&') | (byte == b'<'));
    if is_plain { Ok(Cow::Borrowed(raw)) } else { resolve(raw, &['&', '<', '\r', '\n', '\t'], ' ').map(Cow::Owned) }
}

/// Text with what its references stand for, and `space` for each end of a line, and for what else is `special`.
fn resolve(raw: &str, special: &[char], space: char) -> Result<String, TreeError> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, after)) = rest.find(special).and_then(|at| rest.split_at_checked(at)) {
        out.push_str(before);
        let mut characters = after.chars();
        let first = characters.next();
        rest = characters.as_str();
        match first {
            Some('&') => {
                let (reference, after) = rest.split_once(';').ok_or(REFERENCE)?;
                out.push(character(reference)?);
                rest = after;
            }
            Some('<') => return Err(TreeError::Malformed("< in an attribute")),
            Some('\r') => {
                out.push(space);
                rest = rest.strip_prefix('\n').unwrap_or(rest);
            }
            _ => out.push(space),
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The character that a reference stands for.
fn character(reference: &str) -> Result<char, TreeError> {
    let Some(number) = reference.strip_prefix('#') else {
        return match reference {
            "lt" => Ok('<'),
            "gt" => Ok('>'),
            "amp" => Ok('&'),
            "apos" => Ok('\''),
            "quot" => Ok('"'),
            _ => Err(TreeError::Restricted),
        };
    };
    let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |digits| (digits, 16));
    let code = Some(digits).filter(|digits| !digits.starts_with(['+', '-']));
    let code = code.and_then(|digits| u32::from_str_radix(digits, radix).ok()).filter(|code| *code != 0);
    code.and_then(char::from_u32).ok_or(REFERENCE)
}

fn append<'a>(text: &mut Cow<'a, str>, more: Cow<'a, str>) {
    if text.is_empty() {
        *text = more;
    } else {
        text.to_mut().push_str(&more);
    }
}
