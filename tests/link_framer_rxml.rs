//! The framer and rxml agree on what is well-formed and where each element begins and ends: for well-formed streams in
//! every notation, and for the same with a few bytes broken.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

#[path = "../fuzz/differential.rs"]
mod differential;

use differential::compare;
use proptest::prelude::*;
use proptest::sample::select;

const TEXTS: [&str; 12] = [
    "",
    "a",
    "ä€😀",
    "]]",
    "]",
    "&lt;&amp;",
    "&#65;&#x1F600;",
    "<![CDATA[</x>]]>",
    "<![CDATA[]]]]>",
    ">\n\t'\"",
    "é]]&gt;",
    "\r\n",
];
const VALUES: [&str; 8] = ["", "v", "a>b", "&quot;&apos;", "€ü", "/>", "]]>", "&#9;"];
const NAMES: [&str; 8] = ["a", "message", "p:a", "stream:x", "ü-1", "_.b", "xml:lang", "p:ü"];

/// What may stand between the parts of a tag.
fn space(at_least_one: bool) -> impl Strategy<Value = &'static str> {
    if at_least_one { select(vec![" ", "\n", "\t \r\n"]) } else { select(vec!["", "", " ", "\n"]) }
}

fn attribute() -> impl Strategy<Value = String> {
    let parts = (space(true), select(&NAMES[..]), space(false), space(false), select(&VALUES[..]), any::<bool>());
    parts.prop_map(|(before, name, left, right, value, double)| {
        let quote = if double { '"' } else { '\'' };
        format!("{before}{name}{left}={right}{quote}{value}{quote}")
    })
}

/// A start tag without its end: most declare `p`, so that most prefixes are good.
fn tag() -> impl Strategy<Value = (String, &'static str)> {
    let declaration =
        select(vec![" xmlns:p='urn:p'", " xmlns:p=\"urn:q\"", " xmlns:p='urn:p' xmlns='u'", " xmlns=''", ""]);
    (select(&NAMES[..6]), declaration, prop::collection::vec(attribute(), 0..3))
        .prop_map(|(name, declaration, attributes)| (format!("<{name}{declaration}{}", attributes.concat()), name))
}

fn element() -> impl Strategy<Value = String> {
    let empty = (tag(), space(false)).prop_map(|((tag, _), space)| format!("{tag}{space}/>"));
    let text = (tag(), space(false), select(&TEXTS[..]))
        .prop_map(|((tag, name), space, text)| format!("{tag}{space}>{text}</{name}{space}>"));
    prop_oneof![empty, text].prop_recursive(6, 24, 4, |inner| {
        let content = prop::collection::vec((select(&TEXTS[..]), inner), 0..4);
        (tag(), content).prop_map(|((tag, name), content)| {
            let content: String = content.into_iter().map(|(text, element)| [text, &element].concat()).collect();
            format!("{tag}>{content}</{name}>")
        })
    })
}

fn body() -> impl Strategy<Value = String> {
    let elements = prop::collection::vec((element(), space(false)), 0..5);
    (elements, any::<bool>()).prop_map(|(elements, closed)| {
        let mut body: String = elements.into_iter().map(|(element, space)| [&element, space].concat()).collect();
        body.push_str(if closed { "</stream:stream>" } else { "" });
        body
    })
}

/// What is put into a good stream to break it, and now and then does not.
const SPLINTERS: [&[u8]; 44] = [
    b"<",
    b">",
    b"/",
    b"=",
    b"'",
    b"\"",
    b"&",
    b";",
    b":",
    b"!",
    b"?",
    b"#",
    b" ",
    b"\n",
    b"a",
    b"1",
    b"-",
    b"]]>",
    b"]]",
    b"\xC3",
    b"\xE2\x82",
    b"\x00",
    b"\x1F",
    b"\x7F",
    "\u{FFFE}".as_bytes(),
    "\u{D7}".as_bytes(),
    "\u{B7}".as_bytes(),
    "€".as_bytes(),
    "\u{300}".as_bytes(),
    b"\xED\xA0\x80",
    b"<!-- -->",
    b"<?a?>",
    b"<a>",
    b"</a>",
    b"<a/>",
    b"&#0;",
    b"&#xFFFF;",
    b"&#xZ;",
    b"&nbsp;",
    b"&lt;",
    b"<![CDATA[",
    b" b='<'",
    b" p:b=''",
    b" xmlns:xml=''",
];

#[derive(Clone, Debug)]
enum Damage {
    Insert(&'static [u8]),
    Replace(&'static [u8]),
    Remove,
}

fn damage() -> impl Strategy<Value = (prop::sample::Index, Damage)> {
    let splinter = select(&SPLINTERS[..]);
    let damage = prop_oneof![
        3 => splinter.clone().prop_map(Damage::Insert),
        1 => splinter.prop_map(Damage::Replace),
        1 => Just(Damage::Remove)
    ];
    (any::<prop::sample::Index>(), damage)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn they_agree_on_streams_in_every_notation(body in body()) {
        compare(body.as_bytes());
    }

    #[test]
    fn they_agree_on_broken_streams(body in body(), damages in prop::collection::vec(damage(), 1..3)) {
        let mut bytes = body.into_bytes();
        for (at, damage) in damages {
            let at = at.index(bytes.len() + 1);
            let (gone, splinter): (_, &[u8]) = match damage {
                Damage::Insert(splinter) => (0, splinter),
                Damage::Replace(splinter) => (1, splinter),
                Damage::Remove => (1, b""),
            };
            let end = (at + gone).min(bytes.len());
            bytes.splice(at..end, splinter.iter().copied());
        }
        compare(&bytes);
    }
}

#[test]
fn the_comparison_compares() {
    assert_eq!(compare(b"<a/> <b x='>'><![CDATA[</b>]]></b><stream:c/><p:d xmlns:p='u'/></stream:stream>"), 4);
    assert_eq!(compare(b"<a/><b></c>"), 1);
    assert_eq!(compare(b"<a/><p:b/><c/>"), 1);
}
