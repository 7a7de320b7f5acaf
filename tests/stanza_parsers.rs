//! Every parser behind the doors, on stanzas made of the words that they know in every order, and on damaged ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

#[path = "../fuzz/read_everything.rs"]
mod read_everything;

use proptest::prelude::*;
use read_everything::read_everything;

const NAMESPACES: [&str; 15] = [
    "",
    "jabber:client",
    "urn:xmpp:omemo:2",
    "eu.siacs.conversations.axolotl",
    "http://jabber.org/protocol/pubsub",
    "http://jabber.org/protocol/pubsub#owner",
    "http://jabber.org/protocol/pubsub#publish-options",
    "jabber:x:data",
    "urn:xmpp:mam:2",
    "http://jabber.org/protocol/rsm",
    "urn:xmpp:sid:0",
    "urn:xmpp:hints",
    "urn:xmpp:ephemeral:0",
    "urn:multiend:0",
    "http://jabber.org/protocol/disco#items",
];

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "pubsub",
        "items",
        "item",
        "publish",
        "publish-options",
        "retract",
        "subscribe",
        "unsubscribe",
        "delete",
        "configure",
        "subscriptions",
        "claim",
        "account",
        "add-device",
        "remove-device",
        "stock",
        "check",
        "prekey",
        "query",
        "metadata",
        "x",
        "field",
        "value",
        "set",
        "max",
        "after",
        "before",
        "index",
        "bundle",
        "spk",
        "spks",
        "ik",
        "prekeys",
        "pk",
        "devices",
        "list",
        "device",
        "encrypted",
        "header",
        "keys",
        "key",
        "payload",
        "iv",
        "body",
        "stanza-id",
        "store",
        "no-store",
        "ephemeral",
        "p:thing",
    ])
}

fn attribute() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "id",
        "node",
        "jid",
        "rid",
        "sid",
        "kex",
        "prekey",
        "var",
        "type",
        "max_items",
        "label",
        "labelsig",
        "by",
        "timer",
        "queryid",
        "signedPreKeyId",
        "protocol",
        "device",
        "strict",
        "xml:lang",
    ]);
    let value = prop_oneof![
        prop::sample::select(vec![
            "0",
            "1",
            "2",
            "2147483647",
            "2147483648",
            "-1",
            "current",
            "c@d",
            r"c\40d@m",
            "urn:xmpp:omemo:2:devices",
            "urn:xmpp:omemo:2:bundles",
            "eu.siacs.conversations.axolotl.devicelist",
            "eu.siacs.conversations.axolotl.bundles:1",
            "with",
            "start",
            "ids",
            "before-id",
            "pubsub#access_model",
            "urn:xmpp:omemo:2",
            "eu.siacs.conversations.axolotl",
            "true",
        ])
        .prop_map(str::to_owned),
        "[ -~é]{0,12}".prop_map(|text| text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")),
    ];
    (key, value).prop_map(|(key, value)| format!(" {key}='{value}'"))
}

fn element() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        Just(String::new()),
        "[A-Za-z0-9+/]{43}=",
        "[A-Za-z0-9+/]{86}==",
        Just("<![CDATA[<raw> & text]]>".to_owned()),
        Just("2026-01-31T12:00:00Z".to_owned()),
        Just("&lt;&#233;&amp;".to_owned()),
    ];
    let start = (name(), prop::sample::select(NAMESPACES.to_vec()), prop::collection::hash_set(attribute(), 0..4))
        .prop_map(|(name, namespace, attributes)| {
            let mut keys = std::collections::BTreeSet::new();
            let attributes: String =
                attributes.into_iter().filter(|text| keys.insert(text.split('=').next().unwrap().to_owned())).collect();
            let declared = if namespace.is_empty() { String::new() } else { format!(" xmlns='{namespace}'") };
            let prefix = if name.contains(':') { " xmlns:p='urn:p'" } else { "" };
            (name, format!("{name}{declared}{prefix}{attributes}"))
        });
    let start = start.boxed();
    let leaf = (start.clone(), text).prop_map(|((name, tag), text)| format!("<{tag}>{text}</{name}>"));
    leaf.prop_recursive(6, 48, 6, move |inner| {
        (start.clone(), prop::collection::vec(inner, 0..6)).prop_map(|((name, tag), children)| match children.len() {
            0 => format!("<{tag}/>"),
            _ => format!("<{tag}>{}</{name}>", children.concat()),
        })
    })
}

fn stanza() -> impl Strategy<Value = String> {
    let kind = prop::sample::select(vec![
        "iq type='get'",
        "iq type='set'",
        "message type='chat'",
        "message",
        "message type='error'",
    ]);
    (kind, prop::collection::vec(element(), 0..4)).prop_map(|(kind, children)| {
        let name = kind.split(' ').next().unwrap();
        format!("<{kind} id='i' from='a@b/r' to='c@d'>{}</{name}>", children.concat())
    })
}

/// A piece of a message in one of the many ways in which it can be written.
fn piece() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        "[a-zé漢字🙂 ]{0,12}",
        Just("&lt;b&gt; &amp; &#x1F642; &#233;&apos;&quot;".to_owned()),
        Just("<![CDATA[<not> & an ]] element]]>".to_owned()),
        Just("\r\n\t two  spaces ".to_owned()),
        Just("שלום \u{202e}عالم\u{202c}".to_owned()),
    ];
    let pieces: Vec<(&str, &str)> = vec![
        ("<body>", "</body>"),
        ("<body xml:lang='ja'>", "</body>"),
        ("<body xml:lang=\"he\"\n>", "</body >"),
        ("<subject xml:lang = 'de'>", "</subject>"),
        ("<p:thing xmlns:p='urn:p' p:a=\"'\" b='\"'>", "</p:thing>"),
        ("<thing xmlns='urn:unheard-of' xmlns:q='urn:q'><q:inner q:x='1'/>", "</thing>"),
        ("<x xmlns='http://jabber.org/protocol/muc#user'>", "</x>"),
        ("<message xmlns='urn:other'><from/>", "</message>"),
        ("<stanza-id xmlns='urn:xmpp:sid:0' by='other@example.org' id='1'>", "</stanza-id>"),
        ("<origin-id xmlns='urn:xmpp:sid:0' id='o'/>", ""),
        ("<empty\t/>", ""),
    ];
    (prop::sample::select(pieces), text).prop_map(|((open, close), text)| match close {
        "" => open.to_owned(),
        close => format!("{open}{text}{close}"),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Archive invariant 4: what goes in comes out byte for byte, but for the addresses, the stream's namespace and the ids
    /// that only we give.
    #[test]
    fn archive_4_bytes_are_kept_as_they_came(
        pieces in prop::collection::vec(piece(), 0..6),
        attributes in prop::sample::subsequence(
            vec![" type='chat'", " id=\"a'1\"", "\n\txml:lang = 'en'", " xmlns:z='urn:z'", " z:y='&#38;&lt;'"], 0..=4),
        addresses in prop::sample::select(vec![
            (" from='a@b/c' to='d@e'", ""), (" from=\"a@b/c\"", " to = 'd@e'"), (" to='d@e'", "\nfrom='a@b/c'"),
        ]),
        declared in any::<bool>(),
        ours in prop::sample::subsequence(vec![0_usize, 1, 2, 3, 4, 5], 0..=2),
        unaddressed_tail in prop::sample::select(vec![">", " >", "\n>"]),
    ) {
        prop_assume!(!attributes.contains(&" z:y='&#38;&lt;'") || attributes.contains(&" xmlns:z='urn:z'"));
        let own = jid::BareJid::new("d@e").unwrap();
        let forged = "<stanza-id xmlns='urn:xmpp:sid:0' by='D@e' id='forged'/>";
        let (mut content, mut kept) = (String::new(), String::new());
        for (place, piece) in pieces.iter().enumerate() {
            if ours.contains(&place) {
                content.push_str(forged);
            }
            content.push_str(piece);
            kept.push_str(piece);
        }
        let stream = if declared { " xmlns='jabber:client'" } else { "" };
        let attributes = attributes.concat();
        let source = format!(
            "<message{}{stream}{attributes}{}{unaddressed_tail}{content}</message>", addresses.0, addresses.1
        );
        let expected = format!("<message{attributes}{unaddressed_tail}{kept}</message>");
        let element = multiend::stanza::tree::Element::parse(source.as_bytes()).unwrap();
        let message = multiend::stanza::message::Message::split(&element, &[&own]).unwrap();
        prop_assert_eq!(std::str::from_utf8(&message.body).unwrap(), &expected);
        let given =
            multiend::stanza::message::assemble(&message.body, Some("a@b/c"), Some("d@e"), Some("jabber:client"), "")
                .unwrap();
        let expected = expected.replacen("<message", "<message xmlns='jabber:client' from='a@b/c' to='d@e'", 1);
        prop_assert_eq!(given, expected);
    }

    #[test]
    fn what_is_made_of_known_words_is_read_without_harm(stanza in stanza()) {
        read_everything(stanza.as_bytes());
    }

    /// As a server's stock modules hand it over: an answer repeats addresses and id as they were.
    #[test]
    fn what_a_server_forwards_is_answered_in_its_own_words(stanza in stanza(), id in "[ -%(-;=?-~é]{0,12}", version in 1..=2) {
        let stanza = stanza.replacen(" id='i'", &format!(" id='{id}'"), 1);
        let stanza = stanza.replacen(" id=", " xmlns='jabber:client' id=", 1);
        read_everything(
            format!(
                "<iq type='set' id='o' from='b' to='m'><delegation xmlns='urn:xmpp:delegation:{version}'>\
                 <forwarded xmlns='urn:xmpp:forward:0'>{stanza}</forwarded></delegation></iq>"
            )
            .as_bytes(),
        );
    }

    #[test]
    fn what_is_damaged_is_read_without_harm(stanza in stanza(), cut in any::<prop::sample::Index>(), junk in "[<>&'\"/=! \\x00-\\x1f]{0,3}") {
        let mut bytes = stanza.into_bytes();
        let at = cut.index(bytes.len());
        bytes.splice(at..at, junk.into_bytes());
        read_everything(&bytes);
    }
}
