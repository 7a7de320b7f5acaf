//! Copies of messages, as a server plugin hands them over: `<copies xmlns='urn:multiend:plugin:0'/>` (docs/plugin-protocol.md,
//! "Copies").
//!
//! One copy that makes no sense must not hold up those beside it: it is told apart here and refused alone.

use super::namespace::PLUGIN;
use super::tree::{Element, STREAM, push_attribute, push_text};
use crate::model::{ArchiveId, Direction, Owner, Timestamp};

/// Most copies of one batch.
pub const MAX_COPIES: usize = 1_000;

/// One copy.
#[derive(Debug)]
pub struct CopyOf<'e, 'a> {
    /// Whose archive.
    pub owner: Owner,
    /// Its stanza-id, as the server stamped it.
    pub id: ArchiveId,
    /// Which way it went.
    pub direction: Direction,
    /// When the server took it.
    pub at: Timestamp,
    /// The message, with the addresses that the server routed by.
    pub message: &'e Element<'a>,
}

/// A copy that is not taken, and never will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedCopy {
    /// As written, or empty.
    pub owner: String,
    /// As written, or empty.
    pub id: String,
    /// Why, for the log of the server.
    pub reason: String,
}

/// Why a batch as a whole is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CopiesError {
    /// Nothing in it.
    #[error("a batch has at least one <copy/>")]
    Empty,
    /// More than [`MAX_COPIES`].
    #[error("a batch has at most {MAX_COPIES} copies")]
    TooMany,
}

/// Reads a batch, in order.
pub fn parse<'e, 'a>(copies: &'e Element<'a>) -> Result<Vec<Result<CopyOf<'e, 'a>, RefusedCopy>>, CopiesError> {
    let found: Vec<_> = copies.children().iter().filter(|child| child.is("copy", PLUGIN)).collect();
    match found.len() {
        0 => Err(CopiesError::Empty),
        1..=MAX_COPIES => Ok(found.into_iter().map(copy).collect()),
        _ => Err(CopiesError::TooMany),
    }
}

fn copy<'e, 'a>(copy: &'e Element<'a>) -> Result<CopyOf<'e, 'a>, RefusedCopy> {
    let attribute = |name| copy.attribute(name).unwrap_or_default();
    let refused = |reason: &str| RefusedCopy {
        owner: attribute("owner").to_owned(),
        id: attribute("id").to_owned(),
        reason: reason.to_owned(),
    };
    let owner = Owner::parse(attribute("owner")).map_err(|_| refused("owner is no account"))?;
    let id = ArchiveId::parse(attribute("id")).map_err(|error| refused(&error.to_string()))?;
    let direction = match attribute("direction") {
        "sent" => Direction::Sent,
        "received" => Direction::Received,
        _ => return Err(refused("direction is sent or received")),
    };
    let at = Timestamp::parse_xmpp(attribute("stamp")).ok_or_else(|| refused("stamp is no time of XEP-0082"))?;
    let [message] = copy.children() else { return Err(refused("a copy holds one message")) };
    if !message.is("message", STREAM) {
        return Err(refused("a copy holds one message"));
    }
    Ok(CopyOf { owner, id, direction, at, message })
}

/// The answer: all of the batch is durable, except what is refused for ever.
pub fn result(refused: &[RefusedCopy]) -> String {
    let mut out = String::from("<copies");
    push_attribute(&mut out, "xmlns", PLUGIN);
    out.push('>');
    for copy in refused {
        out.push_str("<refused");
        push_attribute(&mut out, "owner", &copy.owner);
        push_attribute(&mut out, "id", &copy.id);
        out.push('>');
        push_text(&mut out, &copy.reason);
        out.push_str("</refused>");
    }
    out.push_str("</copies>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(content: &str) -> String {
        format!("<copies xmlns='urn:multiend:plugin:0'>{content}</copies>")
    }

    const GOOD: &str = "<copy owner='alice@example.org' direction='sent' id='abc' stamp='2026-01-31T12:00:00Z'>\
                        <message xmlns='jabber:client' from='alice@example.org/x' to='b@c'><body>b</body></message></copy>";

    #[test]
    fn a_bad_copy_is_told_apart_from_those_beside_it() {
        let bad = [
            GOOD.replace("alice@example.org' direction", "example.org' direction"),
            GOOD.replace("id='abc'", ""),
            GOOD.replace("id='abc'", &format!("id='{}'", "x".repeat(65))),
            GOOD.replace("'sent'", "'sideways'"),
            GOOD.replace("2026-01-31T12:00:00Z", "yesterday"),
            GOOD.replace("<message", "<iq").replace("</message", "</iq"),
            GOOD.replace("</copy>", "<message xmlns='jabber:client'/></copy>"),
            "<copy/>".to_owned(),
        ];
        let text = batch(&format!("{GOOD}{}{GOOD}", bad.concat()));
        let element = Element::parse(text.as_bytes()).unwrap();
        let copies = parse(&element).unwrap();
        assert!(copies[0].is_ok() && copies[copies.len() - 1].is_ok());
        assert_eq!(copies.iter().filter(|copy| copy.is_err()).count(), bad.len());
        let first = copies[0].as_ref().unwrap();
        assert_eq!((first.direction, first.id.as_str(), first.message.name()), (Direction::Sent, "abc", "message"));
        assert_eq!(copies[4].as_ref().unwrap_err().id, "abc");
    }

    #[test]
    fn a_batch_is_bounded() {
        for (count, expected) in
            [(0, Some(CopiesError::Empty)), (MAX_COPIES, None), (MAX_COPIES + 1, Some(CopiesError::TooMany))]
        {
            let text = batch(&"<copy/>".repeat(count));
            let element = Element::parse(text.as_bytes()).unwrap();
            assert_eq!(parse(&element).err(), expected, "{count}");
        }
    }

    #[test]
    fn what_is_no_copy_is_passed_over() {
        let text = batch(&format!("<begin/>{GOOD}<end/>"));
        let element = Element::parse(text.as_bytes()).unwrap();
        assert_eq!(parse(&element).unwrap().iter().filter(|copy| copy.is_ok()).count(), 1);
    }

    #[test]
    fn what_is_refused_is_named() {
        let refused = RefusedCopy { owner: "a@b".to_owned(), id: "<1>".to_owned(), reason: "a & b".to_owned() };
        let text = result(&[refused]);
        let element = Element::parse(text.as_bytes()).unwrap();
        let child = element.child("refused", PLUGIN).unwrap();
        assert_eq!((child.attribute("id"), child.text()), (Some("<1>"), "a & b"));
    }
}
