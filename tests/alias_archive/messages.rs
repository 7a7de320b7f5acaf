//! What is archived for whom, what is relayed, and what is forgotten.

use minidom::Element;

use crate::asking::{ALICE, BOB, MAM, Setup, form, query, refused, rsm, send, setup};
use crate::support::multiend::Multiend;
use crate::support::omemo::{TestDevice, publish};
use crate::support::prosody::Prosody;
use crate::support::xmpp::{Client, error_condition};
use crate::support::{COMPONENT, DOMAIN};

#[tokio::test]
async fn a_message_is_archived_for_both_and_relayed_with_the_id_of_the_receivers_archive() {
    let Setup { mut alice, mut bob, prosody: _prosody, multiend: _multiend } = setup("").await;
    let forged = format!("<stanza-id xmlns='urn:xmpp:sid:0' by='{BOB}' id='forged'/>");
    let sent =
        send(&mut alice, BOB, "m1", &format!("<body>hello &amp; &lt;you&gt;</body><thread>t</thread>{forged}")).await;

    let relayed = bob.wait_for("the relayed message", |stanza| stanza.attr("id") == Some("m1")).await;
    assert_eq!(relayed.attr("from"), Some(format!("{ALICE}/phone").as_str()));
    let stanza_ids: Vec<_> = relayed.children().filter(|child| child.name() == "stanza-id").collect();
    assert_eq!(stanza_ids.len(), 1, "the forged one is gone");
    assert_eq!(stanza_ids[0].attr("by"), Some(BOB));

    let alices = query(&mut alice, ALICE, "").await;
    assert_eq!(alices.results[0].0, sent);
    assert_eq!(alices.results[0].1.attr("from"), Some("alice@example.org/phone"));
    assert_eq!(alices.results[0].1.attr("to"), Some(BOB));
    let bobs = query(&mut bob, COMPONENT, "").await;
    assert_eq!(bobs.results[0].0, stanza_ids[0].attr("id").unwrap());
    assert_ne!(bobs.results[0].0, sent, "an id belongs to one archive");
    assert_eq!(bobs.results[0].1.attr("from"), Some(format!("{ALICE}/phone").as_str()));
    let body = bobs.results[0].1.children().find(|child| child.name() == "body").unwrap().text();
    assert_eq!(body, "hello & <you>");
    assert!(bobs.complete());
}

#[tokio::test]
async fn archive_1_a_message_sent_again_is_stored_once() {
    let Setup { mut alice, mut bob, prosody: _prosody, multiend: _multiend } = setup("").await;
    let first = send(&mut alice, BOB, "again", "<body>once</body><origin-id xmlns='urn:xmpp:sid:0' id='again'/>").await;
    let second =
        send(&mut alice, BOB, "again", "<body>once</body><origin-id xmlns='urn:xmpp:sid:0' id='again'/>").await;
    assert_eq!(first, second);
    let other = send(&mut alice, BOB, "again", "<body>another text under the same id</body>").await;
    assert_ne!(first, other, "only the same message is a duplicate");
    for (client, archive) in [(&mut alice, ALICE), (&mut bob, BOB)] {
        assert_eq!(query(client, archive, "").await.results.len(), 2);
    }
}

#[tokio::test]
async fn archive_3_preferences_decide_on_the_owner_s_own_copy() {
    let Setup { mut alice, mut bob, prosody: _prosody, multiend: _multiend } = setup("").await;
    let empty = bob.request("get", Some(BOB), &format!("<prefs xmlns='{MAM}'/>")).await;
    let prefs = empty.get_child("prefs", MAM).unwrap();
    assert_eq!((prefs.attr("default"), prefs.children().count()), (Some("always"), 2));
    let never = format!("<prefs xmlns='{MAM}' default='always'><never><jid>alice@example.org</jid></never></prefs>");
    let set = bob.request("set", Some(BOB), &never).await;
    let listed: Vec<String> =
        set.get_child("prefs", MAM).unwrap().get_child("never", MAM).unwrap().children().map(Element::text).collect();
    assert_eq!(listed, [ALICE], "in the address that the client writes to");

    let sent = send(&mut alice, BOB, "m1", "<body>not for bob's archive</body>").await;
    let relayed = bob.wait_for("the message", |stanza| stanza.attr("id") == Some("m1")).await;
    assert!(relayed.get_child("stanza-id", "urn:xmpp:sid:0").is_none(), "no archive id where nothing is archived");
    assert_eq!(query(&mut alice, ALICE, "").await.results[0].0, sent);
    assert!(query(&mut bob, BOB, "").await.results.is_empty());

    // An acknowledgement without the id of a copy that the sender did not want.
    bob.send_raw(&format!("<message to='{ALICE}' id='m2'><body>b</body><request xmlns='urn:multiend:0'/></message>"))
        .await;
    let told =
        bob.wait_for("the acknowledgement", |stanza| stanza.get_child("archived", "urn:multiend:0").is_some()).await;
    assert_eq!(told.get_child("archived", "urn:multiend:0").unwrap().children().count(), 0);
    assert_eq!(query(&mut alice, ALICE, "").await.ids(), ["m1", "m2"]);

    let roster = bob.request("set", Some(BOB), &format!("<prefs xmlns='{MAM}' default='roster'/>")).await;
    assert_eq!(error_condition(&roster), Some("feature-not-implemented"));
    for kind in ["get", "set"] {
        let foreign = alice.request(kind, Some(BOB), &never).await;
        assert_eq!(error_condition(&foreign), Some("forbidden"));
    }
}

#[tokio::test]
async fn archive_3_a_retracted_message_leaves_a_tombstone_for_both() {
    let Setup { mut alice, mut bob, prosody: _prosody, multiend: _multiend } = setup("").await;
    const RETRACT: &str = "urn:xmpp:message-retract:1";
    let wrong = send(&mut alice, BOB, "wrong-1", "<body>Have not saints lips?</body>").await;
    send(&mut bob, ALICE, "wrong-1", "<body>the same id by another author</body>").await;
    // Only the author takes a message back: bob's retraction names his own, not alice's.
    send(&mut alice, BOB, "kept-1", "<body>kept</body>").await;
    send(&mut bob, ALICE, "r0", &format!("<retract id='kept-1' xmlns='{RETRACT}'/><body>/me retracts</body>")).await;
    send(&mut alice, BOB, "r1", &format!("<retract id='wrong-1' xmlns='{RETRACT}'/><body>/me retracts</body>")).await;
    for (client, archive) in [(&mut alice, ALICE), (&mut bob, BOB)] {
        let page = query(client, archive, "").await;
        assert_eq!(page.ids(), ["wrong-1", "wrong-1", "kept-1", "r0", "r1"], "the retraction itself is kept");
        let tombstone = &page.results[0].1;
        let children: Vec<_> = tombstone.children().collect();
        assert_eq!(children.len(), 1, "{}", String::from(tombstone));
        assert!(children[0].is("retracted", RETRACT));
        assert_eq!(children[0].attr("id"), Some("r1"));
        assert!(children[0].attr("stamp").is_some());
        for untouched in [&page.results[1].1, &page.results[2].1] {
            assert!(untouched.children().any(|child| child.name() == "body"));
        }
    }
    let by_id = query(&mut alice, ALICE, &form(&[("ids", &wrong)])).await;
    assert_eq!(by_id.results.len(), 1, "its id stays a place in the archive");
    let disco = alice.request("get", Some(ALICE), "<query xmlns='http://jabber.org/protocol/disco#info'/>").await;
    let disco = String::from(&disco);
    assert!(disco.contains("urn:xmpp:message-retract:1#tombstone"), "{disco}");
}

#[tokio::test]
async fn archive_5_what_has_expired_is_hidden_at_once_and_purged_later() {
    let extra = "[archive]\npurge_interval = \"1s\"\n";
    let Setup { mut alice, mut bob, multiend, prosody: _prosody } = setup(extra).await;
    send(&mut alice, BOB, "stays", "<body>s</body>").await;
    send(&mut alice, BOB, "goes", "<body>g</body><ephemeral xmlns='urn:xmpp:ephemeral:0' timer='1'/>").await;
    send(&mut alice, BOB, "follows", "<body>f</body>").await;
    assert_eq!(query(&mut bob, BOB, "").await.ids(), ["stays", "goes", "follows"]);
    let page = crate::support::process::poll_async("the expiry", crate::support::xmpp::DEADLINE, async || {
        let page = query(&mut bob, BOB, "").await;
        (page.ids() == ["stays", "", "follows"]).then_some(page)
    })
    .await;
    let placeholder = &page.results[1];
    assert!(placeholder.1.children().all(|child| child.name() == "expired"), "the message itself is gone");
    crate::support::process::poll("the purge", crate::support::xmpp::DEADLINE, || {
        (multiend.metric("multiend_archive_purged_total{what=\"bodies\"}") >= 1.0).then_some(())
    });
    let after = rsm(&format!("<after>{}</after>", placeholder.0));
    assert_eq!(
        query(&mut bob, BOB, &after).await.ids(),
        ["follows"],
        "the id of a placeholder is a place to go on from"
    );
}

#[tokio::test]
async fn what_is_not_to_be_archived_is_still_relayed_in_order() {
    let Setup { mut alice, mut bob, prosody: _prosody, multiend: _multiend } = setup("").await;
    for (id, content) in [
        ("typing", "<composing xmlns='http://jabber.org/protocol/chatstates'/>"),
        ("secret", "<body>s</body><no-store xmlns='urn:xmpp:hints'/>"),
    ] {
        alice.send_raw(&format!("<message type='chat' to='{BOB}' id='{id}'>{content}</message>")).await;
    }
    send(&mut alice, BOB, "kept", "<body>k</body>").await;
    let mut order = Vec::new();
    while order.len() < 3 {
        let stanza = bob.next_stanza().await;
        if stanza.name() == "message" {
            order.push(stanza.attr("id").unwrap().to_owned());
        }
    }
    assert_eq!(order, ["typing", "secret", "kept"]);
    assert_eq!(query(&mut bob, BOB, "").await.ids(), ["kept"]);
}

#[tokio::test]
async fn a_server_that_cannot_deliver_tells_the_session_that_wrote() {
    let Setup { mut alice, mut bob, prosody, multiend: _multiend } = setup("").await;
    send(&mut bob, ALICE, "hi", "<body>b</body>").await;
    drop(bob);
    // Without offline storage the server bounces what it cannot deliver.
    alice.send_raw(&format!("<message type='chat' to='{BOB}' id='bounced'><body>b</body></message>")).await;
    let bounce = alice.wait_for("the bounce", |stanza| stanza.attr("id") == Some("bounced")).await;
    assert_eq!((bounce.attr("type"), bounce.attr("from")), (Some("error"), Some(BOB)));
    drop(prosody);
}

#[tokio::test]
async fn a_stranger_from_another_domain_is_refused_and_nothing_is_stored() {
    let prosody = Prosody::builder().users(&["bob"]).stranger("mallory", "elsewhere.example").multiend().start();
    let multiend = Multiend::builder(prosody.component_port()).start();
    let mut bob = Client::connect(prosody.c2s_port(), DOMAIN, "bob", "phone").await;
    let bundle = TestDevice { id: 2, seed: 1 }.bundle(1..=3);
    bob.request("set", Some(BOB), &publish("urn:xmpp:omemo:2:bundles", "2", &bundle)).await;

    let mut mallory = Client::connect(prosody.c2s_port(), "elsewhere.example", "mallory", "phone").await;
    mallory.send_raw(&format!("<message type='chat' id='m' to='{BOB}'><body>b</body></message>")).await;
    let answer = mallory.wait_for("the refusal", |stanza| stanza.attr("id") == Some("m")).await;
    assert_eq!(error_condition(&answer), Some("forbidden"));
    assert_eq!(refused(&mut mallory, COMPONENT, "").await, "forbidden", "a stranger has no archive here");
    assert_eq!(refused(&mut mallory, BOB, "").await, "forbidden");
    assert!(query(&mut bob, BOB, "").await.results.is_empty());
    drop(multiend);
}
