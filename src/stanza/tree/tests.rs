use proptest::prelude::*;
use quick_xml::XmlVersion::Implicit1_0;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::reader::NsReader;

use super::*;

/// An element as another parser reads it, written so that nothing can pass for something else.
fn by_another_parser(source: &str) -> Option<String> {
    let mut reader = NsReader::from_str(source);
    // What was read of each element around the present place: its own, its text, its children.
    let mut open: Vec<[String; 3]> = Vec::new();
    let mut root = None;
    loop {
        let event = reader.read_event().ok()?;
        let is_empty = matches!(event, Event::Empty(_));
        let text = match &event {
            Event::Start(tag) | Event::Empty(tag) => {
                let namespace = reader.resolver().resolve_element(tag.name()).0;
                open.push([head(tag, namespace)?, String::new(), String::new()]);
                None
            }
            Event::Text(text) => Some(text.xml_content(Implicit1_0).into_owned()),
            Event::CData(data) => Some(data.to_string()),
            Event::GeneralRef(reference) => match reference.resolve_char_ref().ok()? {
                Some(character) => Some(character.to_string()),
                None => Some(quick_xml::escape::resolve_xml_entity(reference)?.to_owned()),
            },
            Event::End(_) => None,
            Event::Eof => break,
            _ => return None,
        };
        match (text, open.last_mut()) {
            (Some(text), Some([_, all, _])) => all.push_str(&text),
            (Some(text), None) if !text.trim().is_empty() => return None,
            _ => {}
        }
        if is_empty || matches!(event, Event::End(_)) {
            let [head, text, children] = open.pop()?;
            let closed = format!("({head}{text:?}{children})");
            match open.last_mut() {
                Some([_, _, children]) => children.push_str(&closed),
                None if root.is_some() => return None,
                None => root = Some(closed),
            }
        }
    }
    root.filter(|_| open.is_empty())
}

fn head(tag: &BytesStart<'_>, namespace: ResolveResult<'_>) -> Option<String> {
    let namespace = match namespace {
        ResolveResult::Bound(bound) => quick_xml::escape::unescape(bound.into_inner()).ok()?.into_owned(),
        ResolveResult::Unbound => String::new(),
        ResolveResult::Unknown(_) => return None,
    };
    let namespace = if namespace == "jabber:client" { STREAM.to_owned() } else { namespace };
    let name = tag.local_name().into_inner().to_owned();
    let mut head = format!("{namespace:?}{name:?}");
    for attribute in tag.attributes() {
        let attribute = attribute.ok()?;
        let value = attribute.normalized_value(Implicit1_0).ok()?;
        head.push_str(&format!("{:?}{value:?}", attribute.key.into_inner()));
    }
    Some(head)
}

/// The same of an element here; that it covers its bytes from tag to tag is checked on the way.
fn by_us(element: &Element<'_>) -> String {
    assert!(element.raw().starts_with('<') && element.raw().ends_with('>'), "{:?}", element.raw());
    let content = element.source.get(element.content_span()).unwrap();
    assert!(content.is_empty() || element.raw().contains(&format!(">{content}</")), "{:?}", element.raw());
    let attributes: String = element.attributes().map(|(key, value)| format!("{key:?}{value:?}")).collect();
    let children: String = element.children().iter().map(by_us).collect();
    format!("({:?}{:?}{attributes}{:?}{children})", element.namespace(), element.name(), element.text())
}

fn text() -> impl Strategy<Value = String> {
    let special = ["", "&lt;", "&amp;", "&#10;", "&#x1F600;", "\r\n", "\r", "\n", "\t", " ", "é", "<![CDATA[a]]b<&]]>"];
    prop::collection::vec(
        prop_oneof![prop::sample::select(special.to_vec()).prop_map(str::to_owned), "[a-zA-Z0-9+/=]{0,9}"],
        0..4,
    )
    .prop_map(|pieces| pieces.concat())
}

fn element() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["message", "body", "key", "p:x", "é"]);
    let namespace = prop::sample::select(vec![
        "",
        "",
        " xmlns='urn:x'",
        " xmlns=\"jabber:client\"",
        " xmlns:p='urn:q'",
        " xmlns=''",
    ]);
    let attribute = prop::sample::select(vec![
        "",
        " a='1'",
        "\n\tb = \"'&quot;\"",
        " p:c='&#65;\r\n '",
        " xml:lang='en'",
        " a='\u{e9}\t'",
    ]);
    let start =
        (name, namespace, prop::collection::btree_set(attribute, 0..3), prop::sample::select(vec!["", " ", "\n"]));
    let start = start.prop_map(|(name, namespace, attributes, space)| {
        (name, format!("{namespace}{}{space}", attributes.into_iter().collect::<String>()))
    });
    let leaf = (start.clone(), text(), any::<bool>()).prop_map(|((name, attributes), text, short)| {
        if short { format!("<{name}{attributes}/>") } else { format!("<{name}{attributes}>{text}</{name} >") }
    });
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let content = prop::collection::vec((text(), inner), 0..4);
        (start.clone(), content, text()).prop_map(|((name, attributes), content, after)| {
            let content: String = content.into_iter().map(|(text, element)| text + &element).collect();
            format!("<{name}{attributes}>{content}{after}</{name}>")
        })
    })
}

fn compare(source: &str) -> Option<String> {
    let ours = Element::parse(source.as_bytes()).ok().map(|element| by_us(&element));
    if ours.is_some() {
        assert_eq!(ours, by_another_parser(source), "{source}");
    }
    ours
}

proptest! {
    #[test]
    fn another_parser_reads_the_same(element in element()) {
        let source = format!("<m xmlns:p='urn:p'>{element}</m>");
        // Only what is wrong is left out: an attribute twice is the one thing that may be wrong in it.
        let ours = compare(&source);
        prop_assert_eq!(ours.is_some(), by_another_parser(&source).is_some(), "{}", source);
    }

    #[test]
    fn of_what_is_damaged_nothing_is_read_that_another_parser_does_not_read(
        element in element(), place in any::<prop::sample::Index>(), by in "[<>/&;'\"= a!\\[\\]:é]{0,2}", gone in 0_usize..3,
    ) {
        let mut characters: Vec<char> = format!("<m xmlns:p='urn:p'>{element}</m>").chars().collect();
        let at = place.index(characters.len());
        let end = (at + gone).min(characters.len());
        characters.splice(at..end, by.chars());
        compare(&characters.into_iter().collect::<String>());
    }

    /// Copies of one element, as a message comes in a batch.
    #[test]
    fn what_comes_again_is_read_the_same(
        element in element(), around in prop::collection::vec((0_usize..5, any::<bool>()), 1..4),
    ) {
        let around_it = ["", " a='1'", " xmlns='urn:x'", " xmlns:p='urn:r'", " xmlns=''"];
        let long = format!("<message xmlns:q='urn:q'>{element}{}</message>", "<q:k>text</q:k>".repeat(20));
        let copies = around.iter().map(|(attributes, is_second)| {
            let before = if *is_second { element.as_str() } else { "" };
            format!("<copy{}>{before}{long}</copy>", around_it[*attributes])
        });
        let source = format!("<m xmlns:p='urn:p'>{}</m>", copies.collect::<String>());
        compare(&source);
        if let Ok(root) = Element::parse(source.as_bytes()) {
            for copy in root.children() {
                let message = copy.children().last().unwrap();
                prop_assert_eq!(message.raw(), &long);
                let last = message.children().last().unwrap();
                prop_assert_eq!((last.raw(), &source[last.content_span()]), ("<q:k>text</q:k>", "text"));
            }
        }
    }

    #[test]
    fn no_text_causes_a_panic(source in ".{0,200}") {
        compare(&source);
    }
}

#[test]
fn what_namespaces_forbid_is_refused() {
    for source in [
        "<a xmlns:p=''/>",
        "<a xmlns:xmlns='urn:x'/>",
        "<a xmlns:='urn:x'/>",
        "<a xmlns:xml='urn:x'/>",
        "<a xmlns='http://www.w3.org/2000/xmlns/'/>",
        "<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
        "<:a/>",
        "<p:/>",
        "<a><b xmlns:p='urn:p'/><p:c/></a>",
    ] {
        assert!(Element::parse(source.as_bytes()).is_err(), "{source}");
    }
    let many: String = (0..2_000).map(|n| format!(" xmlns:p{n}='urn:p'")).collect();
    assert!(matches!(Element::parse(format!("<a{many}/>").as_bytes()), Err(TreeError::TooLarge)));
}

#[test]
fn references_are_resolved_and_others_refused() {
    let root = "<a b='&#65;&lt;&#x42;&apos;'>&gt;&#67;&quot;</a>";
    let root = Element::parse(root.as_bytes()).unwrap();
    assert_eq!((root.attribute("b"), root.text()), (Some("A<B'"), ">C\""));
    for reference in ["&#0;", "&#xD800;", "&#+65;", "&#x110000;", "&#;", "&;", "&", "&amp", "&own;", "&#65"] {
        for source in [format!("<a>{reference}</a>"), format!("<a b='{reference}'/>")] {
            assert!(Element::parse(source.as_bytes()).is_err(), "{source}");
        }
    }
}

#[test]
fn elements_know_their_bytes() {
    let source = "<message to='a'><body>hi &amp; <![CDATA[<you>]]></body><x:y xmlns:x=\"urn:x\" q='1'/></message>";
    let root = Element::parse(source.as_bytes()).unwrap();
    assert_eq!(root.raw(), source);
    assert_eq!(root.attribute("to"), Some("a"));
    assert_eq!(root.children()[0].text(), "hi & <you>");
    assert_eq!(root.children()[1].raw(), "<x:y xmlns:x=\"urn:x\" q='1'/>");
    assert!(root.children()[1].is("y", "urn:x"));
    assert_eq!(&source[root.content_span()], &source[16..source.len() - 10]);
}

#[test]
fn the_streams_namespaces_are_one() {
    for namespace in ["", " xmlns='jabber:client'", " xmlns='jabber:component:accept'"] {
        let source = format!("<message{namespace}><body/></message>");
        let root = Element::parse(source.as_bytes()).unwrap();
        assert!(root.is("message", STREAM) && root.child("body", STREAM).is_some());
    }
}

#[test]
fn what_leans_on_an_ancestor_is_written_anew() {
    let source = "<a xmlns='urn:a' xmlns:p='urn:p'><b id='1'>t&lt;</b><p:c/><d xmlns='urn:d'><e/></d></a>";
    let root = Element::parse(source.as_bytes()).unwrap();
    assert_eq!(root.children()[0].standalone(), "<b xmlns='urn:a' id='1'>t&lt;</b>");
    assert_eq!(root.children()[1].standalone(), "<c xmlns='urn:p'></c>");
    assert_eq!(root.children()[2].standalone(), "<d xmlns='urn:d'><e/></d>");
    assert_eq!(root.standalone(), source);
}

#[test]
fn what_a_stream_may_not_hold_is_refused() {
    for source in ["<a><!-- c --></a>", "<a><?p i?></a>", "<!DOCTYPE a><a/>", "<a>&own;</a>"] {
        assert!(matches!(Element::parse(source.as_bytes()), Err(TreeError::Restricted)), "{source}");
    }
    for source in ["", "<a/><b/>", "<a></b>", "<a", "<p:a/>", "<a b='1' b='2'/>", "text", "<a/>text"] {
        assert!(Element::parse(source.as_bytes()).is_err(), "{source}");
    }
}

#[test]
fn depth_and_count_are_bounded() {
    let deep = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
    assert!(Element::parse(deep(MAX_DEPTH).as_bytes()).is_ok());
    assert!(matches!(Element::parse(deep(MAX_DEPTH + 1).as_bytes()), Err(TreeError::TooLarge)));
    let copy = format!("<copy><m>{}</m></copy>", "<b/>".repeat(MAX_ELEMENTS / 3));
    assert!(Element::parse(format!("<a>{}</a>", copy.repeat(2)).as_bytes()).is_ok());
    assert!(matches!(Element::parse(format!("<a>{}</a>", copy.repeat(3)).as_bytes()), Err(TreeError::TooLarge)));
    let wide = format!("<a>{}</a>", "<b/>".repeat(MAX_ELEMENTS));
    assert!(matches!(Element::parse(wide.as_bytes()), Err(TreeError::TooLarge)));
}
