//! The framer against rxml, on the same bytes: both must cut the same elements out of a stream, and end at the same
//! place. Shared by the property test and the fuzz target.
//!
//! Where the two differ on purpose:
//! - text between stanzas is XML, but no XMPP stream: only the framer stops there;
//! - rxml resolves prefixes before it looks for attributes that come twice, and references before it looks for reserved
//!   namespaces; the framer leaves both to whoever parses the stanza;
//! - rxml takes no references of more than eight bytes, and knows no names from U+FDF0 on.

use multiend::link::Limits;
use multiend::link::RefusalReason;
use multiend::link::framer::{Event, Framer};
use rxml::{Error, Parse, Parser};

pub const HEADER: &str = "<stream:stream xmlns='jabber:component:accept' \
    xmlns:stream='http://etherx.jabber.org/streams' id='1'>";
const SPLICE: &str = " xmlns:stream='http://etherx.jabber.org/streams'";

/// Panics if the two differ on a stream with this body. Returns how many elements they agreed on.
pub fn compare(body: &[u8]) -> usize {
    if is_beyond_rxml(body) {
        return 0;
    }
    let stream = [HEADER.as_bytes(), body].concat();
    let ours = framer(&stream);
    let theirs = rxml(&stream);
    let agreed = ours.elements.iter().zip(&theirs.elements).take_while(|(a, b)| same(a, b)).count();
    let whole = match (ours.excuse, theirs.excuse) {
        (false, false) => {
            ours.elements.len() == agreed && theirs.elements.len() == agreed && ours.closed == theirs.closed
        }
        (true, _) => ours.elements.len() == agreed,
        (_, true) => theirs.elements.len() == agreed,
    };
    assert!(whole, "{:?}\nframer: {ours:#?}\nrxml: {theirs:#?}", String::from_utf8_lossy(body));
    agreed
}

#[derive(Debug, Default)]
struct Outcome {
    elements: Vec<String>,
    closed: bool,
    /// Ended by a difference that is meant.
    excuse: bool,
    end: String,
}

fn framer(stream: &[u8]) -> Outcome {
    let limits = Limits {
        stanza_bytes: 1 << 24,
        depth: 1 << 20,
        elements: 1 << 24,
        attributes: 1 << 12,
        attribute_bytes: 1 << 24,
    };
    let mut framer = Framer::new(limits);
    framer.feed(stream);
    let mut outcome = Outcome::default();
    loop {
        match framer.next_event() {
            Ok(Some(Event::Element(element) | Event::StreamElement(element))) => {
                outcome
                    .elements
                    .push(String::from_utf8(element.bytes.to_vec()).expect("the framer lets only UTF-8 by"));
            }
            Ok(Some(Event::Open(_))) => {}
            Ok(Some(Event::Close)) => {
                outcome.closed = true;
                return outcome;
            }
            Ok(Some(Event::Refused(refusal))) => {
                // Too many declarations are a limit of ours alone.
                assert_eq!(refusal.reason, RefusalReason::Namespace);
                outcome.end = "refused".to_owned();
                return outcome;
            }
            Ok(None) => return outcome,
            Err(fault) => {
                outcome.excuse = fault == multiend::link::Fault::TextBetweenStanzas;
                outcome.end = fault.to_string();
                return outcome;
            }
        }
    }
}

fn rxml(stream: &[u8]) -> Outcome {
    let mut parser = Parser::new();
    let mut rest = stream;
    let mut outcome = Outcome::default();
    let (mut at, mut depth, mut start) = (0, 0, 0);
    loop {
        let event = match parser.parse(&mut rest, false) {
            Ok(Some(event)) => event,
            Ok(None) | Err(rxml::error::EndOrError::NeedMoreData) => return outcome,
            Err(rxml::error::EndOrError::Error(error)) => {
                outcome.excuse = matches!(error, Error::DuplicateAttribute | Error::ReservedNamespaceName);
                outcome.end = error.to_string();
                return outcome;
            }
        };
        match &event {
            rxml::Event::StartElement(..) => {
                depth += 1;
                if depth == 2 {
                    start = at;
                }
            }
            rxml::Event::EndElement(..) => depth -= 1,
            _ => {}
        }
        at += event.metrics().len();
        if matches!(event, rxml::Event::EndElement(..)) {
            match depth {
                0 => {
                    outcome.closed = true;
                    return outcome;
                }
                1 => outcome.elements.push(String::from_utf8_lossy(&stream[start..at]).into_owned()),
                _ => {}
            }
        }
    }
}

/// Whether the framer's element is rxml's, but for a prefix of the header that was declared again.
fn same(ours: &str, theirs: &str) -> bool {
    ours == theirs || (theirs.contains("stream:") && ours.replacen(SPLICE, "", 1) == *theirs)
}

fn is_beyond_rxml(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    // A broken character is shown as U+FFFD itself, and is no name.
    let unknown_name = text.chars().any(|c| ('\u{FDF0}'..'\u{FFFD}').contains(&c))
        || body.windows(3).any(|w| w == "\u{FFFD}".as_bytes());
    let long_reference = text.split('&').skip(1).any(|tail| tail.find(';').is_none_or(|end| end >= 7));
    let many_declarations = text.matches("xmlns:").count() >= 64;
    unknown_name || long_reference || many_declarations
}
