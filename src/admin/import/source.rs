//! Reading archives out of a file in the portable form of XEP-0227 (§ "Archives", `urn:xmpp:pie:0#mam`), result by result;
//! and what is to be archived, of which XEP-0227 says nothing: a user's `<prefs/>` (XEP-0441) stands beside its archive.
//!
//! The file may be larger than memory: one element is held at a time, and no piece of it may be longer than
//! [`MAX_RESULT`]. What else is in the file is passed over. A document type is refused.

use std::io::{self, BufRead, Read};

use jid::BareJid;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::{NsReader, Writer};

use crate::stanza::mam;

/// Longest element taken, in bytes; what is longer is passed over and told.
pub const MAX_RESULT: usize = 1024 * 1024;

/// The namespaces of XEP-0227: the present one and that of older exports.
const PIE: [&str; 2] = ["urn:xmpp:pie:0", "http://www.xmpp.org/extensions/xep-0227.html#ns"];
/// That of its archives.
const PIE_MAM: &str = "urn:xmpp:pie:0#mam";

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is not XML, or it is cut short, or the disk fails.
    #[error("it cannot be read near byte {at}: {error}")]
    Xml {
        /// How far it was read.
        at: u64,
        /// What is wrong there.
        error: quick_xml::Error,
    },
    /// It has a document type, which XMPP's XML never has.
    #[error("it has a document type declaration")]
    DocumentType,
    /// It ends before its root element does.
    #[error("it is cut short")]
    CutShort,
    /// It is something else.
    #[error("it is no export in the form of XEP-0227: its root is not <server-data/>")]
    NotServerData,
}

/// One thing in a file.
#[derive(Debug)]
pub struct Found {
    /// Whose; `None` if the file names no account that could be one.
    pub account: Option<BareJid>,
    /// What it is.
    pub kind: Kind,
    /// The element with its namespace; `None` if it is longer than [`MAX_RESULT`].
    pub element: Option<Vec<u8>>,
}

/// What can be found in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A message of an archive, `<result/>`.
    Result,
    /// What is to be archived, `<prefs/>`.
    Preferences,
}

/// A file that is being read.
pub struct Source<R> {
    reader: NsReader<Bounded<R>>,
    buffer: Vec<u8>,
    /// The elements around the present place that matter.
    depth: usize,
    host: Option<String>,
    account: Option<BareJid>,
    in_archive: bool,
}

impl<R: BufRead> Source<R> {
    /// Begins to read.
    pub fn new(input: R) -> Self {
        let mut reader = NsReader::from_reader(Bounded { input, left: MAX_RESULT });
        reader.config_mut().expand_empty_elements = true;
        Self { reader, buffer: Vec::new(), depth: 0, host: None, account: None, in_archive: false }
    }

    /// The next message or the next preferences of anybody; `None` at the end of the file.
    pub fn next_found(&mut self) -> Result<Option<Found>, SourceError> {
        loop {
            let (namespace, event) = self.event()?;
            match event {
                Event::Start(start) => {
                    self.depth = self.depth.saturating_add(1);
                    let name = start.local_name();
                    let is_pie = PIE.iter().any(|pie| namespace == *pie);
                    match (self.depth, name.as_ref()) {
                        (1, "server-data") if is_pie => {}
                        (1, _) => return Err(SourceError::NotServerData),
                        (2, "host") if is_pie => self.host = attribute(&start, "jid"),
                        (3, "user") if is_pie => {
                            let name = attribute(&start, "name");
                            let jid = name.zip(self.host.as_ref()).map(|(name, host)| format!("{name}@{host}"));
                            self.account = jid.and_then(|jid| BareJid::new(&jid).ok());
                        }
                        (4, "archive") => self.in_archive = namespace == PIE_MAM,
                        (4, "prefs") if namespace == mam::NS => {
                            let start = start.into_owned();
                            return self.found(Kind::Preferences, start).map(Some);
                        }
                        (5, "result") if self.in_archive && namespace == mam::NS => {
                            let start = start.into_owned();
                            return self.found(Kind::Result, start).map(Some);
                        }
                        _ => {}
                    }
                }
                Event::End(_) => {
                    match self.depth {
                        2 => self.host = None,
                        3 => self.account = None,
                        4 => self.in_archive = false,
                        _ => {}
                    }
                    self.depth = self.depth.saturating_sub(1);
                }
                Event::Eof if self.depth > 0 => return Err(SourceError::CutShort),
                Event::Eof => return Ok(None),
                Event::DocType(_) => return Err(SourceError::DocumentType),
                _ => {}
            }
        }
    }

    fn found(&mut self, kind: Kind, start: BytesStart<'static>) -> Result<Found, SourceError> {
        let element = self.element(start)?;
        self.depth = self.depth.saturating_sub(1);
        Ok(Found { account: self.account.clone(), kind, element })
    }

    /// The element that begins with `start`, to its end, as it stands; with the namespace that it is in.
    fn element(&mut self, mut start: BytesStart<'static>) -> Result<Option<Vec<u8>>, SourceError> {
        if !start.attributes().flatten().any(|attribute| attribute.key.as_ref() == "xmlns") {
            start.push_attribute(("xmlns", mam::NS));
        }
        let mut out = Writer::new(Vec::new());
        let mut whole = out.write_event(Event::Start(start)).is_ok();
        let mut open = 1_usize;
        while open > 0 {
            let (_, event) = self.event()?;
            match &event {
                Event::Start(_) => open = open.saturating_add(1),
                Event::End(_) => open = open.saturating_sub(1),
                Event::Eof => return Err(SourceError::CutShort),
                Event::DocType(_) => return Err(SourceError::DocumentType),
                _ => {}
            }
            whole = whole && out.write_event(event).is_ok() && out.get_ref().len() <= MAX_RESULT;
            if !whole {
                out = Writer::new(Vec::new());
            }
        }
        Ok(whole.then(|| out.into_inner()))
    }

    /// The next event, and the namespace of its element.
    fn event(&mut self) -> Result<(String, Event<'static>), SourceError> {
        self.buffer.clear();
        self.reader.get_mut().left = MAX_RESULT;
        let read = self.reader.read_resolved_event_into(&mut self.buffer);
        let (namespace, event) = match read {
            Ok((ResolveResult::Bound(namespace), event)) => (namespace.into_inner().to_owned(), event.into_owned()),
            Ok((_, event)) => (String::new(), event.into_owned()),
            Err(error) => return Err(SourceError::Xml { at: self.reader.buffer_position(), error }),
        };
        Ok((namespace, event))
    }
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = start.try_get_attribute(name).ok().flatten()?;
    quick_xml::escape::unescape(&attribute.value).ok().map(std::borrow::Cow::into_owned)
}

/// Fails when one piece of XML is too long to be held.
struct Bounded<R> {
    input: R,
    left: usize,
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "one tag or text is too long"));
        }
        let available = self.input.fill_buf()?;
        Ok(available.get(..self.left).unwrap_or(available))
    }

    fn consume(&mut self, amount: usize) {
        self.left = self.left.saturating_sub(amount);
        self.input.consume(amount);
    }
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(out.len());
        if let (Some(from), Some(to)) = (available.get(..count), out.get_mut(..count)) {
            to.copy_from_slice(from);
        }
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whose, and what.
    type Seen = (Option<String>, Option<String>);

    fn read(text: &str) -> Result<Vec<Seen>, SourceError> {
        let mut source = Source::new(text.as_bytes());
        let mut all = Vec::new();
        while let Some(found) = source.next_found()? {
            let text = found.element.map(|element| String::from_utf8(element).unwrap());
            all.push((found.account.map(|account| account.to_string()), text));
        }
        Ok(all)
    }

    fn file(archive: &str) -> String {
        format!(
            "<?xml version='1.0'?>\n<server-data xmlns='urn:xmpp:pie:0'><host jid='example.org'><user name='alice'>\
             <pubsub xmlns='http://jabber.org/protocol/pubsub'><items><item><result xmlns='urn:xmpp:mam:2'/></item></items>\
             </pubsub><archive xmlns='urn:xmpp:pie:0#mam'>{archive}</archive></user><user name='bob'/></host></server-data>"
        )
    }

    #[test]
    fn results_come_as_they_stand_with_their_account_and_namespace() {
        let one = "<result xmlns='urn:xmpp:mam:2' id='1'><a b=\"&lt;\">x &amp; y<![CDATA[<]]></a></result>";
        let found = read(&file(&format!("\n{one}\n<other/>{one}"))).unwrap();
        assert_eq!(found.len(), 2);
        for (account, result) in found {
            assert_eq!((account.as_deref(), result.as_deref()), (Some("alice@example.org"), Some(one)));
        }
        let inherited = file("").replace(
            "<archive xmlns='urn:xmpp:pie:0#mam'>",
            "<p:archive xmlns:p='urn:xmpp:pie:0#mam' xmlns='urn:xmpp:mam:2'><result id='2'><x/></result></p:archive><archive>",
        );
        let found = read(&inherited).unwrap();
        assert_eq!(found[0].1.as_deref(), Some("<result id='2' xmlns=\"urn:xmpp:mam:2\"><x></x></result>"));
    }

    #[test]
    fn preferences_stand_beside_the_archive() {
        let prefs = "<prefs xmlns='urn:xmpp:mam:2' default='never'><always><jid>a@b</jid></always></prefs>";
        let result = "<result xmlns='urn:xmpp:mam:2' id='1'></result>";
        // In an archive, in what somebody has published, and around an account it is none.
        let text = file(&format!("{prefs}{result}"))
            .replace("<items>", &format!("{prefs}<items>{prefs}"))
            .replace("</archive>", &format!("</archive>{prefs}<prefs default='always'/>"))
            .replace("</user><user", &format!("</user>{prefs}<user"));
        let mut source = Source::new(text.as_bytes());
        let mut found = Vec::new();
        while let Some(Found { account, kind, element }) = source.next_found().unwrap() {
            found.push((kind, account.unwrap().to_string(), String::from_utf8(element.unwrap()).unwrap()));
        }
        let of_alice = |kind, text: &str| (kind, "alice@example.org".to_owned(), text.to_owned());
        assert_eq!(found, [of_alice(Kind::Result, result), of_alice(Kind::Preferences, prefs)]);
    }

    #[test]
    fn a_result_that_is_too_long_costs_nothing_but_itself() {
        let long = "<a>b</a>".repeat(MAX_RESULT / 8 + 1);
        let text = file(&format!(
            "<result xmlns='urn:xmpp:mam:2' id='1'>{long}</result><result xmlns='urn:xmpp:mam:2' id='2'/>"
        ));
        let found = read(&text).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0].1.is_none() && found[1].1.is_some());
        let text = file(&format!("<result xmlns='urn:xmpp:mam:2'>{}</result>", "x".repeat(2 * MAX_RESULT)));
        assert!(matches!(read(&text), Err(SourceError::Xml { .. })), "no single text is held that is longer");
    }

    #[test]
    fn what_is_no_whole_export_is_told() {
        assert!(matches!(read("<other/>"), Err(SourceError::NotServerData)));
        assert!(matches!(read("<!DOCTYPE a><server-data xmlns='urn:xmpp:pie:0'/>"), Err(SourceError::DocumentType)));
        let whole = file("<result xmlns='urn:xmpp:mam:2' id='1'/>");
        for end in [whole.len() - 1, whole.len() - 30, whole.find("id='1'").unwrap()] {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
    }
}
