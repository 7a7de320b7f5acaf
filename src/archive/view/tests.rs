use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const OWNER: &str = "alice@example.org";

fn viewer(legacy: &[u32], omemo2: &[u32]) -> Viewer {
    let ids = |ids: &[u32]| ids.iter().map(|id| DeviceId::new(*id).unwrap()).collect::<Vec<_>>();
    Viewer::new(Owner::parse(OWNER).unwrap())
        .with_devices(Protocol::Legacy, ids(legacy))
        .with_devices(Protocol::Omemo2, ids(omemo2))
}

fn view(viewer: &Viewer, body: &str) -> (String, usize, Vec<Protocol>) {
    let view = viewer.view(&Bytes::from(body.to_owned())).unwrap();
    (String::from_utf8(view.body.to_vec()).unwrap(), view.saved, view.not_for_viewer)
}

/// As a legacy client sends it: two devices of the peer, a sibling, a key exchange.
const LEGACY: &str = "<message type='chat' id='p1'><body>You received a message encrypted with OMEMO</body>\
    <encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='100'><key rid='1'>QUFB</key>\
    <key prekey='true' rid='2'>QkJC</key><key rid='3'>Q0ND</key><iv>SVY=</iv></header><payload>UEFZ</payload></encrypted>\
    <store xmlns='urn:xmpp:hints'/></message>";

/// As a client of the current protocol sends it.
const OMEMO2: &str = "<message type='chat' id='t1'><encrypted xmlns='urn:xmpp:omemo:2'><header sid='100'>\
    <keys jid='bob@example.org'><key rid='1'>QUFB</key><key rid='2' kex='true'>QkJC</key></keys>\
    <keys jid='alice@example.org'><key rid='3'>Q0ND</key><key rid='1'>RERE</key></keys></header>\
    <payload>UEFZ</payload></encrypted><origin-id xmlns='urn:xmpp:sid:0' id='o1'/></message>";

#[test]
fn a_legacy_message_keeps_the_viewers_header_only() {
    let expected = LEGACY.replace("<key rid='1'>QUFB</key>", "").replace("<key rid='3'>Q0ND</key>", "");
    let saved = LEGACY.len() - expected.len();
    assert_eq!(view(&viewer(&[2], &[]), LEGACY), (expected, saved, vec![]));
}

#[test]
fn a_current_message_loses_whole_groups_of_other_accounts() {
    // Bob's device 1 has the number of one of alice's: it is the account that counts.
    let expected = OMEMO2
        .replace("<keys jid='bob@example.org'><key rid='1'>QUFB</key><key rid='2' kex='true'>QkJC</key></keys>", "")
        .replace("<key rid='3'>Q0ND</key>", "");
    let saved = OMEMO2.len() - expected.len();
    assert_eq!(view(&viewer(&[], &[1]), OMEMO2), (expected, saved, vec![]));
}

#[test]
fn the_owners_group_may_name_its_alias() {
    let aliased = OMEMO2.replace("alice@example.org", "alice\\40example.org@multiend.example.org");
    let (seen, _, not_for_viewer) = view(&viewer(&[], &[3]), &aliased);
    assert!(seen.contains("<key rid='3'>Q0ND</key>") && !seen.contains("QUFB") && not_for_viewer.is_empty());
}

#[test]
fn a_session_of_several_devices_keeps_the_headers_of_all() {
    let (seen, saved, _) = view(&viewer(&[1, 3], &[]), LEGACY);
    assert_eq!((seen.matches("<key ").count(), saved), (2, "<key prekey='true' rid='2'>QkJC</key>".len()));
}

#[test]
fn a_device_for_which_there_is_no_header_is_noted() {
    let (seen, _, not_for_viewer) = view(&viewer(&[9], &[]), LEGACY);
    assert!(!seen.contains("<key ") && seen.contains("<iv>SVY=</iv></header><payload>UEFZ</payload>"));
    assert_eq!(not_for_viewer, [Protocol::Legacy]);
    let (seen, _, not_for_viewer) = view(&viewer(&[], &[9]), OMEMO2);
    assert!(seen.contains("<header sid='100'></header>"));
    assert_eq!(not_for_viewer, [Protocol::Omemo2]);
}

/// Invariant 4: what has no header for the viewer is trimmed, kept or left out, as asked; and never left out before it is
/// certain that whoever wrote it knew of the device.
#[test]
fn what_the_viewer_cannot_read_is_given_as_asked() {
    for (body, viewer, protocol) in
        [(LEGACY, viewer(&[9], &[]), Protocol::Legacy), (OMEMO2, viewer(&[], &[9]), Protocol::Omemo2)]
    {
        let view = |viewer: Viewer| viewer.view(&Bytes::from(body)).unwrap();
        let kept = view(viewer.clone().with_unreadable(Unreadable::Keep));
        assert_eq!((kept.body, kept.saved, kept.omit), (Bytes::from(body), 0, false));
        let trimmed = view(viewer.clone());
        assert!(trimmed.saved > 0 && !trimmed.omit);
        let omitting = viewer.with_unreadable(Unreadable::Omit);
        assert!(!view(omitting.clone()).omit, "the device is not known to be registered");
        let omitted = view(omitting.registered(protocol));
        assert!(omitted.omit);
        assert_eq!(omitted.body, trimmed.body, "what is given where something has to be");
    }
}

#[test]
fn what_may_be_of_use_is_never_left_out() {
    let omitting = |legacy: &[u32], omemo2: &[u32]| {
        viewer(legacy, omemo2)
            .with_unreadable(Unreadable::Omit)
            .registered(Protocol::Legacy)
            .registered(Protocol::Omemo2)
    };
    let both = OMEMO2.replace(
        "<origin-id",
        &format!("{}<origin-id", LEGACY.split_once("</body>").unwrap().1.split_once("<store").unwrap().0),
    );
    for (what, viewer, body) in [
        ("readable", omitting(&[2], &[]), LEGACY.to_owned()),
        ("sent by the device itself", omitting(&[100], &[]), LEGACY.to_owned()),
        ("readable in the other protocol", omitting(&[2], &[9]), both.clone()),
        ("perhaps readable in the other protocol", omitting(&[9], &[]), both.clone()),
        ("in clear", omitting(&[9], &[9]), "<message><body>x</body></message>".to_owned()),
        (
            "encrypted otherwise too",
            omitting(&[9], &[]),
            LEGACY.replace("<store", "<openpgp xmlns='urn:xmpp:openpgp:0'>QQ==</openpgp><store"),
        ),
    ] {
        assert!(!viewer.view(&Bytes::from(body)).unwrap().omit, "{what}");
    }
    assert!(omitting(&[9], &[9]).view(&Bytes::from(both)).unwrap().omit);
}

/// Invariant 4: a view trims only where the mapping from session to device is certain.
#[test]
fn without_certainty_everything_is_given() {
    for body in [LEGACY, OMEMO2] {
        assert_eq!(view(&viewer(&[], &[]), body), (body.to_owned(), 0, vec![]));
    }
    // Known in one protocol says nothing about the other.
    assert_eq!(view(&viewer(&[], &[1]), LEGACY), (LEGACY.to_owned(), 0, vec![]));
    assert_eq!(view(&viewer(&[1], &[]), OMEMO2), (OMEMO2.to_owned(), 0, vec![]));
    assert!(viewer(&[1], &[]).view(&Bytes::from_static(b"<message")).is_err());
}

/// A piece of a message, and the device (and account) that it is a header for.
#[derive(Debug, Clone)]
enum Piece {
    Opaque(&'static str),
    Header { text: String, rid: u32 },
}

fn header_pieces() -> impl Strategy<Value = Vec<Piece>> {
    let header = (
        1_u32..6,
        select(vec!["", " prekey='true'", " kex=\"1\"", " x='>'"]),
        select(vec!["QUFB", "", "<![CDATA[Q</key>]]>", "&#65;", " \nQQ==\n "]),
        any::<bool>(),
    )
        .prop_map(|(rid, flag, data, flag_first)| {
            let text = if flag_first {
                format!("<key{flag} rid='{rid}'>{data}</key>")
            } else {
                format!("<key  rid = \"{rid}\"{flag} >{data}</key >")
            };
            Piece::Header { text, rid }
        });
    let opaque = select(vec!["\n  ", "<other xmlns='urn:x' rid='1'/>", "<key>no rid</key>", "<key rid='0'>zero</key>"])
        .prop_map(Piece::Opaque);
    proptest::collection::vec(prop_oneof![3 => header, 1 => opaque], 0..12)
}

fn written(pieces: &[Piece], keeps: impl Fn(u32) -> bool) -> String {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Opaque(text) => (*text).to_owned(),
            Piece::Header { text, rid } => {
                if keeps(*rid) {
                    text.clone()
                } else {
                    String::new()
                }
            }
        })
        .collect()
}

proptest! {
    /// Invariant 4: all that is not a header for another device keeps its bytes and its place.
    #[test]
    fn only_foreign_headers_go(
        legacy in header_pieces(),
        groups in proptest::collection::vec((any::<bool>(), header_pieces()), 0..4),
        own_legacy in proptest::collection::btree_set(1_u32..6, 0..3),
        own_omemo2 in proptest::collection::btree_set(1_u32..6, 0..3),
        around in select(vec!["", "<body>x &amp; <![CDATA[<key rid='1'/>]]></body>", "<a:b xmlns:a='urn:a' c=\"'\"/>\n"]),
    ) {
        let message = |trimmed: bool| {
            let legacy_keys = written(&legacy, |rid| !trimmed || own_legacy.is_empty() || own_legacy.contains(&rid));
            let groups: String = groups
                .iter()
                .map(|(own, pieces)| {
                    let all = !trimmed || own_omemo2.is_empty();
                    let keeps = |rid: u32| all || (*own && own_omemo2.contains(&rid));
                    let survives = pieces.iter().any(|piece| match piece {
                        Piece::Opaque(text) => !text.trim().is_empty(),
                        Piece::Header { rid, .. } => keeps(*rid),
                    });
                    let jid = if *own { OWNER } else { "bob@example.org" };
                    let keys = written(pieces, keeps);
                    if all || survives { format!("<o:keys jid='{jid}'>{}</o:keys>", prefixed(&keys)) } else { String::new() }
                })
                .collect();
            format!(
                "<message type='chat'>{around}\
                 <encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='5'>{legacy_keys}<iv>SVY=</iv></header>\
                 <payload/></encrypted>{around}\
                 <o:encrypted xmlns:o='urn:xmpp:omemo:2'><o:header sid='5'>{groups}</o:header></o:encrypted></message>"
            )
        };
        let ids = |ids: &std::collections::BTreeSet<u32>| ids.iter().copied().collect::<Vec<_>>();
        let viewer = viewer(&ids(&own_legacy), &ids(&own_omemo2));
        let (whole, expected) = (message(false), message(true));
        let (seen, saved, _) = view(&viewer, &whole);
        prop_assert_eq!(&seen, &expected);
        prop_assert_eq!(saved, whole.len() - expected.len());
        // What was trimmed once stays as it is.
        prop_assert_eq!(view(&viewer, &seen).0, seen);
    }
}

/// The same headers in a prefixed document.
fn prefixed(keys: &str) -> String {
    keys.replace("<key", "<o:key").replace("</key", "</o:key").replace("<![CDATA[Q</o:key>]]>", "<![CDATA[Q</key>]]>")
}
