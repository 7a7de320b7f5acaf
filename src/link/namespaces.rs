//! Prefixes: which are declared where, so that every stanza handed up stands on its own.
//!
//! A parser further up sees one stanza without the stream header around it. A prefix that only the header declares is
//! therefore declared again on the stanza when it uses it; only the default namespace stays inherited.

use super::lexer::Span;
use super::limits::RefusalReason;

/// The namespace of stream headers and stream errors.
pub const STREAMS: &str = "http://etherx.jabber.org/streams";
const XML: &[u8] = b"http://www.w3.org/XML/1998/namespace";
const XMLNS: &[u8] = b"http://www.w3.org/2000/xmlns/";

/// Declarations made inside of one stanza at most; each use of a prefix looks through them.
const DECLARED_AT_ONCE: usize = 64;

/// The declarations in force.
#[derive(Default)]
pub(super) struct Namespaces {
    /// Of the stream header: prefix and namespace.
    stream: Vec<(String, String)>,
    /// Of the stanza, innermost last: the depth of the element that declares, and where the prefix stands.
    stanza: Vec<(usize, Span)>,
    /// Which of `stream` the stanza uses.
    borrowed: Vec<usize>,
}

impl Namespaces {
    /// Notes a declaration of the stream header.
    pub fn declare_for_stream(&mut self, prefix: &str, namespace: &str) {
        self.stream.push((prefix.to_owned(), namespace.to_owned()));
    }

    /// The stream-level meaning of a prefix.
    pub fn of_stream(&self, prefix: &[u8]) -> Option<&str> {
        self.stream.iter().find(|(name, _)| name.as_bytes() == prefix).map(|(_, namespace)| namespace.as_str())
    }

    /// Forgets the stanza.
    pub fn end_stanza(&mut self) {
        self.stanza.clear();
        self.borrowed.clear();
    }

    /// Forgets what elements at or below `depth` have declared.
    pub fn leave(&mut self, depth: usize) {
        while self.stanza.last().is_some_and(|(declared, _)| *declared >= depth) {
            self.stanza.pop();
        }
    }

    /// Takes in a complete start tag at `depth`. `text` gives the bytes of a span.
    pub fn enter<'a>(
        &mut self,
        depth: usize,
        name: Span,
        attributes: &[(Span, Span)],
        text: impl Fn(Span) -> &'a [u8],
    ) -> Result<(), RefusalReason> {
        for &(attribute, value) in attributes {
            let name = text(attribute);
            if let Some(prefix) = name.strip_prefix(b"xmlns:") {
                may_declare(prefix, text(value))?;
                if self.stanza.len() >= DECLARED_AT_ONCE {
                    return Err(RefusalReason::Namespace);
                }
                let start = attribute.end.saturating_sub(prefix.len() as u64);
                self.stanza.push((depth, Span { start, end: attribute.end }));
            } else if name == b"xmlns" && matches!(text(value), XML | XMLNS) {
                return Err(RefusalReason::Namespace);
            }
        }
        self.resolve(text(name), &text)?;
        for &(attribute, _) in attributes {
            let name = text(attribute);
            if !name.starts_with(b"xmlns:") {
                self.resolve(name, &text)?;
            }
        }
        Ok(())
    }

    fn resolve<'a>(&mut self, name: &[u8], text: &impl Fn(Span) -> &'a [u8]) -> Result<(), RefusalReason> {
        let Some(colon) = name.iter().position(|&byte| byte == b':') else { return Ok(()) };
        let prefix = name.get(..colon).unwrap_or_default();
        let local = name.get(colon.saturating_add(1)..).unwrap_or_default();
        if prefix.is_empty() || prefix == b"xmlns" || !is_local_name(local) {
            return Err(RefusalReason::Namespace);
        }
        if prefix == b"xml" || self.stanza.iter().any(|&(_, declared)| text(declared) == prefix) {
            return Ok(());
        }
        let of_stream = self.stream.iter().position(|(name, _)| name.as_bytes() == prefix);
        let index = of_stream.ok_or(RefusalReason::Namespace)?;
        if !self.borrowed.contains(&index) {
            self.borrowed.push(index);
        }
        Ok(())
    }

    /// The declarations that the stanza takes from the stream header, as attributes to write after its name.
    pub fn borrowed_declarations(&self) -> Option<String> {
        if self.borrowed.is_empty() {
            return None;
        }
        let declarations = self.borrowed.iter().filter_map(|&index| self.stream.get(index));
        Some(
            declarations
                .map(|(prefix, namespace)| {
                    format!(" xmlns:{prefix}='{}'", quick_xml::escape::escape(namespace.as_str()))
                })
                .collect(),
        )
    }
}

fn is_local_name(local: &[u8]) -> bool {
    super::characters::front(local).is_some_and(|(c, _)| c != ':' && super::characters::starts_name(c))
        && !local.contains(&b':')
}

/// Namespaces in XML 1.0 §3 and §5: `xmlns` is never declared, `xml` only as itself, and a prefix never as nothing.
fn may_declare(prefix: &[u8], namespace: &[u8]) -> Result<(), RefusalReason> {
    let allowed = match prefix {
        b"xmlns" => false,
        b"xml" => namespace == XML,
        _ => is_local_name(prefix) && !namespace.is_empty() && !matches!(namespace, XML | XMLNS),
    };
    if allowed { Ok(()) } else { Err(RefusalReason::Namespace) }
}
