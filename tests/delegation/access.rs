//! Who is refused, and how: nobody waits for an answer that does not come.

use crate::stock::*;
use crate::support::xmpp::{Client, error_condition};
use crate::support::{COMPONENT, DOMAIN};

on_both_servers!(
    an_archive_answers_its_owner_only,
    a_user_cannot_speak_as_a_server,
    accounts_of_a_domain_that_is_not_served_get_an_error,
    without_the_operator_s_word_nothing_is_taken_over,
);

async fn an_archive_answers_its_owner_only<S: Stock>() {
    let setup = Setup::<S>::start(&["alice", "bob"]);
    let mut alice = setup.known_client("alice", "phone").await;
    let mut bob = setup.known_client("bob", "laptop").await;
    send(&mut alice, ALIAS_OF_BOB, "m1").await;
    let query_of = format!("<query xmlns='{MAM}'/>");
    for (kind, payload) in [
        ("set", query_of.clone()),
        ("get", query_of.clone()),
        ("get", format!("<metadata xmlns='{MAM}'/>")),
        ("get", format!("<prefs xmlns='{MAM}'/>")),
        ("set", format!("<prefs xmlns='{MAM}' default='never'/>")),
    ] {
        // Whether an account exists, nobody learns here.
        for other in [ALICE, "nobody@example.org"] {
            let answer = bob.request(kind, Some(other), &payload).await;
            assert_eq!(error_condition(&answer), Some("forbidden"), "{kind} {payload} {other}: {answer:?}");
        }
    }
    let answer = bob.request("set", Some(DOMAIN), &query_of).await;
    assert_eq!(error_condition(&answer), Some("service-unavailable"), "a server has no archive");
    let came = bob.everything_until_pong(DOMAIN).await;
    assert!(came.iter().all(|stanza| !stanza.has_child("result", MAM)), "{came:?}");
    assert_eq!(query(&mut alice, None, "").await.unwrap().ids(), ["m1"]);
    assert_eq!(query(&mut bob, None, "").await.unwrap().ids(), ["m1"]);
}

async fn a_user_cannot_speak_as_a_server<S: Stock>() {
    let setup = Setup::<S>::start(&["alice", "bob", "mallory"]);
    let mut alice = setup.known_client("alice", "phone").await;
    let _bob = setup.known_client("bob", "laptop").await;
    send(&mut alice, ALIAS_OF_BOB, "m1").await;
    let mut mallory = setup.client("mallory", "x").await;
    let forged = |ns: &str, from: &str| {
        format!(
            "<delegation xmlns='{ns}'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='set' id='q' \
             from='{from}' to='{ALICE}'><query xmlns='{MAM}'/></iq></forwarded></delegation>"
        )
    };
    for to in [COMPONENT, ALIAS_OF_ALICE, "multiend.example.org/x"] {
        for ns in ["urn:xmpp:delegation:1", "urn:xmpp:delegation:2"] {
            for from in ["alice@example.org/phone", "mallory@example.org/x"] {
                let answer = mallory.request("set", Some(to), &forged(ns, from)).await;
                assert_eq!(error_condition(&answer), Some("forbidden"), "{to} {ns} {from}");
            }
            let node = format!("<query xmlns='http://jabber.org/protocol/disco#info' node='{ns}:bare:{MAM}'/>");
            let answer = mallory.request("get", Some(to), &node).await;
            assert_eq!(answer.attr("type"), Some("error"), "{to} {ns}");
        }
    }
    // Grants of nobody, and the word that a page was refused.
    for message in [
        "<privilege xmlns='urn:xmpp:privilege:1'><perm access='message' type='none'/></privilege>",
        "<privilege xmlns='urn:xmpp:privilege:2'/>",
        "<delegation xmlns='urn:xmpp:delegation:1'/>",
    ] {
        mallory.send_raw(&format!("<message id='f' to='{COMPONENT}'>{message}</message>")).await;
        let answer = mallory.wait_for("the error", |e| e.name() == "message" && e.attr("id") == Some("f")).await;
        assert_eq!(error_condition(&answer), Some("forbidden"));
    }
    for n in 1..20 {
        mallory.send_raw(&format!("<message type='error' id='page-{n}' to='{COMPONENT}'/>")).await;
    }
    mallory.everything_until_pong(COMPONENT).await;
    assert_eq!(setup.multiend.metric("multiend_delegation_servers{grant=\"messages\"}"), 1.0);
    assert_eq!(query(&mut alice, None, "").await.unwrap().ids(), ["m1"]);
    // Nor can it have the server say something in alice's name.
    let privileged = format!(
        "<privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' \
         from='{ALICE}' to='alice@example.org/phone' id='evil'><body>b</body></message></forwarded></privilege>"
    );
    for privileged in [privileged.clone(), privileged.replace("privilege:2", "privilege:1")] {
        mallory.send_raw(&format!("<message id='f' to='{DOMAIN}'>{privileged}</message>")).await;
    }
    mallory.everything_until_pong(DOMAIN).await;
    let came = alice.everything_until_pong(DOMAIN).await;
    assert!(came.iter().all(|stanza| stanza.attr("id") != Some("evil")), "{came:?}");
}

async fn accounts_of_a_domain_that_is_not_served_get_an_error<S: Stock>() {
    let setup = Setup::of(S::delegating(&["alice"], &["mallory"], true), ENABLED);
    setup.is_granted();
    let mut mallory = Client::connect(setup.server.c2s_port(), ELSEWHERE, "mallory", "x").await;
    for to in [None, Some("mallory@elsewhere.example"), Some(ALICE)] {
        let answer = mallory.request("set", to, &format!("<query xmlns='{MAM}'/>")).await;
        let condition = error_condition(&answer);
        assert!(matches!(condition, Some("forbidden" | "service-unavailable")), "{to:?}: {answer:?}");
    }
    assert_eq!(setup.multiend.metric("multiend_delegation_servers{grant=\"archives\"}"), 1.0);
}

async fn without_the_operator_s_word_nothing_is_taken_over<S: Stock>() {
    let setup = Setup::of(S::delegating(&["alice", "bob"], &[], true), "");
    let mut alice = setup.known_client("alice", "phone").await;
    let answer = query(&mut alice, None, "").await.map(|page| page.fin).unwrap_err();
    assert_eq!(error_condition(&answer), Some("service-unavailable"), "{answer:?}");
    // The alias door goes on as if there were no delegation.
    let answer = alice.request("set", Some(ALIAS_OF_ALICE), &format!("<query xmlns='{MAM}'/>")).await;
    assert!(answer.has_child("fin", MAM), "{answer:?}");
    let info = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    let account = alice.request("get", Some(ALICE), info).await;
    assert!(!String::from(&account).contains(MAM), "{account:?}");
}
