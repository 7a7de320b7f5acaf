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
    let message = forwarded.get_child("message", ns::CLIENT).and_then(|message| message.clone().try_into().ok());
    Some(Archived { id, at, message })
}

/// Whether the `<fin/>` says that the page reached the end of the archive.
pub(crate) fn is_complete(fin: &Element) -> Option<bool> {
    fin.is("fin", ns::ARCHIVE).then(|| matches!(fin.attr("complete"), Some("true" | "1")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_is_a_result_without_a_message() {
        let result: Element = "<result xmlns='urn:xmpp:mam:2' queryid='q' id='a1'><forwarded xmlns='urn:xmpp:forward:0'>\
             <delay xmlns='urn:xmpp:delay' stamp='2026-01-31T12:00:00Z'/></forwarded></result>"
            .parse()
            .unwrap();
        let archived = read_result(&result).unwrap();
        assert_eq!((archived.id.as_str(), archived.at.as_deref()), ("a1", Some("2026-01-31T12:00:00Z")));
        assert!(archived.message.is_none());
    }
}
