use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

fn split(source: &str) -> Message {
    Message::split(&Element::parse(source.as_bytes()).unwrap(), &[]).unwrap()
}

fn body(source: &str) -> String {
    String::from_utf8(split(source).body.to_vec()).unwrap()
}

#[test]
fn takes_addresses_and_the_streams_namespace_off_and_nothing_else() {
    let source = "<message xmlns='jabber:client' from='a@x/r' type=\"chat\"  to='b@x' id='1&amp;' xml:lang='de'\n\
        xmlns:p='urn:p'><body>hi</body><p:q to='c'/></message>";
    let message = split(source);
    assert_eq!(
        std::str::from_utf8(&message.body).unwrap(),
        "<message type=\"chat\" id='1&amp;' xml:lang='de'\nxmlns:p='urn:p'><body>hi</body><p:q to='c'/></message>"
    );
    assert_eq!(message.kind, MessageType::Chat);
    assert_eq!((message.id.as_deref(), message.lang.as_deref()), (Some("1&"), Some("de")));
    assert_eq!(message.from.unwrap().as_str(), "a@x/r");
    assert_eq!(message.to.unwrap().as_str(), "b@x");
}

#[test]
fn assembles_for_the_stream_and_for_forwarding() {
    let bytes = body("<message from='a@x/r' to='b@x' id='1'><body>hi</body></message>");
    assert_eq!(
        assemble(bytes.as_bytes(), Some("o'a@x"), Some("b@x"), Some("jabber:client"), "<z xmlns='urn:z'/>").unwrap(),
        "<message xmlns='jabber:client' from='o&apos;a@x' to='b@x' id='1'><body>hi</body><z xmlns='urn:z'/></message>"
    );
    assert_eq!(assemble(bytes.as_bytes(), None, None, None, "").unwrap(), bytes);
}

#[test]
fn messages_that_close_themselves() {
    for (source, alone) in [("<message to='a'/>", "<message/>"), ("<message to='a' id='1' />", "<message id='1' />")] {
        let bytes = body(source);
        assert_eq!(bytes, alone);
        let with = assemble(bytes.as_bytes(), None, Some("b"), None, "<z/>").unwrap();
        let tree = Element::parse(with.as_bytes()).unwrap();
        assert_eq!((tree.attribute("to"), tree.children().len()), (Some("b"), 1));
    }
    // The last child closing itself is another matter.
    let bytes = body("<message to='a'><b/></message >");
    assert_eq!(assemble(bytes.as_bytes(), None, None, None, "<z/>").unwrap(), "<message><b/><z/></message >");
}

#[test]
fn cuts_forged_stanza_ids_however_they_are_written() {
    let alice = BareJid::new("alice@example.org").unwrap();
    let bob = BareJid::new("bob@example.org").unwrap();
    let source = "<message from='x@y'><stanza-id xmlns='urn:xmpp:sid:0' by='alice@example.org' id='forged'/>\
        <body>hi</body><s:stanza-id xmlns:s=\"urn:xmpp:sid:0\" id='2' by='ALICE@Example.org'></s:stanza-id>\
        <stanza-id xmlns='urn:xmpp:sid:0' by='bob@example.org' id='3'/>\
        <stanza-id xmlns='urn:xmpp:sid:0' by='room@muc.example.org' id='theirs'/>\
        <stanza-id xmlns='urn:other' by='alice@example.org' id='4'/>\
        <origin-id xmlns='urn:xmpp:sid:0' id='5'/>\
        <f><stanza-id xmlns='urn:xmpp:sid:0' by='alice@example.org' id='inner'/></f></message>";
    let tree = Element::parse(source.as_bytes()).unwrap();
    let message = Message::split(&tree, &[&alice, &bob]).unwrap();
    assert_eq!(
        std::str::from_utf8(&message.body).unwrap(),
        "<message><body>hi</body>\
        <stanza-id xmlns='urn:xmpp:sid:0' by='room@muc.example.org' id='theirs'/>\
        <stanza-id xmlns='urn:other' by='alice@example.org' id='4'/>\
        <origin-id xmlns='urn:xmpp:sid:0' id='5'/>\
        <f><stanza-id xmlns='urn:xmpp:sid:0' by='alice@example.org' id='inner'/></f></message>"
    );
}

#[test]
fn what_is_no_message_is_refused() {
    let error = |source: &str| Message::split(&Element::parse(source.as_bytes()).unwrap(), &[]).unwrap_err();
    assert!(matches!(error("<iq to='a'/>"), MessageError::NotAMessage));
    assert!(matches!(error("<message xmlns='urn:other'/>"), MessageError::NotAMessage));
    assert!(matches!(error("<c:message xmlns:c='jabber:client'/>"), MessageError::Prefixed));
    assert!(matches!(error("<message to='@'/>"), MessageError::Address("to")));
    for bytes in ["", "<messages/>", "<iq/>", "<message", "text"] {
        let assembled = assemble(bytes.as_bytes(), Some("a"), None, None, "<z/>");
        assert_eq!(assembled, Err(NotABody), "{bytes}");
    }
    assert_eq!(assemble(b"<message>\xff</message>", None, None, None, ""), Err(NotABody));
}

/// One attribute of a start tag as written, and whether it belongs to the body.
fn attributes() -> impl Strategy<Value = Vec<(String, bool)>> {
    let kept = select(vec![
        "type='chat'",
        "id=\"it's &lt;1&gt; > 0\"",
        "xml:lang = 'en'",
        "xmlns:p='urn:example:p'",
        "to2='kept'",
        "p='/>'",
    ]);
    let gone = select(vec!["from='a@example.org/r&amp;d'", "to = \"b@example.org\"", "xmlns='jabber:client'"]);
    let spaces = select(vec![" ", "  ", "\n", "\t "]);
    let one = prop_oneof![(kept, Just(true)), (gone, Just(false))];
    proptest::collection::vec((spaces, one), 0..7).prop_map(|attributes| {
        let mut seen = std::collections::BTreeSet::new();
        attributes
            .into_iter()
            .filter(|(_, (text, _))| seen.insert(text.split(['=', ' ']).next().unwrap_or_default().to_owned()))
            .map(|(spaces, (text, kept))| (format!("{spaces}{text}"), kept))
            .collect()
    })
}

fn content() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "<body>plain</body>",
        "<body xml:lang='de'>zwei &amp; <![CDATA[<message to='x'>]]></body>",
        "<body xml:lang=\"de\">the same language again</body>",
        "<x:y xmlns:x='urn:x' a=\"'\" b='\"'><x:z/></x:y>",
        "<unknown xmlns='urn:example:unknown'><from to='1'/></unknown>",
        "<message xmlns='jabber:client' to='inner'/>",
        "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'/></encrypted>",
        "&#x1F512;",
        "\n  text between \u{e9}\u{1f600} ",
        "<![CDATA[</message>]]>",
        "<e/>",
    ]);
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Invariant 4: the message is opaque; its bytes are kept as they came.
    #[test]
    fn splitting_and_assembling_keep_every_other_byte(
        attributes in attributes(),
        content in content(),
        end in select(vec!["</message>", "</message >", ""]),
    ) {
        let written = |only_kept: bool| {
            let tag: String =
                attributes.iter().filter(|(_, kept)| !only_kept || *kept).map(|(text, _)| text.as_str()).collect();
            if end.is_empty() { format!("<message{tag}/>") } else { format!("<message{tag}>{content}{end}") }
        };
        let source = written(false);
        let message = split(&source);
        let bytes = std::str::from_utf8(&message.body).unwrap();
        prop_assert_eq!(bytes, written(true));

        // A second pass through the component changes nothing more.
        prop_assert_eq!(body(bytes), bytes);

        let extra = "<stanza-id xmlns='urn:xmpp:sid:0' by='a@example.org' id='1'/>";
        let whole = assemble(&message.body, Some("a@x"), Some("b@x"), Some("jabber:client"), extra).unwrap();
        let tree = Element::parse(whole.as_bytes()).unwrap();
        prop_assert_eq!(tree.attribute("from"), Some("a@x"));
        prop_assert_eq!(tree.attribute("to"), Some("b@x"));
        let inside = &whole[tree.content_span()];
        prop_assert_eq!(inside, if end.is_empty() { extra.to_owned() } else { format!("{content}{extra}") });
        let again = split(&whole);
        let bare = assemble(&message.body, None, None, None, extra).unwrap();
        prop_assert_eq!(bare.as_bytes(), again.body.as_ref());
    }

    #[test]
    fn nothing_outside_makes_it_panic(text in "[<>/='\" a-z:&;\\PC]{0,60}") {
        let _ = assemble(text.as_bytes(), Some("a"), None, Some("n"), "<z/>");
        let source = format!("<message {text}</message>");
        if let Ok(tree) = Element::parse(source.as_bytes()) {
            let _ = Message::split(&tree, &[]);
        }
    }

    #[test]
    fn any_cut_of_a_message_is_an_error_or_a_body(at in any::<Index>()) {
        let source = "<message from='a@x' to='b@x'><body>hi</body></message>";
        let part = &source[..at.index(source.len())];
        prop_assert!(Element::parse(part.as_bytes()).is_err());
        let _ = assemble(part.as_bytes(), Some("a"), None, None, "<z/>");
    }
}
