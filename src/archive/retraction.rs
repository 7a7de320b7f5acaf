//! What a message is called by its author, and what it takes back (XEP-0424): for every door, what goes into the store
//! besides the bytes.
//!
//! A message is taken back by its author only. Who that is, the door knows, from a server that vouches for it; the name that
//! the store looks for holds author, recipient and id, so that nobody's retraction can name another's message. In a room's
//! private messages the author is an occupant, a full JID; of accounts, a bare one.

use bytes::Bytes;
use jid::{BareJid, Jid};

use super::archive_id::ArchiveIds;
use crate::model::{Class, Origin, Retraction, Timestamp};
use crate::stanza::retraction;
use crate::stanza::tree::Element;

/// What can be retracted: content, encrypted or not. `at` is when the message was sent.
pub fn origin_of(
    ids: &ArchiveIds,
    message: &Element<'_>,
    class: Class,
    (author, recipient): (&Jid, &BareJid),
    at: Timestamp,
) -> (Option<Origin>, Option<Retraction>) {
    let id = message.attribute("id").unwrap_or_default();
    if !matches!(class, Class::Content | Class::Plain) || id.is_empty() {
        return (None, None);
    }
    let origin = |id: &str| ids.origin(author, recipient, id);
    let Some(target) = retraction::target(message) else { return (Some(origin(id)), None) };
    let tombstone = retraction::tombstone(message, target, at);
    (None, tombstone.map(|tombstone| Retraction { origin: origin(target), tombstone: Bytes::from(tombstone) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(content: &str, class: Class, author: &str) -> (Option<Origin>, Option<Retraction>) {
        let source = format!("<message id='m1'>{content}</message>");
        let message = Element::parse(source.as_bytes()).unwrap();
        let (author, recipient) = (Jid::new(author).unwrap(), BareJid::new("bob@example.org").unwrap());
        origin_of(&ArchiveIds::new(&[7; 32]), &message, class, (&author, &recipient), Timestamp::from_micros(0))
    }

    #[test]
    fn a_retraction_names_what_its_own_author_said() {
        let (said, _) = of("<body>b</body>", Class::Plain, "alice@example.org");
        let retract = "<retract id='m1' xmlns='urn:xmpp:message-retract:1'/><body>b</body>";
        let (named, retraction) = of(retract, Class::Plain, "alice@example.org");
        assert_eq!((named, retraction.map(|retraction| retraction.origin)), (None, said));
        for other in ["eve@example.org", "alice@example.org/occupant"] {
            let (_, retraction) = of(retract, Class::Plain, other);
            assert_ne!(retraction.map(|retraction| retraction.origin), said, "{other}");
        }
        assert_eq!(of("<body>b</body>", Class::Content, "alice@example.org").0, said);
        assert_eq!(of("<received xmlns='urn:xmpp:receipts' id='1'/>", Class::Signal, "alice@example.org").0, None);
    }
}
