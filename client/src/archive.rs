//! Archive queries and what comes back (XEP-0313, XEP-0059). Building and reading only: no I/O.

use minidom::Element;
use minidom::rxml::xml_ncname;
use xmpp_parsers::message::Message;

use crate::xml::{Build, ns};

/// How many results are asked for at a time.
const PAGE: usize = 50;

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page<'a> {
    /// At the oldest message.
    First,
    /// After the message with this archive id.
    After(&'a str),
    /// Only the newest message: to learn where the archive ends.
    Newest,
}

/// One archived message.
#[derive(Debug)]
pub(crate) struct Archived {
    pub(crate) id: String,
    /// When it was archived, as the archive writes it (XEP-0082).
    pub(crate) at: Option<String>,
    /// The message; `None` for a placeholder: it has expired.
    pub(crate) message: Option<Message>,
}

/// What the end of a page says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fin {
    /// The page reached the end of the archive.
    pub(crate) complete: bool,
    /// Messages that stood before this page expired and left no place; the newest of them at this time (XEP-0082;
    /// `urn:multiend:0`).
    pub(crate) expired_before: Option<String>,
}

/// The request for a page of the archive.
pub(crate) fn query(query: &str, page: Page<'_>) -> Element {
    let max = if page == Page::Newest { 1 } else { PAGE };
    let mut set = Build::new("set", ns::RSM).child(Build::new("max", ns::RSM).text(max.to_string()));
    match page {
        Page::First => {}
        Page::After(id) => set = set.child(Build::new("after", ns::RSM).text(id)),
        Page::Newest => set = set.child(Build::new("before", ns::RSM)),
    }
    Build::new("query", ns::ARCHIVE).attr(xml_ncname!("queryid"), query).child(set).into()
}

/// Reads a `<result/>`. `None` where it has no id, which every result must have.
pub(crate) fn read_result(result: &Element) -> Option<Archived> {
    let id = result.attr("id")?.to_owned();
    let forwarded = result.get_child("forwarded", ns::FORWARD)?;
    let at = forwarded.get_child("delay", ns::DELAY).and_then(|delay| delay.attr("stamp")).map(str::to_owned);
    let message = forwarded
        .get_child("message", ns::CLIENT)
        // `urn:multiend:0`; other archives leave the message out.
        .filter(|message| !message.has_child("expired", ns::MULTIEND))
        .and_then(|message| message.clone().try_into().ok());
    Some(Archived { id, at, message })
}

/// Reads a `<fin/>`.
pub(crate) fn read_fin(fin: &Element) -> Option<Fin> {
    let expired = fin.get_child("expired", ns::MULTIEND);
    fin.is("fin", ns::ARCHIVE).then(|| Fin {
        complete: matches!(fin.attr("complete"), Some("true" | "1")),
        expired_before: expired.and_then(|expired| expired.attr("before")).map(str::to_owned),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_has_a_place_and_a_time_and_no_message() {
        for message in ["", "<message xmlns='jabber:client' from='bob@x'><expired xmlns='urn:multiend:0'/></message>"] {
            let result: Element = format!(
                "<result xmlns='urn:xmpp:mam:2' queryid='q' id='a1'><forwarded xmlns='urn:xmpp:forward:0'>\
                 <delay xmlns='urn:xmpp:delay' stamp='2026-01-31T12:00:00Z'/>{message}</forwarded></result>"
            )
            .parse()
            .unwrap();
            let archived = read_result(&result).unwrap();
            assert_eq!((archived.id.as_str(), archived.at.as_deref()), ("a1", Some("2026-01-31T12:00:00Z")));
            assert!(archived.message.is_none());
        }
    }
}
