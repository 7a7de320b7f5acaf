//! Writing what an archive answers.

use super::{NS, field};
use crate::model::{ArchiveId, Timestamp};
use crate::stanza::forwarded::push_forwarded;
use crate::stanza::namespace::MULTIEND;
use crate::stanza::rsm;
use crate::stanza::tree::{push_attribute, push_text};

/// Appends `<result/>` with one message of a page (§4.2): as the client named its query, under its id in the archive, with
/// the time at which it was sent or received. `message` must declare its own namespace.
pub fn push_result(out: &mut String, query_id: Option<&str>, archive_id: &ArchiveId, at: Timestamp, message: &str) {
    out.reserve(message.len().saturating_add(256));
    out.push_str("<result");
    push_attribute(out, "xmlns", NS);
    if let Some(query_id) = query_id {
        push_attribute(out, "queryid", query_id);
    }
    push_attribute(out, "id", archive_id.as_str());
    out.push('>');
    push_forwarded(out, at, message);
    out.push_str("</result>");
}

/// What stands for a message that has expired in the middle of an archive: see the module.
pub fn expired_placeholder(from: &str, to: &str) -> String {
    let mut out = String::from("<message xmlns='jabber:client'");
    push_attribute(&mut out, "from", from);
    push_attribute(&mut out, "to", to);
    out.push_str("><expired");
    push_attribute(&mut out, "xmlns", MULTIEND);
    out.push_str("/></message>");
    out
}

/// The end of a page: the payload of the IQ result (§4.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fin {
    /// There is nothing more in the direction of the paging.
    pub complete: bool,
    /// Asking again gives the same. Only `false` is written.
    pub stable: bool,
    /// What the page holds.
    pub set: rsm::Reply,
    /// When the newest message expired that the query would have matched before this page, as far as is known.
    pub expired_before: Option<Timestamp>,
}

impl Fin {
    /// Appends `<fin/>`.
    pub fn push(&self, out: &mut String) {
        out.push_str("<fin");
        push_attribute(out, "xmlns", NS);
        if self.complete {
            push_attribute(out, "complete", "true");
        }
        if !self.stable {
            push_attribute(out, "stable", "false");
        }
        out.push('>');
        self.set.push(out);
        if let Some(before) = self.expired_before {
            out.push_str("<expired");
            push_attribute(out, "xmlns", MULTIEND);
            push_attribute(out, "before", &before.to_xmpp());
            out.push_str("/>");
        }
        out.push_str("</fin>");
    }
}

/// Marks a written `<fin/>` as unstable: messages that belong here may still arrive (§4.3).
pub fn mark_unstable(fin: &mut String) {
    const START: &str = "<fin";
    let start_tag = fin.split_once('>').map_or("", |(tag, _)| tag);
    if start_tag.starts_with(START) && !start_tag.contains(" stable=") {
        fin.insert_str(START.len(), " stable='false'");
    }
}

/// The form of all fields that a query may have: the payload of the answer to a `get` (§4.1.5).
pub fn form() -> String {
    let fields = [
        (field::WITH, "jid-single", ""),
        (field::START, "text-single", ""),
        (field::END, "text-single", ""),
        (field::BEFORE_ID, "text-single", ""),
        (field::AFTER_ID, "text-single", ""),
        (
            field::IDS,
            "list-multi",
            "<validate xmlns='http://jabber.org/protocol/xdata-validate' datatype='xs:string'><open/></validate>",
        ),
        (field::INCLUDE_GROUPCHAT, "boolean", ""),
        (field::DEVICE, "text-multi", ""),
        (
            field::VIEW,
            "list-single",
            "<option><value>keep</value></option><option><value>trim</value></option><option><value>omit</value></option>",
        ),
    ];
    let mut out = String::from("<query");
    push_attribute(&mut out, "xmlns", NS);
    out.push_str("><x xmlns='jabber:x:data' type='form'><field type='hidden' var='FORM_TYPE'><value>");
    push_text(&mut out, NS);
    out.push_str("</value></field>");
    for (var, kind, content) in fields {
        out.push_str("<field");
        push_attribute(&mut out, "type", kind);
        push_attribute(&mut out, "var", var);
        out.push('>');
        out.push_str(content);
        out.push_str("</field>");
    }
    out.push_str("</x></query>");
    out
}

/// The ends of an archive that is not empty: ids and times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// Of the oldest message.
    pub oldest: (ArchiveId, Timestamp),
    /// Of the newest message.
    pub newest: (ArchiveId, Timestamp),
}

/// The payload of the answer to a `get` for metadata; `None` for an empty archive (§5).
pub fn metadata(ends: Option<&Ends>) -> String {
    let mut out = String::from("<metadata");
    push_attribute(&mut out, "xmlns", NS);
    out.push('>');
    if let Some(ends) = ends {
        for (name, (id, at)) in [("start", &ends.oldest), ("end", &ends.newest)] {
            out.push('<');
            out.push_str(name);
            push_attribute(&mut out, "id", id.as_str());
            push_attribute(&mut out, "timestamp", &at.to_xmpp());
            out.push_str("/>");
        }
    }
    out.push_str("</metadata>");
    out
}
