use proptest::prelude::*;

use super::*;
use crate::model::{ArchiveId, Timestamp};
use crate::stanza::rsm;
use crate::stanza::tree::Element;
use crate::store::Edge;

fn parse(query: &str) -> Result<Query, RequestError> {
    match Request::from_set(&Element::parse(query.as_bytes()).unwrap())? {
        Request::Query(query) => Ok(*query),
        other => panic!("{other:?}"),
    }
}

/// A query with these form fields and this `<set/>`.
fn query(fields: &[(&str, &[&str])], set: &str) -> Result<Query, RequestError> {
    let mut form = String::from(
        "<x xmlns='jabber:x:data' type='submit'>\
         <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:mam:2</value></field>",
    );
    for (var, values) in fields {
        let values: String = values.iter().map(|value| format!("<value>{value}</value>")).collect();
        form.push_str(&format!("<field var='{var}'>{values}</field>"));
    }
    parse(&format!(
        "<query xmlns='urn:xmpp:mam:2' queryid='f27'>{form}</x><set xmlns='http://jabber.org/protocol/rsm'>{set}</set></query>"
    ))
}

fn id(text: &str) -> ArchiveId {
    ArchiveId::parse(text).unwrap()
}

#[test]
fn the_examples_of_the_specification() {
    let plain = parse("<query xmlns='urn:xmpp:mam:2' queryid='f27' />").unwrap();
    assert_eq!((plain.query_id.as_deref(), plain.edge, plain.max), (Some("f27"), Edge::First, None));

    let fields: &[(&str, &[&str])] = &[
        ("with", &["juliet@capulet.lit"]),
        ("start", &["2010-06-07T00:00:00Z"]),
        ("end", &["2010-07-07T13:23:54Z"]),
        ("after-id", &["28482-98726-73623"]),
        ("before-id", &["09af3-cc343-b409f"]),
        ("ids", &["a", "b"]),
        ("include-groupchat", &["true"]),
    ];
    let all = query(fields, "<max>10</max><after>09af3-cc343-b409f</after>").unwrap();
    assert_eq!(all.filter.with.unwrap().as_str(), "juliet@capulet.lit");
    assert_eq!(all.filter.start.unwrap().to_xmpp(), "2010-06-07T00:00:00.000000Z");
    assert_eq!(all.filter.end.unwrap().to_xmpp(), "2010-07-07T13:23:54.000000Z");
    assert_eq!(all.filter.after_id, Some(id("28482-98726-73623")));
    assert_eq!(all.filter.before_id, Some(id("09af3-cc343-b409f")));
    assert_eq!(all.filter.ids, [id("a"), id("b")]);
    assert_eq!(all.include_groupchat, Some(true));
    assert_eq!((all.max, all.edge), (Some(10), Edge::After(id("09af3-cc343-b409f"))));

    let flipped = parse("<query xmlns='urn:xmpp:mam:2'><flip-page/></query>").unwrap();
    assert!(flipped.flip_page && !plain.flip_page);
    let from_get = |source: &str| Request::from_get(&Element::parse(source.as_bytes()).unwrap());
    assert_eq!(from_get("<query xmlns='urn:xmpp:mam:2'/>"), Ok(Request::Form));
    assert_eq!(from_get("<metadata xmlns='urn:xmpp:mam:2'/>"), Ok(Request::Metadata));
    assert!(matches!(from_get("<unheard-of xmlns='urn:xmpp:mam:2'/>"), Err(RequestError::NotImplemented(_))));
}

#[test]
fn queries_as_clients_write_them() {
    // `start`, `max` and an empty `<before/>`: the last page.
    let last = query(&[("start", &["2026-01-01T00:00:00Z"])], "<max>20</max><before/>").unwrap();
    assert_eq!((last.edge, last.max), (Edge::Last, Some(20)));
    // `with` and `start`, no queryid, no RSM, and a stray `<after>` that a stock server ignores.
    let stray = parse(
        "<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'>\
         <field type='hidden' var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>\
         <field var='with'><value>bob@localhost</value></field>\
         <field var='start'><value>2026-01-01T00:00:00.5+02:00</value></field></x><after>x<nested/></after></query>",
    )
    .unwrap();
    assert_eq!((stray.query_id, stray.edge), (None, Edge::First));
    assert_eq!(stray.filter.start.unwrap().to_xmpp(), "2025-12-31T22:00:00.500000Z");
    // Fields that the user left empty.
    let empty = query(&[("with", &[""]), ("end", &[]), ("ids", &[])], "").unwrap();
    assert_eq!(empty.filter, crate::store::Filter::default());
}

#[test]
fn before_and_after_together_are_a_range_read_from_its_end() {
    let both = query(&[], "<before>b</before><after>a</after>").unwrap();
    assert_eq!((both.edge, both.filter.after_id), (Edge::Before(id("b")), Some(id("a"))));
    let tail = query(&[], "<before/><after>a</after>").unwrap();
    assert_eq!((tail.edge, tail.filter.after_id), (Edge::Last, Some(id("a"))));
    let clash = query(&[("after-id", &["x"])], "<before/><after>a</after>");
    assert!(matches!(clash, Err(RequestError::BadRequest(_))));
}

#[test]
fn bad_input_gets_the_error_that_the_specification_names() {
    let long = "x".repeat(ArchiveId::MAX_LENGTH + 1);
    for unknown in [
        query(&[("after-id", &[&long])], ""),
        query(&[("before-id", &["two words"])], ""),
        query(&[("ids", &["a", ""])], ""),
        query(&[], &format!("<after>{long}</after>")),
        query(&[], &format!("<before>{long}</before>")),
    ] {
        assert_eq!(unknown, Err(RequestError::UnknownId));
    }
    for unsupported in [query(&[("{urn:example}search", &["x"])], ""), query(&[], "<index>0</index>")] {
        assert!(matches!(unsupported, Err(RequestError::NotImplemented(_))), "{unsupported:?}");
    }
    let many: Vec<&str> = std::iter::repeat_n("a", 501).collect();
    for bad in [
        query(&[("start", &["yesterday"])], ""),
        query(&[("end", &["2026-01-01"])], ""),
        query(&[("with", &["@"])], ""),
        query(&[("with", &["a@b", "c@d"])], ""),
        query(&[("with", &["a@b"]), ("with", &["a@b"])], ""),
        query(&[("include-groupchat", &["maybe"])], ""),
        query(&[("ids", &many)], ""),
        query(&[], "<max>many</max>"),
        parse("<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'/></query>"),
        parse("<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='cancel'/></query>"),
        parse(
            "<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'>\
             <field var='FORM_TYPE'><value>urn:xmpp:mam:1</value></field></x></query>",
        ),
        parse(
            "<query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'>\
             <field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field><field><value>x</value></field></x></query>",
        ),
        parse(&format!("<query xmlns='urn:xmpp:mam:2' queryid='{}'/>", "q".repeat(257))),
    ] {
        assert!(matches!(bad, Err(RequestError::BadRequest(_))), "{bad:?}");
    }
}

#[test]
fn a_result_reads_as_the_specification_has_it() {
    let mut out = String::new();
    let message = "<message xmlns='jabber:client' from='b@x/r' to='a@x'><body>hi</body></message>";
    let at = Timestamp::parse_xmpp("2010-07-10T23:08:25Z").unwrap();
    push_result(&mut out, Some("<'&\">"), &id("28482-98726-73623"), at, message);
    // The independent reader: xmpp-parsers' own types.
    let result = xmpp_parsers::mam::Result_::try_from(out.parse::<minidom::Element>().unwrap()).unwrap();
    assert_eq!((result.queryid.unwrap().0.as_str(), result.id.as_str()), ("<'&\">", "28482-98726-73623"));
    assert_eq!(result.forwarded.delay.unwrap().stamp.0.to_string(), "2010-07-10 23:08:25 +00:00");
    assert_eq!(result.forwarded.message.from.unwrap().as_str(), "b@x/r");

    let placeholder = expired_placeholder("b@x/r", "a@x");
    let tree = Element::parse(placeholder.as_bytes()).unwrap();
    assert_eq!((tree.attribute("from"), tree.children().len()), (Some("b@x/r"), 1));
}

#[test]
fn the_end_of_a_page_reads_as_the_specification_has_it() {
    let written = |fin: &Fin| {
        let mut out = String::new();
        fin.push(&mut out);
        out
    };
    let set = rsm::Reply { ends: Some(("a&b".to_owned(), "c".to_owned())), count: Some(20) };
    let fin = Fin { complete: true, stable: true, set, expired_before: None };
    let typed: xmpp_parsers::mam::Fin = written(&fin).parse::<minidom::Element>().unwrap().try_into().unwrap();
    assert!(typed.complete);
    assert_eq!((typed.set.first.unwrap().item, typed.set.count), ("a&b".to_owned(), Some(20)));

    let empty = Fin {
        complete: false,
        stable: false,
        set: rsm::Reply::default(),
        expired_before: Some(Timestamp::from_micros(0)),
    };
    assert_eq!(
        written(&empty),
        "<fin xmlns='urn:xmpp:mam:2' stable='false'><set xmlns='http://jabber.org/protocol/rsm'></set>\
         <expired xmlns='urn:multiend:0' before='1970-01-01T00:00:00.000000Z'/></fin>"
    );
}

#[test]
fn form_and_metadata() {
    let source = form();
    let tree = Element::parse(source.as_bytes()).unwrap();
    let x = tree.child("x", "jabber:x:data").unwrap();
    let fields: Vec<_> =
        x.children().iter().map(|f| (f.attribute("var").unwrap(), f.attribute("type").unwrap())).collect();
    for mandatory in [
        ("with", "jid-single"),
        ("start", "text-single"),
        ("end", "text-single"),
        ("before-id", "text-single"),
        ("after-id", "text-single"),
        ("ids", "list-multi"),
    ] {
        assert!(fields.contains(&mandatory), "{mandatory:?}");
    }
    assert!(!source.contains("required"));
    assert_eq!(metadata(None), "<metadata xmlns='urn:xmpp:mam:2'></metadata>");
    let at = Timestamp::from_micros(1_000_000);
    assert_eq!(
        metadata(Some(&Ends { oldest: (id("a"), at), newest: (id("b"), at) })),
        "<metadata xmlns='urn:xmpp:mam:2'><start id='a' timestamp='1970-01-01T00:00:01.000000Z'/>\
         <end id='b' timestamp='1970-01-01T00:00:01.000000Z'/></metadata>"
    );
}

proptest! {
    #[test]
    fn no_query_makes_the_parser_panic(
        var in "(with|start|end|before-id|after-id|ids|include-groupchat|FORM_TYPE|[a-z]{0,4})",
        values in proptest::collection::vec("[^<&\\x00-\\x1f\\ufffe\\uffff]{0,80}", 0..4),
        max in "[^<&\\x00-\\x1f\\ufffe\\uffff]{0,30}",
        before in "[^<&\\x00-\\x1f\\ufffe\\uffff]{0,80}",
    ) {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let _ = query(&[(&var, &values)], &format!("<max>{max}</max><before>{before}</before>"));
    }

    #[test]
    fn no_xml_makes_the_parser_panic(text in "(<|>|/|'|=|query|field|x|set| |value|[a-z]){0,40}") {
        let source = format!("<query xmlns='urn:xmpp:mam:2'>{text}</query>");
        if let Ok(tree) = Element::parse(source.as_bytes()) {
            let _ = Request::from_set(&tree);
            let _ = Request::from_get(&tree);
        }
    }
}
