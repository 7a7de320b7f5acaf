//! The headers of OMEMO messages of both protocols (XEP-0384 §5.5; legacy: XEP-0384 0.3 §4.5), each with the bytes that it
//! takes up. What is encrypted stays opaque.
//!
//! ```xml
//! <encrypted xmlns='urn:xmpp:omemo:2'>            <encrypted xmlns='eu.siacs.conversations.axolotl'>
//!   <header sid='27183'>                            <header sid='27183'>
//!     <keys jid='juliet@capulet.lit'>                 <key rid='31415' prekey='true'>…</key>
//!       <key rid='31415' kex='true'>…</key>           <iv>…</iv>
//!     </keys>                                       </header>
//!   </header>                                       <payload>…</payload>
//!   <payload>…</payload>                          </encrypted>
//! </encrypted>
//! ```

use std::ops::Range;

use super::namespace::{OMEMO_2, OMEMO_LEGACY};
use super::tree::Element;
use crate::model::{DeviceId, Protocol};

/// Most `<encrypted/>` elements of one message that are looked at: one per protocol is what clients send.
const MAX_ENCRYPTED: usize = 4;
/// Most headers of one `<encrypted/>` that are looked at. A message with more is not trimmed beyond them.
pub const MAX_HEADERS: usize = 4_000;

/// The protocol's namespace.
pub fn namespace(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Legacy => OMEMO_LEGACY,
        Protocol::Omemo2 => OMEMO_2,
    }
}

/// An `<encrypted/>` element.
#[derive(Debug)]
pub struct Encrypted<'t> {
    /// Its protocol.
    pub protocol: Protocol,
    /// The device that says it sent this, if it names a valid one.
    pub sid: Option<DeviceId>,
    /// Whether there is a payload. Without one it only transports a key or moves a session on.
    pub has_payload: bool,
    /// The headers in order, at most [`MAX_HEADERS`].
    pub headers: Vec<KeyHeader<'t>>,
    /// `omemo2` only: the groups of headers, in order.
    pub groups: Vec<KeyGroup<'t>>,
}

/// A `<keys jid='…'/>` element: the headers for one account's devices.
#[derive(Debug)]
pub struct KeyGroup<'t> {
    /// The account as written; empty if missing.
    pub jid: &'t str,
    /// Whether it holds anything that is not a header with a valid `rid`.
    pub opaque: bool,
    /// Its bytes.
    pub span: Range<usize>,
}

/// A `<key rid='…'/>` element: the message key, encrypted for one device.
#[derive(Debug)]
pub struct KeyHeader<'t> {
    /// The device that it is for.
    pub rid: DeviceId,
    /// Whether it says that it carries a key exchange (`kex`, legacy: `prekey`). Some legacy clients leave this out.
    pub key_exchange: bool,
    /// `omemo2` only: its place in [`Encrypted::groups`].
    pub group: Option<usize>,
    /// The ciphertext, in base64 as written.
    pub data: &'t str,
    /// Its bytes.
    pub span: Range<usize>,
}

/// Finds the `<encrypted/>` children of a message. One without a `<header/>` counts as having no headers.
pub fn find<'t>(message: &'t Element<'_>) -> Vec<Encrypted<'t>> {
    let protocol_of =
        |child: &Element<'_>| Protocol::ALL.into_iter().find(|protocol| child.is("encrypted", namespace(*protocol)));
    message
        .children()
        .iter()
        .filter_map(|child| protocol_of(child).map(|protocol| read(child, protocol)))
        .take(MAX_ENCRYPTED)
        .collect()
}

fn read<'t>(element: &'t Element<'_>, protocol: Protocol) -> Encrypted<'t> {
    let ns = namespace(protocol);
    let header = element.child("header", ns);
    let mut encrypted = Encrypted {
        protocol,
        sid: header.and_then(|header| header.attribute("sid")).and_then(device),
        has_payload: element.child("payload", ns).is_some(),
        headers: Vec::new(),
        groups: Vec::new(),
    };
    match (header, protocol) {
        (None, _) => {}
        (Some(header), Protocol::Legacy) => {
            read_headers(header, protocol, None, &mut encrypted.headers);
        }
        (Some(header), Protocol::Omemo2) => {
            for keys in header.children_named("keys", ns) {
                let group = encrypted.groups.len();
                let complete = read_headers(keys, protocol, Some(group), &mut encrypted.headers);
                encrypted.groups.push(KeyGroup {
                    jid: keys.attribute("jid").unwrap_or_default(),
                    opaque: !complete,
                    span: keys.span(),
                });
            }
        }
    }
    encrypted
}

/// Reads the headers directly below `parent`. `false` if something there is not a header that was read.
fn read_headers<'t>(
    parent: &'t Element<'_>,
    protocol: Protocol,
    group: Option<usize>,
    headers: &mut Vec<KeyHeader<'t>>,
) -> bool {
    let flag = match protocol {
        Protocol::Legacy => "prekey",
        Protocol::Omemo2 => "kex",
    };
    let mut complete = parent.text().trim().is_empty();
    for child in parent.children() {
        let rid = child.attribute("rid").and_then(device).filter(|_| child.is("key", namespace(protocol)));
        match rid {
            Some(rid) if headers.len() < MAX_HEADERS => headers.push(KeyHeader {
                rid,
                key_exchange: matches!(child.attribute(flag).map(str::trim), Some("true" | "1")),
                group,
                data: child.text().trim(),
                span: child.span(),
            }),
            _ => complete = false,
        }
    }
    complete
}

fn device(text: &str) -> Option<DeviceId> {
    DeviceId::parse(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_current_protocol() {
        let source = "<message><encrypted xmlns='urn:xmpp:omemo:2'><header sid='27183'>\
            <keys jid='juliet@capulet.lit'><key rid='31415'>QQ==</key></keys>\
            <keys jid='romeo@montague.lit'><key rid='1337'>Qg==</key><key kex='true' rid='12321'>Qw==</key></keys>\
            </header><payload>RA==</payload></encrypted><store xmlns='urn:xmpp:hints'/></message>";
        let tree = Element::parse(source.as_bytes()).unwrap();
        let found = find(&tree);
        let [encrypted] = found.as_slice() else { panic!("one element") };
        assert_eq!((encrypted.protocol, encrypted.has_payload), (Protocol::Omemo2, true));
        assert_eq!(encrypted.sid.map(DeviceId::get), Some(27183));
        let headers: Vec<_> =
            encrypted.headers.iter().map(|h| (h.rid.get(), h.key_exchange, h.group, h.data)).collect();
        assert_eq!(
            headers,
            [(31415, false, Some(0), "QQ=="), (1337, false, Some(1), "Qg=="), (12321, true, Some(1), "Qw==")]
        );
        assert_eq!(encrypted.groups[1].jid, "romeo@montague.lit");
        assert_eq!(&source[encrypted.headers[0].span.clone()], "<key rid='31415'>QQ==</key>");
        assert!(source[encrypted.groups[0].span.clone()].starts_with("<keys jid='juliet"));
    }

    #[test]
    fn reads_the_legacy_protocol_also_without_payload_or_flag() {
        let source = "<message><encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'>\
            <key rid='2' prekey='1'>QQ==</key><key rid='3'>Qg==</key><iv>Qw==</iv></header></encrypted></message>";
        let tree = Element::parse(source.as_bytes()).unwrap();
        let found = find(&tree);
        assert_eq!((found[0].protocol, found[0].has_payload), (Protocol::Legacy, false));
        let headers: Vec<_> = found[0].headers.iter().map(|h| (h.rid.get(), h.key_exchange)).collect();
        assert_eq!(headers, [(2, true), (3, false)]);
    }

    #[test]
    fn what_is_no_header_is_left_alone_and_counts_are_bounded() {
        let source = "<message><encrypted xmlns='urn:xmpp:omemo:2'><header sid='0'><keys jid='a@b'>\
            <key rid='0'>x</key><key>y</key><key xmlns='urn:other' rid='5'>z</key></keys></header></encrypted></message>";
        let tree = Element::parse(source.as_bytes()).unwrap();
        let found = find(&tree);
        assert!(found[0].sid.is_none() && found[0].headers.is_empty() && found[0].groups[0].opaque);

        let many = "<key rid='7'>x</key>".repeat(MAX_HEADERS + 1);
        let source =
            format!("<message><encrypted xmlns='{OMEMO_LEGACY}'><header sid='1'>{many}</header></encrypted></message>");
        let tree = Element::parse(source.as_bytes()).unwrap();
        assert_eq!(find(&tree)[0].headers.len(), MAX_HEADERS);
        let source = format!("<message>{}</message>", format!("<encrypted xmlns='{OMEMO_LEGACY}'/>").repeat(9));
        assert_eq!(find(&Element::parse(source.as_bytes()).unwrap()).len(), MAX_ENCRYPTED);
    }
}
