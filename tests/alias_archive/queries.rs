//! Queries as XEP-0313 has them: pages, filters, metadata, and the errors for bad ones.

use minidom::Element;

use crate::asking::{ALICE, BOB, MAM, RSM, Setup, form, query, refused, rsm, send, setup};
use crate::support::xmpp::{Client, error_condition};
use crate::support::{COMPONENT, DOMAIN};

#[tokio::test]
async fn archive_3_pages_run_both_ways_and_filters_narrow_them() {
    let Setup { mut alice, mut bob, prosody, multiend: _multiend } = setup("").await;
    let mut carol = Client::connect(prosody.c2s_port(), DOMAIN, "carol", "phone").await;
    for n in 0..12 {
        send(&mut alice, BOB, &format!("m{n:02}"), "<body>b</body>").await;
    }
    // Carol writes without having published anything: her server vouches for her.
    send(&mut carol, ALICE, "from-carol", "<body>c</body>").await;
    let all = query(&mut alice, ALICE, "").await;
    assert_eq!(all.results.len(), 13);

    let mut forward = Vec::new();
    let mut after = String::new();
    loop {
        let page = query(&mut alice, ALICE, &rsm(&format!("<max>5</max>{after}"))).await;
        forward.extend(page.ids().iter().map(|id| (*id).to_owned()));
        after = format!("<after>{}</after>", page.end("last"));
        if page.complete() {
            break;
        }
        assert_eq!(page.results.len(), 5);
    }
    assert_eq!(forward, all.ids());

    let newest = query(&mut alice, ALICE, &rsm("<max>5</max><before/>")).await;
    assert_eq!(newest.ids(), all.ids()[8..]);
    let before =
        query(&mut alice, ALICE, &rsm(&format!("<max>20</max><before>{}</before>", newest.end("first")))).await;
    assert_eq!(before.ids(), all.ids()[..8]);
    assert!(before.complete() && !newest.complete());

    let with_bob = query(&mut alice, ALICE, &form(&[("with", BOB)])).await;
    assert_eq!(with_bob.results.len(), 12);
    let with_bob_himself = query(&mut alice, ALICE, &form(&[("with", "bob@example.org")])).await;
    assert_eq!(with_bob_himself.ids(), with_bob.ids());
    let nobody = query(&mut bob, BOB, &form(&[("with", "carol@example.org")])).await;
    assert!(nobody.results.is_empty() && nobody.complete());
    let nothing = query(&mut alice, ALICE, &form(&[("end", "2020-01-01T00:00:00Z")])).await;
    assert!(nothing.results.is_empty());
    let everything = query(&mut alice, ALICE, &form(&[("start", "2020-01-01T00:00:00Z")])).await;
    assert_eq!(everything.ids(), all.ids());
    let between = form(&[("after-id", &all.results[2].0), ("before-id", &all.results[6].0)]);
    assert_eq!(query(&mut alice, ALICE, &between).await.ids(), all.ids()[3..6]);
    let flipped = query(&mut alice, ALICE, &format!("{}<flip-page/>", rsm("<max>3</max>"))).await;
    assert_eq!(flipped.ids(), ["m02", "m01", "m00"]);
}

/// What Prosody's own test scripts for its archive expect (spec/scansion/mam_extended.scs and mam_prefs_prep.scs), but for
/// `roster`, which no component knows.
#[tokio::test]
async fn archive_3_behaves_as_prosody_s_own_scripts_expect() {
    let Setup { mut alice, prosody: _prosody, multiend: _multiend, .. } = setup("").await;
    let prefs = format!("<prefs xmlns='{MAM}' default='always'><always/><never/></prefs>");
    let echoed = alice.request("set", Some(ALICE), &prefs).await;
    let echoed = echoed.get_child("prefs", MAM).unwrap();
    assert_eq!((echoed.attr("default"), echoed.children().count()), (Some("always"), 2));
    let shouted = prefs.replace("<always/>", "<always><jid>JULIET@MONTAGUE.LIT</jid></always>");
    let prepared = alice.request("set", Some(ALICE), &shouted).await;
    assert!(String::from(&prepared).contains("<jid>juliet@montague.lit</jid>"));

    send(&mut alice, BOB, "chat01", "<body>Hello</body>").await;
    send(&mut alice, BOB, "chat02", "<body>U there?</body>").await;
    let metadata = alice.request("get", Some(ALICE), &format!("<metadata xmlns='{MAM}'/>")).await;
    let metadata = metadata.get_child("metadata", MAM).unwrap();
    let end = |name: &str| {
        let end = metadata.get_child(name, MAM).unwrap();
        (end.attr("id").unwrap().to_owned(), end.attr("timestamp").unwrap().to_owned())
    };
    // No RSM, no form: everything, in order, from the full JID that sent it, with the ids and times of the metadata.
    let id = alice.fresh_id();
    alice.send_raw(&format!("<iq type='set' id='{id}' to='{ALICE}'><query xmlns='{MAM}' queryid='q1'/></iq>")).await;
    for (message, (archive_id, stamp)) in [("chat01", end("start")), ("chat02", end("end"))] {
        let of_query = |stanza: &Element| stanza.name() == "iq" || stanza.get_child("result", MAM).is_some();
        let stanza = alice.wait_for("a result", of_query).await;
        let result = stanza.get_child("result", MAM).expect("a result, and not the end");
        assert_eq!((result.attr("queryid"), result.attr("id")), (Some("q1"), Some(archive_id.as_str())));
        let forwarded = result.get_child("forwarded", "urn:xmpp:forward:0").unwrap();
        assert_eq!(forwarded.get_child("delay", "urn:xmpp:delay").unwrap().attr("stamp"), Some(stamp.as_str()));
        let inner = forwarded.get_child("message", "jabber:client").unwrap();
        assert_eq!((inner.attr("id"), inner.attr("type")), (Some(message), Some("chat")));
        assert_eq!((inner.attr("from"), inner.attr("to")), (Some("alice@example.org/phone"), Some(BOB)));
    }
    let fin = alice.wait_for("the end", |stanza| stanza.attr("id") == Some(&id)).await;
    let fin = fin.get_child("fin", MAM).unwrap();
    assert!(fin.attr("complete") == Some("true") && fin.get_child("set", RSM).is_some());
    assert_eq!(fin.attr("stable"), None, "stable is the default");
    assert_eq!(query(&mut alice, ALICE, "<flip-page/>").await.ids(), ["chat02", "chat01"]);

    // What odd clients send: an <after/> outside of <set/>, no queryid.
    assert_eq!(query(&mut alice, ALICE, "<after>no-such-id</after>").await.ids(), ["chat01", "chat02"]);
    let fields = alice.request("get", Some(ALICE), &format!("<query xmlns='{MAM}'/>")).await;
    let text = String::from(&fields);
    for name in ["with", "start", "end", "before-id", "after-id", "ids"] {
        assert!(text.contains(&format!("var=\"{name}\"")) || text.contains(&format!("var='{name}'")), "{name}");
    }
    assert!(!text.contains("<required") && text.contains("<open/>"));
    let disco = alice.request("get", Some(ALICE), "<query xmlns='http://jabber.org/protocol/disco#info'/>").await;
    let text = String::from(&disco);
    for expected in [MAM, "urn:xmpp:mam:2#extended", "urn:multiend:0#archive", "retention#key-transport", "2592000"] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
}

#[tokio::test]
async fn archive_6_an_archive_answers_its_owner_only() {
    let Setup { mut alice, mut bob, prosody: _prosody, multiend: _multiend } = setup("").await;
    send(&mut alice, BOB, "m", "<body>b</body>").await;
    assert_eq!(refused(&mut alice, BOB, "").await, "forbidden");
    let metadata = alice.request("get", Some(BOB), &format!("<metadata xmlns='{MAM}'/>")).await;
    assert_eq!(error_condition(&metadata), Some("forbidden"));
    let own = bob.request("get", Some(BOB), &format!("<metadata xmlns='{MAM}'/>")).await;
    assert_eq!(own.get_child("metadata", MAM).unwrap().children().count(), 2);
}

#[tokio::test]
async fn bad_queries_and_messages_get_the_error_that_their_xep_names() {
    let Setup { mut alice, mut bob, prosody: _prosody, multiend: _multiend } = setup("").await;
    send(&mut alice, BOB, "m", "<body>b</body>").await;
    let over_long = "x".repeat(5_000);
    for (what, content, expected) in [
        ("unknown field", form(&[("urn:nobody:knows", "1")]), "feature-not-implemented"),
        ("malformed time", form(&[("start", "yesterday")]), "bad-request"),
        ("malformed jid", form(&[("with", "@@")]), "bad-request"),
        ("unknown id", rsm("<after>no-such-id</after>"), "item-not-found"),
        ("unknown before-id", form(&[("before-id", "no-such-id")]), "item-not-found"),
        ("over-long id", rsm(&format!("<after>{over_long}</after>")), "item-not-found"),
        ("malformed max", rsm("<max>many</max>"), "bad-request"),
    ] {
        assert_eq!(refused(&mut alice, ALICE, &content).await, expected, "{what}");
    }
    for (what, to, stanza, expected) in [
        ("no such account", r"nobody\40example.org@multiend.example.org", "type='chat'", "service-unavailable"),
        ("foreign domain", r"eve\40evil.example@multiend.example.org", "type='chat'", "service-unavailable"),
        ("groupchat", BOB, "type='groupchat'", "service-unavailable"),
        ("to the component", COMPONENT, "type='chat'", "service-unavailable"),
    ] {
        let id = alice.fresh_id();
        alice.send_raw(&format!("<message id='{id}' to='{to}' {stanza}><body>b</body></message>")).await;
        let answer = alice.wait_for(what, |stanza| stanza.attr("id") == Some(&id)).await;
        assert_eq!(error_condition(&answer), Some(expected), "{what}");
    }
    for (client, archive) in [(&mut alice, ALICE), (&mut bob, BOB)] {
        assert_eq!(query(client, archive, "").await.ids(), ["m"], "nothing was stored");
    }
}
