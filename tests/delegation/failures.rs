//! Whatever is missing, down or malformed, a client gets an answer, and no page ends whose messages did not arrive.

use std::time::{Duration, Instant};

use crate::stock::*;
use crate::support::DOMAIN;
use crate::support::plugin::Kind;
use crate::support::process::{poll, poll_async};
use crate::support::xmpp::{DEADLINE, error_condition};

on_both_servers!(
    a_component_that_is_down_costs_an_error_and_comes_back,
    without_permission_to_send_messages_no_page_is_given,
    malformed_requests_are_answered,
    a_request_beyond_the_limits_is_answered,
    a_page_for_somebody_who_left_goes_where_the_document_says,
);

async fn a_component_that_is_down_costs_an_error_and_comes_back<S: Stock>() {
    let mut setup = Setup::<S>::start(&["alice", "bob"]);
    let mut alice = setup.known_client("alice", "phone").await;
    let _bob = setup.known_client("bob", "laptop").await;
    send(&mut alice, ALIAS_OF_BOB, "m1").await;
    setup.multiend.terminate();
    if S::KIND == Kind::Ejabberd {
        // It takes note in its own time.
        let info = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
        poll_async("the end of the delegation", DEADLINE, async || {
            let account = alice.request("get", Some(ALICE), info).await;
            (!String::from(&account).contains(MAM)).then_some(())
        })
        .await;
    }
    let started = Instant::now();
    let answer = query(&mut alice, None, "").await.map(|page| page.fin).unwrap_err();
    assert_eq!(error_condition(&answer), Some("service-unavailable"), "{answer:?}");
    assert!(started.elapsed() < Duration::from_secs(25), "at once, not after the server's 30 s");
    setup.multiend.restart();
    poll_async("the archive", DEADLINE, async || {
        let page = query(&mut alice, None, "").await.ok()?;
        (page.ids() == ["m1"]).then_some(())
    })
    .await;
    // The same after the server was away, for a session of its own time.
    setup.server.restart();
    poll("the connection", DEADLINE, || (setup.multiend.metric("multiend_link_up") > 0.0).then_some(()));
    setup.is_granted();
    let mut alice = setup.client("alice", "phone").await;
    assert_eq!(query(&mut alice, None, "").await.unwrap().ids(), ["m1"]);
}

async fn without_permission_to_send_messages_no_page_is_given<S: Stock>() {
    let setup = Setup::of(S::delegating(&["alice", "bob"], &[], false), ENABLED);
    let mut alice = setup.known_client("alice", "phone").await;
    let _bob = setup.known_client("bob", "laptop").await;
    send(&mut alice, ALIAS_OF_BOB, "m1").await;
    poll("the delegation", DEADLINE, || {
        (setup.multiend.metric("multiend_delegation_servers{grant=\"archives\"}") > 0.0).then_some(())
    });
    assert_eq!(setup.multiend.metric("multiend_delegation_servers{grant=\"messages\"}"), 0.0);
    for _ in 0..3 {
        let answer = query(&mut alice, None, "").await.map(|page| page.fin).unwrap_err();
        assert_eq!(error_condition(&answer), Some("service-unavailable"), "{answer:?}");
    }
    let metadata = alice.request("get", None, &format!("<metadata xmlns='{MAM}'/>")).await;
    assert!(metadata.has_child("metadata", MAM), "what needs no messages is there: {metadata:?}");
    let log = setup.multiend.log();
    assert_eq!(log.matches("XEP-0356").count(), 1, "the operator is told, once: {log}");
}

async fn malformed_requests_are_answered<S: Stock>() {
    let setup = Setup::<S>::start(&["alice"]);
    let mut alice = setup.client("alice", "phone").await;
    let form = |fields: &str| {
        format!(
            "<query xmlns='{MAM}'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'>\
             <value>{MAM}</value></field>{fields}</x></query>"
        )
    };
    for (kind, payload, condition) in [
        ("set", form("<field var='start'><value>yesterday</value></field>"), "bad-request"),
        ("set", form("<field var='colour'><value>red</value></field>"), "*"),
        ("set", format!("<query xmlns='{MAM}' queryid='{}'/>", "q".repeat(300)), "bad-request"),
        ("set", format!("<query xmlns='{MAM}'>{}</query>", rsm("<max>many</max>")), "*"),
        ("set", format!("<query xmlns='{MAM}'>{}</query>", rsm("<after>no-such-id</after>")), "item-not-found"),
        ("set", format!("<prefs xmlns='{MAM}' default='sometimes'/>"), "bad-request"),
        ("set", format!("<prefs xmlns='{MAM}' default='roster'/>"), "feature-not-implemented"),
        ("set", format!("<nonsense xmlns='{MAM}'/>"), "*"),
        ("get", format!("<nonsense xmlns='{MAM}'/>"), "*"),
    ] {
        let answer = alice.request(kind, None, &payload).await;
        let found = error_condition(&answer).unwrap_or_else(|| panic!("{payload}: {answer:?}"));
        assert!(condition == "*" || found == condition, "{payload}: {found}");
    }
    // Long, and in order: what a query holds besides is nobody's business.
    let junk = format!("<junk xmlns='urn:example:x'>{}</junk>", "x".repeat(200_000));
    assert!(query(&mut alice, None, &junk).await.unwrap().complete());
    // As it is written by hand, with white space between the elements.
    let id = alice.fresh_id();
    let spaced = format!(
        "<iq type='set' id='{id}'>\n  <query xmlns='{MAM}'>\n    <set xmlns='{RSM}'> <max>2</max> </set>\n  </query>\n</iq>"
    );
    let answer = alice.iq(&spaced, &id).await;
    assert!(answer.has_child("fin", MAM) || answer.attr("type") == Some("error"), "{answer:?}");
    // Ids and names that need care on the way.
    let id = "&lt;&quot;&apos;&gt;&amp;é\u{1f642}";
    alice.send_raw(&format!("<iq type='set' id='{id}'><query xmlns='{MAM}'/></iq>")).await;
    let answer = alice.wait_for("the answer", |e| e.attr("id") == Some("<\"'>&é\u{1f642}")).await;
    assert!(answer.has_child("fin", MAM), "{answer:?}");
}

async fn a_request_beyond_the_limits_is_answered<S: Stock>() {
    let setup = Setup::<S>::start(&["alice"]);
    let mut alice = setup.client("alice", "phone").await;
    let deep = format!("{}{}", "<x xmlns='urn:example:x'>".repeat(80), "</x>".repeat(80));
    let wide = format!("<x xmlns='urn:example:x'>{}</x>", "<y/>".repeat(17_000));
    for content in [deep, wide] {
        alice.send_raw(&format!("<iq type='set' id='big'><query xmlns='{MAM}'>{content}</query></iq>")).await;
        let answer = alice.wait_for("the answer", |e| e.name() == "iq" && e.attr("id") == Some("big")).await;
        let expected = if S::KIND == Kind::Prosody { "service-unavailable" } else { "internal-server-error" };
        assert_eq!(error_condition(&answer), Some(expected), "{answer:?}");
    }
    assert!(query(&mut alice, None, "").await.unwrap().complete());
    assert_eq!(setup.multiend.metric("multiend_link_reconnects_total"), 0.0);
}

/// Nobody can help what a server does with messages for a session that has gone (docs/delegation.md).
async fn a_page_for_somebody_who_left_goes_where_the_document_says<S: Stock>() {
    let mut setup = Setup::<S>::start(&["alice", "bob"]);
    let mut alice = setup.known_client("alice", "phone").await;
    let _bob = setup.known_client("bob", "laptop").await;
    for n in 0..20 {
        send(&mut alice, ALIAS_OF_BOB, &format!("m{n:02}")).await;
    }
    // It leaves while multiend makes the page.
    setup.multiend.process().signal("STOP");
    alice
        .send_raw(&format!("<iq type='set' id='gone'><query xmlns='{MAM}' queryid='gone'/></iq></stream:stream>"))
        .await;
    while alice.next_raw().await.is_some() {}
    setup.multiend.process().signal("CONT");
    let delivered = "multiend_delegation_pages_total{result=\"delivered\"}";
    poll("the page", DEADLINE, || (setup.multiend.metric(delivered) > 0.0).then_some(()));
    let mut alice = setup.client("alice", "laptop").await;
    let came = alice.everything_until_pong(DOMAIN).await;
    let stray = came.iter().filter(|stanza| stanza.has_child("result", MAM)).count();
    // Prosody's offline storage knows no hints. A client passes over results that it did not ask for.
    assert_eq!(stray, if S::KIND == Kind::Prosody { 20 } else { 0 });
    assert_eq!(query(&mut alice, None, "").await.unwrap().messages.len(), 20);
}
