//! What an account finds at its own address.

use minidom::Element;

use crate::profanity::Profanity;
use crate::python;
use crate::stock::*;
use crate::support::xmpp::Client;
use crate::support::{COMPONENT, DOMAIN};

on_both_servers!(
    the_own_archive_is_at_the_own_address,
    pages_run_both_ways_and_filters_narrow_them,
    form_metadata_and_preferences_are_there_too,
    a_page_goes_to_the_session_that_asked_and_nowhere_else,
    an_unmodified_slixmpp_reads_its_archive,
    profanity_shows_what_it_has_missed,
);

async fn the_own_archive_is_at_the_own_address<S: Stock>() {
    let setup = Setup::<S>::start(&["alice", "bob"]);
    let mut alice = setup.known_client("alice", "phone").await;
    let mut bob = setup.known_client("bob", "laptop").await;
    send(&mut alice, ALIAS_OF_BOB, "m1").await;
    send(&mut bob, ALIAS_OF_ALICE, "m2").await;
    let live = alice.wait_for("the message", |e| e.attr("id") == Some("m2")).await;

    for to in [None, Some(ALICE), Some("ALICE@example.org")] {
        let page = query(&mut alice, to, "").await.unwrap();
        assert_eq!((page.ids(), page.complete()), (vec!["m1", "m2"], true), "{to:?}");
        // A peer has the address in the archive that it has in the conversation.
        assert_eq!(page.messages[1].attr("from"), live.attr("from"));
        assert_eq!(page.messages[0].attr("to"), Some(ALIAS_OF_BOB));
        assert_eq!(page.messages[0].attr("from"), Some(alice.jid()));
    }
    assert_eq!(query(&mut bob, None, "").await.unwrap().ids(), ["m1", "m2"]);

    // Clients look for the archive in the features of the account.
    let info = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    let account = alice.request("get", Some(ALICE), info).await;
    let features: Vec<_> =
        account.children().flat_map(Element::children).filter_map(|feature| feature.attr("var")).collect();
    for feature in [MAM, "urn:xmpp:mam:2#extended"] {
        assert!(features.contains(&feature), "{feature} is not in {features:?}");
    }
}

async fn pages_run_both_ways_and_filters_narrow_them<S: Stock>() {
    let setup = Setup::<S>::start(&["alice", "bob", "carol"]);
    let mut alice = setup.known_client("alice", "phone").await;
    let _bob = setup.known_client("bob", "laptop").await;
    for n in 0..12 {
        send(&mut alice, ALIAS_OF_BOB, &format!("m{n:02}")).await;
    }
    let mut carol = setup.client("carol", "x").await;
    send(&mut carol, ALIAS_OF_ALICE, "from-carol").await;
    let all: Vec<_> = (0..12).map(|n| format!("m{n:02}")).chain(["from-carol".to_owned()]).collect();

    let (mut forward, mut after) = (Vec::new(), String::new());
    loop {
        let page = query(&mut alice, None, &rsm(&format!("<max>5</max>{after}"))).await.unwrap();
        forward.extend(page.ids().iter().map(|id| (*id).to_owned()));
        after = format!("<after>{}</after>", page.end("last"));
        if page.complete() {
            break;
        }
    }
    assert_eq!(forward, all);
    let newest = query(&mut alice, None, &rsm("<max>5</max><before/>")).await.unwrap();
    assert_eq!(newest.ids(), all[8..]);
    let before = rsm(&format!("<max>20</max><before>{}</before>", newest.end("first")));
    assert_eq!(query(&mut alice, None, &before).await.unwrap().ids(), all[..8]);
    for bob in [ALIAS_OF_BOB, "bob@example.org"] {
        let with = format!(
            "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>{MAM}</value></field>\
             <field var='with'><value>{bob}</value></field></x>"
        );
        assert_eq!(query(&mut alice, None, &with).await.unwrap().ids(), all[..12]);
    }
    assert!(setup.multiend.metric("multiend_delegation_pages_total{result=\"delivered\"}") >= 7.0);
}

async fn form_metadata_and_preferences_are_there_too<S: Stock>() {
    let setup = Setup::<S>::start(&["alice", "bob"]);
    let mut alice = setup.known_client("alice", "phone").await;
    let _bob = setup.known_client("bob", "laptop").await;
    let form = alice.request("get", None, &format!("<query xmlns='{MAM}'/>")).await;
    let form = String::from(form.get_child("query", MAM).unwrap());
    assert!(form.contains("before-id") && form.contains("jid-single"), "{form}");
    let ends = async |alice: &mut Client| {
        let metadata = alice.request("get", None, &format!("<metadata xmlns='{MAM}'/>")).await;
        metadata.get_child("metadata", MAM).unwrap().children().count()
    };
    assert_eq!(ends(&mut alice).await, 0, "an empty archive");
    send(&mut alice, ALIAS_OF_BOB, "m1").await;
    assert_eq!(ends(&mut alice).await, 2);

    let never =
        format!("<prefs xmlns='{MAM}' default='always'><always/><never><jid>{ALIAS_OF_BOB}</jid></never></prefs>");
    let set = alice.request("set", None, &never).await;
    let kept = alice.request("get", None, &format!("<prefs xmlns='{MAM}'/>")).await;
    for answer in [set, kept] {
        let prefs = answer.get_child("prefs", MAM).unwrap_or_else(|| panic!("{answer:?}"));
        let never: Vec<_> = prefs.get_child("never", MAM).unwrap().children().map(Element::text).collect();
        assert_eq!((prefs.attr("default"), never), (Some("always"), vec![ALIAS_OF_BOB.to_owned()]));
    }
    alice.send_raw(&format!("<message type='chat' to='{ALIAS_OF_BOB}' id='m2'><body>b</body></message>")).await;
    alice.everything_until_pong(COMPONENT).await;
    assert_eq!(query(&mut alice, None, "").await.unwrap().ids(), ["m1"]);
}

async fn a_page_goes_to_the_session_that_asked_and_nowhere_else<S: Stock>() {
    let setup = Setup::<S>::start(&["alice", "bob"]);
    let mut alice = setup.known_client("alice", "phone").await;
    let _bob = setup.known_client("bob", "laptop").await;
    let mut laptop = setup.client("alice", "laptop").await;
    laptop.enable_carbons().await;
    alice.enable_carbons().await;
    for n in 0..5 {
        send(&mut alice, ALIAS_OF_BOB, &format!("m{n}")).await;
    }
    laptop.everything_until_pong(DOMAIN).await;
    assert_eq!(query(&mut alice, None, "").await.unwrap().messages.len(), 5);
    // A message from the phone shows that whatever went before it has arrived.
    alice.send_raw(&format!("<message type='chat' to='{}' id='last'><body>b</body></message>", laptop.jid())).await;
    laptop.wait_for("the last message", |e| e.attr("id") == Some("last")).await;
    let came = laptop.everything_until_pong(DOMAIN).await;
    assert!(came.iter().all(|stanza| !String::from(stanza).contains(MAM)), "{came:?}");
    assert_eq!(query(&mut alice, None, "").await.unwrap().messages.len(), 5, "nor is anything of it archived");
}

async fn an_unmodified_slixmpp_reads_its_archive<S: Stock>() {
    let setup = Setup::<S>::start(&["alice", "bob"]);
    let mut alice = setup.known_client("alice", "phone").await;
    let _bob = setup.known_client("bob", "laptop").await;
    for n in 0..25 {
        send(&mut alice, ALIAS_OF_BOB, &format!("m{n:02}")).await;
    }
    let c2s_port = setup.server.c2s_port().to_string();
    let output = python::output(python::script("archive.py").args([&c2s_port, ALICE, "alice"]));
    let expected: String = (0..25).map(|n| format!("m{n:02} {ALIAS_OF_BOB}\n")).collect();
    assert_eq!(output, expected);
}

async fn profanity_shows_what_it_has_missed<S: Stock>() {
    let setup = Setup::<S>::start(&["alice", "bob"]);
    let mut alice = setup.known_client("alice", "phone").await;
    let mut bob = setup.known_client("bob", "laptop").await;
    send(&mut alice, ALIAS_OF_BOB, "one").await;
    send(&mut bob, ALIAS_OF_ALICE, "two").await;
    alice.wait_for("the message", |e| e.attr("id") == Some("two")).await;
    // Another device of alice's, which has seen nothing of it.
    let mut laptop = Profanity::new(setup.server.c2s_port(), "alice");
    laptop.comes_online();
    laptop.types(&format!("/msg {ALIAS_OF_BOB}"));
    laptop.sees("b one");
    laptop.sees("b two");
}
