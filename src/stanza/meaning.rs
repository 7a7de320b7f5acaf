//! What a stanza means, whichever way it is written.
//!
//! A server that reads a client's stanza writes it anew: the order of attributes, their quotes, prefixes and CDATA are its
//! own choice, and may be another after a restart. Whoever has to recognise the same stanza when it comes again compares
//! this. It is for comparing only: no XML, never stored, never sent.

use super::tree::Element;

/// Names, namespaces, attributes and text, each with its length before it, so that nothing can pass for something else.
/// Declarations of namespaces count by what they do; of the outermost element, the attributes in `skipped` are left out.
pub fn meaning(element: &Element<'_>, skipped: &[&str]) -> String {
    let mut out = String::with_capacity(element.span().len());
    push_element(&mut out, element, skipped);
    out
}

fn push_element(out: &mut String, element: &Element<'_>, skipped: &[&str]) {
    push(out, element.namespace());
    push(out, element.name());
    let mut attributes: Vec<_> = element
        .attributes()
        .filter(|(key, _)| *key != "xmlns" && !key.starts_with("xmlns:") && !skipped.contains(key))
        .collect();
    attributes.sort_unstable();
    for (key, value) in attributes {
        push(out, key);
        push(out, value);
    }
    out.push('>');
    push(out, element.text());
    for child in element.children() {
        push_element(out, child, &[]);
    }
    out.push('<');
}

fn push(out: &mut String, text: &str) {
    out.push_str(&text.len().to_string());
    out.push(':');
    out.push_str(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(xml: &str) -> String {
        meaning(&Element::parse(xml.as_bytes()).unwrap(), &["from", "to"])
    }

    #[test]
    fn the_way_of_writing_does_not_count() {
        let one = "<message from='a@b/c' type='chat' id='1'><body xml:lang='en'>a &amp; b</body><x xmlns='urn:x' a='1' b='2'/></message>";
        let other = "<message id=\"1\" xmlns='jabber:client' to='d@e' type='chat'><body xml:lang=\"en\"><![CDATA[a & b]]></body>\
                     <p:x xmlns:p='urn:x' b='2' a='1'></p:x></message>";
        assert_eq!(of(one), of(other));
    }

    #[test]
    fn everything_else_does() {
        let base = of("<message id='1'><body>ab</body></message>");
        for other in [
            "<message id='2'><body>ab</body></message>",
            "<message id='1'><body>ab </body></message>",
            "<message id='1'><body>a</body><body>b</body></message>",
            "<message id='1'><body xmlns='urn:x'>ab</body></message>",
            "<message id='1'><body to='x'>ab</body></message>",
            "<message id='1' type='chat'><body>ab</body></message>",
            "<message id='1'><body><b/>ab</body></message>",
        ] {
            assert_ne!(of(other), base, "{other}");
        }
    }
}
