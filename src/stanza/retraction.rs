//! Message retraction (XEP-0424): what a message takes back, and the tombstone that stays in an archive.
//!
//! Only what stands in clear is seen: an encrypted retraction is content like any other. Retractions by moderators
//! (XEP-0425) concern rooms, which have their own archives.

use super::incoming::MAX_ID_LENGTH;
use super::tree::{Element, push_attribute};
use crate::model::Timestamp;

/// The namespace, also the disco feature of a service that keeps retractions.
pub const NS: &str = "urn:xmpp:message-retract:1";
/// The disco feature of an archive that puts tombstones in the place of what is retracted.
pub const TOMBSTONE: &str = "urn:xmpp:message-retract:1#tombstone";

/// The id of the message that this one takes back: the `id` that its author gave the stanza (§ "Using the correct ID").
pub fn target<'e>(message: &'e Element<'_>) -> Option<&'e str> {
    let retract = message.child("retract", NS)?;
    let moderated = retract.children().iter().any(|child| child.name() == "moderated");
    retract.attribute("id").filter(|id| !moderated && !id.is_empty() && id.len() <= MAX_ID_LENGTH)
}

/// The body bytes of what stands in the place of message `target`, which `retraction` has taken back. Without an `id` on
/// the retraction no client could tell which one that was (§ "Tombstones"): then there is none.
pub fn tombstone(retraction: &Element<'_>, target: &str, at: Timestamp) -> Option<String> {
    let id = retraction.attribute("id").filter(|id| !id.is_empty() && id.len() <= MAX_ID_LENGTH)?;
    let mut out = String::from("<message");
    if let Some(kind @ ("chat" | "normal")) = retraction.attribute("type") {
        push_attribute(&mut out, "type", kind);
    }
    push_attribute(&mut out, "id", target);
    out.push_str("><retracted");
    push_attribute(&mut out, "xmlns", NS);
    push_attribute(&mut out, "id", id);
    push_attribute(&mut out, "stamp", &at.to_xmpp());
    out.push_str("/></message>");
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retraction_names_its_target_and_leaves_a_tombstone() {
        let source = format!(
            "<message type='chat' id='r&lt;1'><retract id='wrong&apos;1' xmlns='{NS}'/><body>x</body></message>"
        );
        let message = Element::parse(source.as_bytes()).unwrap();
        let wrong = target(&message).unwrap();
        let tombstone = tombstone(&message, wrong, Timestamp::from_micros(0)).unwrap();
        let tree = Element::parse(tombstone.as_bytes()).unwrap();
        assert_eq!((tree.attribute("type"), tree.attribute("id")), (Some("chat"), Some("wrong'1")));
        let retracted = tree.child("retracted", NS).unwrap();
        assert_eq!(retracted.attribute("id"), Some("r<1"));
        assert_eq!(retracted.attribute("stamp"), Some("1970-01-01T00:00:00.000000Z"));
    }

    #[test]
    fn what_is_no_retraction_by_an_author_is_none() {
        for content in [
            "<body>x</body>".to_owned(),
            format!("<retract xmlns='{NS}'/>"),
            "<retract id='1' xmlns='urn:xmpp:message-retract:0'/>".to_owned(),
            format!("<retract id='1' xmlns='{NS}'><moderated xmlns='urn:xmpp:message-moderate:1'/></retract>"),
            format!("<retract id='{}' xmlns='{NS}'/>", "x".repeat(MAX_ID_LENGTH + 1)),
        ] {
            let source = format!("<message>{content}</message>");
            assert_eq!(target(&Element::parse(source.as_bytes()).unwrap()), None, "{content}");
        }
        let unnamed = format!("<message><retract id='1' xmlns='{NS}'/></message>");
        let unnamed = Element::parse(unnamed.as_bytes()).unwrap();
        assert_eq!(tombstone(&unnamed, "1", Timestamp::from_micros(0)), None);
    }
}
