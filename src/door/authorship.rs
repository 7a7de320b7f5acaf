//! What a message's author calls it, and what it takes back (XEP-0424), the same through every door.

use bytes::Bytes;
use jid::BareJid;

use crate::archive::archive_id::ArchiveIds;
use crate::model::{Class, Origin, Retraction, Timestamp};
use crate::stanza::retraction;
use crate::stanza::tree::Element;

/// The name of a message of `author` to `recipient`, or what it takes back. The author's server vouches for the author.
pub(super) fn origin(
    ids: &ArchiveIds,
    message: &Element<'_>,
    (author, recipient): (&BareJid, &BareJid),
    class: Option<Class>,
    at: Timestamp,
) -> (Option<Origin>, Option<Retraction>) {
    let id = message.attribute("id").unwrap_or_default();
    if !matches!(class, Some(Class::Content | Class::Plain)) || id.is_empty() {
        return (None, None);
    }
    let origin = |id: &str| ids.origin(author, recipient, id);
    let Some(target) = retraction::target(message) else { return (Some(origin(id)), None) };
    let tombstone = retraction::tombstone(message, target, at);
    (None, tombstone.map(|tombstone| Retraction { origin: origin(target), tombstone: Bytes::from(tombstone) }))
}
