use super::*;

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns:x='urn:x' from='m.example' id='&lt;1&gt;'>";

fn small() -> Limits {
    Limits { stanza_bytes: 400, depth: 5, elements: 12, attributes: 4, attribute_bytes: 60 }
}

/// Feeds the pieces one after the other, and gives all events and the fault that ended them.
fn events<'a>(limits: Limits, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Option<Fault>) {
    let mut framer = Framer::new(limits);
    let mut events = Vec::new();
    for piece in pieces {
        framer.feed(piece);
        loop {
            match framer.next_event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(fault) => return (events, Some(fault)),
            }
        }
        let most = limits.stanza_bytes.max(usize::try_from(HEADER_BYTES).unwrap()) + piece.len();
        assert!(framer.held_bytes() <= most, "{} bytes held", framer.held_bytes());
    }
    (events, None)
}

/// The events of a stream with this body, the header's own aside.
fn body(limits: Limits, body: &str) -> (Vec<Event>, Option<Fault>) {
    let stream = [HEADER, body].concat();
    let (mut all, fault) = events(limits, [stream.as_bytes()]);
    assert!(matches!(all.first(), Some(Event::Open(_))));
    all.remove(0);
    (all, fault)
}

fn elements(events: &[Event]) -> Vec<&str> {
    let element = |event| match event {
        &Event::Element(RawElement { ref bytes, .. }) => std::str::from_utf8(bytes).ok(),
        _ => None,
    };
    events.iter().filter_map(element).collect()
}

fn refusal(text: &str) -> Refusal {
    let (events, fault) = body(small(), &format!("{text}<iq id='next'/>"));
    assert_eq!(fault, None);
    assert_eq!(elements(&events), ["<iq id='next'/>"], "the stream goes on after {text}");
    match &events[0] {
        Event::Refused(refusal) if events.len() == 2 => refusal.clone(),
        other => panic!("{other:?} instead of a refusal"),
    }
}

/// Everything that a stream can hold, and several stanzas that break limits.
fn everything() -> String {
    let long = "y".repeat(61);
    let body = [
        " \n<message from='a@b/c>d' to=\"it's\" id='ü'><body>ä &amp; &#x20AC; ]] &gt;</body><ü-1.x/></message>",
        "<iq\ttype = 'get' ><q xmlns='u:q'\n><![CDATA[</iq> ]] ]]]>]></q ></iq\n>\n\n",
        "<presence/><x:own/><message><a><b><c><d><e/></d></c></b></a></message><iq><a x:y='1'/><x:b/></iq>",
        &format!("<message id='1' n='{long}' from='a' to='&quot;b'><body/></message>"),
        &format!("<message><body>{}</body></message>", "€".repeat(140)),
        &format!("<message from='a'><{long}/></message><{long} from='b'><{long}></{long}></{long}>"),
        "<message a='' b='' c='' d='' from='e' to='f'/><iq><a/><a/><a/><a/><a/><a/><a/><a/><a/><a/><a/><a/></iq>",
        "<iq id='ns'><no:prefix/></iq><stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
    ];
    [HEADER, &body.concat(), "</stream:stream>"].concat()
}

#[test]
fn how_the_bytes_are_cut_makes_no_difference() {
    let text = everything();
    let whole = events(small(), [text.as_bytes()]);
    assert_eq!(whole.1, None);
    assert_eq!(whole.0.last(), Some(&Event::Close));
    let refused: Vec<_> = whole.0.iter().filter(|event| matches!(event, Event::Refused(_))).collect();
    assert_eq!(refused.len(), 8, "{refused:#?}");
    assert_eq!(elements(&whole.0).len(), 5);
    for cut in 0..=text.len() {
        let (front, back) = text.as_bytes().split_at(cut);
        assert_eq!(events(small(), [front, back]), whole, "cut at {cut}");
    }
    for size in [1, 2, 3, 7] {
        assert_eq!(events(small(), text.as_bytes().chunks(size)), whole, "pieces of {size}");
    }
}

#[test]
fn the_header_gives_the_stream_id_with_its_entities_resolved() {
    let (events, fault) = events(small(), [HEADER.as_bytes()]);
    assert_eq!(fault, None);
    let [Event::Open(header)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(header.id(), Some("<1>"));
    assert_eq!(header.attribute("xmlns"), Some("jabber:component:accept"));
}

#[test]
fn elements_come_as_they_are() {
    let stanza = "<message to='a'><b x=\"1>\"/><![CDATA[<]]></message>";
    let (events, fault) = body(Limits::default(), &format!("{stanza} \n {stanza}<handshake/>"));
    assert_eq!((elements(&events), fault), (vec![stanza, stanza, "<handshake/>"], None));
}

#[test]
fn a_prefix_of_the_header_is_declared_on_the_stanza_that_uses_it() {
    let (events, _) = body(
        Limits::default(),
        "<message><x:a x:b=''/><stream:c/></message><x:own/><iq xmlns:x='other'><x:a/></iq><iq><a xmlns:x='o'/><x:b/></iq>",
    );
    assert_eq!(
        elements(&events),
        [
            "<message xmlns:x='urn:x' xmlns:stream='http://etherx.jabber.org/streams'><x:a x:b=''/><stream:c/></message>",
            "<x:own xmlns:x='urn:x'/>",
            "<iq xmlns:x='other'><x:a/></iq>",
            "<iq xmlns:x='urn:x'><a xmlns:x='o'/><x:b/></iq>",
        ]
    );
}

#[test]
fn a_stanza_of_exactly_the_limits_passes() {
    let fill = "x".repeat(400 - "<message><a><b><c><d/></c></b></a></message>".len());
    let (events, fault) = body(small(), &format!("<message><a><b><c><d/>{fill}</c></b></a></message>"));
    assert_eq!((elements(&events).len(), fault), (1, None));
    assert_eq!(
        refusal(&format!("<message><a><b><c><d/>x{fill}</c></b></a></message>")).reason,
        RefusalReason::StanzaBytes
    );
    let value = "x".repeat(58);
    assert_eq!(
        elements(&body(small(), &format!("<iq a='{value}' b='' c='' d=''/>")).0).len(),
        0,
        "name and quote count"
    );
    let value = "x".repeat(57);
    assert_eq!(elements(&body(small(), &format!("<iq a='{value}' b='' c='' d=''/>")).0).len(), 1);
}

#[test]
fn a_refused_stanza_tells_whom_to_answer() {
    let head = |kind, from: &str, to: &str, id: &str| StanzaHead {
        kind: Some(kind),
        from: Some(from.to_owned()),
        to: Some(to.to_owned()),
        id: Some(id.to_owned()),
        stanza_type: None,
        payload: None,
    };
    let long = "x".repeat(100);
    let deep = refusal("<message from='a' id='&#49;' to='b'><a><b><c><d><e><f></f></e></d></c></b></a></message>");
    assert_eq!(deep, Refusal { reason: RefusalReason::Depth, head: head(StanzaKind::Message, "a", "b", "1") });
    let attribute = refusal(&format!("<iq from='a' long='{long}' to='b>' id='1'><q/></iq>"));
    assert_eq!(
        attribute,
        Refusal { reason: RefusalReason::AttributeBytes, head: head(StanzaKind::Iq, "a", "b>", "1") }
    );
    let bytes = refusal(&format!("<message from='a' to='b' id='1'><q>{}</q></message>", long.repeat(5)));
    assert_eq!(bytes, Refusal { reason: RefusalReason::StanzaBytes, head: head(StanzaKind::Message, "a", "b", "1") });
    let many = refusal("<iq a='' b='' c='' from='a' to='b' id='1'/>");
    assert_eq!(many, Refusal { reason: RefusalReason::Attributes, head: head(StanzaKind::Iq, "a", "b", "1") });
    let long_id = refusal(&format!("<iq id='{long}' from='a'/>"));
    assert_eq!((long_id.head.id, long_id.head.from.as_deref()), (None, Some("a")));
}

#[test]
fn namespaces_are_kept_to() {
    for stanza in [
        "<iq><a:b/></iq>",
        "<iq a:b=''/>",
        "<iq><a xmlns:p='u'/><p:b/></iq>",
        "<iq><x:/></iq>",
        "<iq><:x/></iq>",
        "<iq><x:a:b/></iq>",
        "<iq><x:1/></iq>",
        "<iq xmlns:p=''/>",
        "<iq xmlns:xmlns='u'/>",
        "<iq xmlns:xml='u'/>",
        "<iq xmlns:p='http://www.w3.org/XML/1998/namespace'/>",
        "<iq xmlns='http://www.w3.org/2000/xmlns/'/>",
        "<xmlns:iq/>",
    ] {
        assert_eq!(refusal(stanza).reason, RefusalReason::Namespace, "{stanza}");
    }
    let (events, fault) = body(small(), "<iq xml:lang='en' xmlns:xml='http://www.w3.org/XML/1998/namespace'/>");
    assert_eq!((events.len(), fault), (1, None));
}

#[test]
fn what_is_not_restricted_xml_ends_the_stream() {
    let conditions = [
        ("restricted-xml", vec!["<!-- -->", "<?pi?>", "<!DOCTYPE a>", "<a>&nbsp;</a>", "<a><?xml version='1.0'?></a>"]),
        ("restricted-xml", vec!["<a><!-- --></a>", "<a b='&quott;'/>"]),
        ("bad-format", vec!["text", "<a/>&amp;", "<![CDATA[x]]>"]),
        ("not-well-formed", vec!["<a></b>", "<a><b></a></b>", "</stream>", "</stream:strea>", "</stream:streamx>"]),
        (
            "not-well-formed",
            vec!["<a b='' b=''/>", "<a b=''c=''/>", "<a b=c/>", "<a b/>", "<a b='<'/>", "<a/ >", "< a/>"],
        ),
        (
            "not-well-formed",
            vec!["<a>]]></a>", "<a>&;</a>", "<a>&#;</a>", "<a>&#x;</a>", "<a>&#0;</a>", "<a>&#xD800;</a>"],
        ),
        ("not-well-formed", vec!["<1/>", "<a></ a>", "<a></a b>", "<a>\u{0}</a>", "<a>\u{FFFE}</a>", "<a>\u{1B}</a>"]),
        ("not-well-formed", vec!["<a>&#99999999999999999999;</a>", "<a><![CDAT[x]]></a>", "<a>&# 1;</a>", "<a>& </a>"]),
    ];
    for (condition, bodies) in conditions {
        for text in bodies {
            let (_, fault) = body(small(), &format!("<iq/>{text}"));
            assert_eq!(fault.map(Fault::condition), Some(condition), "{text}");
        }
    }
    let long_end = format!("</stream:stream{}", " ".repeat(500));
    assert!(body(small(), &long_end).1.is_some(), "an endless end tag");
}

#[test]
fn what_came_before_broken_bytes_is_read() {
    let mut stream = [HEADER, "<iq/><iq>"].concat().into_bytes();
    stream.extend_from_slice(b"\xFF</iq>");
    let (events, fault) = events(small(), [stream.as_slice()]);
    assert_eq!((elements(&events), fault), (vec!["<iq/>"], Some(Fault::Character)));
}

#[test]
fn headers_that_are_none_are_faults() {
    let long = format!("<stream:stream xmlns:stream='{STREAMS}' a='{}'>", "x".repeat(20_000));
    for (header, fault) in [
        ("<html>", Fault::NotAStream),
        ("<stream:stream xmlns:stream='urn:other'>", Fault::NotAStream),
        ("<stream:stream>", Fault::NotAStream),
        ("HTTP/1.1 400 Bad Request", Fault::TextBetweenStanzas),
        (&*long, Fault::HeaderTooLarge),
    ] {
        assert_eq!(events(small(), [header.as_bytes()]), (vec![], Some(fault)), "{header}");
    }
}

#[test]
fn a_fault_stays_and_nothing_follows_the_close() {
    let mut framer = Framer::new(small());
    framer.feed(b"<html>");
    assert_eq!(framer.next_event(), Err(Fault::NotAStream));
    framer.feed(HEADER.as_bytes());
    assert_eq!(framer.next_event(), Err(Fault::NotAStream));
    let (events, fault) = body(small(), "</stream:stream><iq/>\u{0}");
    assert_eq!((events, fault), (vec![Event::Close], None));
}

#[test]
fn ten_megabytes_are_skipped_in_linear_time_and_without_being_held() {
    let mut framer = Framer::new(Limits::default());
    framer.feed(HEADER.as_bytes());
    assert!(matches!(framer.next_event(), Ok(Some(Event::Open(_)))));
    let mut refused = 0;
    let mut feed = |bytes: &[u8]| {
        framer.feed(bytes);
        while let Some(event) = framer.next_event().unwrap() {
            assert!(matches!(&event, Event::Refused(refusal) if refusal.head.id.as_deref() == Some("1")), "{event:?}");
            refused += 1;
        }
        assert!(framer.held_bytes() <= Limits::default().stanza_bytes + bytes.len());
    };
    // Wide, deep, and one attribute.
    feed(b"<message id='1'>");
    (0..160).for_each(|_| feed("<a/>".repeat(16_384).as_bytes()));
    feed(b"</message><message id='1'>");
    (0..40).for_each(|_| feed("<a>".repeat(16_384).as_bytes()));
    (0..40).for_each(|_| feed("</a>".repeat(16_384).as_bytes()));
    feed(b"</message><message id='1'><b c='");
    (0..160).for_each(|_| feed("x>".repeat(32_768).as_bytes()));
    feed(b"'/></message>");
    assert_eq!(refused, 3);
    assert!(framer.held_bytes() < 64);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic_and_no_cut_a_difference(
            bytes in prop::collection::vec(prop::sample::select(&b"<>/='\"& ;:![]-?#axstream\xC3\xBC\x00\n"[..]), 0..200),
            cuts in prop::collection::vec(0..200_usize, 0..4),
        ) {
            let stream = [HEADER.as_bytes(), b"<a>", &bytes].concat();
            let whole = events(small(), [stream.as_slice()]);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| (HEADER.len() + cut).min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]);
            prop_assert_eq!(events(small(), pieces), whole);
        }
    }
}
