//! Copies of messages: each once per archive, under the id stamped on it.

use minidom::Element;

use crate::support::DOMAIN;
use crate::support::archive::query;
use crate::support::plugin::{Kind, Server as _};
use crate::support::process::poll_async;
use crate::support::xmpp::{Client, DEADLINE};
use crate::{ALICE, BOB, Deployment, OMEMO, Server, Setup, archived_until, send};

/// The ids that archives gave a message: by whom, and which.
pub fn stanza_ids(message: &Element) -> Vec<(String, String)> {
    let ids = message.children().filter(|child| child.is("stanza-id", "urn:xmpp:sid:0"));
    ids.map(|id| (id.attr("by").unwrap().to_owned(), id.attr("id").unwrap().to_owned())).collect()
}

#[tokio::test]
async fn a_message_is_in_both_archives_under_the_ids_that_were_stamped_on_it() {
    let setup = Setup::start(&["alice", "bob"]);
    let (mut alice, mut bob) = (setup.client("alice", "phone").await, setup.client("bob", "phone").await);
    let forged: String = [ALICE, BOB, "BOB@Example.org"]
        .iter()
        .map(|by| format!("<stanza-id xmlns='urn:xmpp:sid:0' by='{by}' id='forged'/>"))
        .collect();
    send(&mut alice, BOB, "m1", &format!("<body>hello &amp; &lt;you&gt;\nthere</body>{forged}")).await;
    send(&mut alice, BOB, "m2", OMEMO).await;
    let live = bob.wait_for("the message", |e| e.attr("id") == Some("m1")).await;
    let ids = stanza_ids(&live);
    assert_eq!(ids.len(), 1, "only bob's archive has given an id: {ids:?}");
    assert_eq!(ids[0].0, BOB);
    assert!(ids[0].1.len() >= 20, "not to be guessed");

    // What was sent before a query is found by it: the query waits for the copies that are on their way.
    let page = query(&mut bob, "").await.unwrap();
    assert_eq!((page.ids(), page.complete(), page.fin.attr("stable")), (vec!["m1", "m2"], true, None));
    let (id, archived) = &page.results[0];
    assert_eq!(*id, ids[0].1);
    assert_eq!((archived.attr("from"), archived.attr("to")), (Some("alice@example.org/phone"), Some(BOB)));
    assert_eq!(archived.get_child("body", "jabber:client").unwrap().text(), "hello & <you>\nthere");
    assert!(stanza_ids(archived).is_empty());
    let page = query(&mut alice, "").await.unwrap();
    assert_eq!(page.ids(), ["m1", "m2"]);
    assert_ne!(page.results[0].0, ids[0].1);
    assert!(alice.take(|e| e.name() == "message").is_none(), "results go to the asking session only");
    assert_eq!(setup.multiend.metric("multiend_link_reconnects_total"), 0.0);
}

#[tokio::test]
async fn carbons_and_several_resources_make_no_further_copies() {
    let setup = Setup::start(&["alice", "bob"]);
    let mut alice = setup.client("alice", "phone").await;
    let mut sibling = setup.client("alice", "laptop").await;
    let (mut phone, mut laptop) = (setup.client("bob", "phone").await, setup.client("bob", "laptop").await);
    for client in [&mut alice, &mut sibling, &mut phone, &mut laptop] {
        client.enable_carbons().await;
    }
    send(&mut alice, BOB, "m1", "<body>b</body>").await;
    send(&mut alice, "bob@example.org/phone", "m2", OMEMO).await;
    send(&mut alice, ALICE, "note", "<body>to myself</body>").await;
    alice.everything_until_pong(DOMAIN).await;
    send(&mut phone, ALICE, "m3", "<body>back</body>").await;

    let carbon = sibling.wait_for("a carbon", |e| e.has_child("sent", "urn:xmpp:carbons:2")).await;
    let carried = carbon.children().next().unwrap().children().next().unwrap().children().next().unwrap();
    let of_sender = stanza_ids(carried);
    let of_phone = stanza_ids(&phone.wait_for("m1", |e| e.attr("id") == Some("m1")).await);
    let of_laptop = stanza_ids(&laptop.wait_for("m1", |e| e.attr("id") == Some("m1")).await);
    assert_eq!(of_phone, of_laptop);
    assert_eq!((of_sender[0].0.as_str(), of_phone[0].0.as_str()), (ALICE, BOB));

    assert_eq!(archived_until(&mut alice, "m3").await, ["m1", "m2", "note", "m3"]);
    assert_eq!(archived_until(&mut laptop, "m3").await, ["m1", "m2", "m3"]);
    let page = query(&mut alice, "").await.unwrap();
    assert_eq!(page.results[0].0, of_sender[0].1);
    // One body for both sides of a message between two accounts of the server.
    let (_, stats, _) = setup.multiend.command(&["admin", "stats", "--json"]);
    assert!(stats.contains("\"copies\":7,"), "{stats}");
    if Server::KIND == Kind::Prosody {
        // In ejabberd the recipient's copy may come too late for the batch of the sender's.
        assert!(stats.contains("\"bodies\":4"), "{stats}");
    }
}

#[tokio::test]
async fn who_was_offline_finds_it_in_the_archive_and_nobody_gets_an_error() {
    for offline_storage in [false, true] {
        let deployment = Deployment::new(&["alice", "bob"]);
        let deployment = if offline_storage { deployment.offline_storage() } else { deployment };
        let setup = Setup::with(&deployment, "");
        let mut alice = setup.client("alice", "phone").await;
        send(&mut alice, BOB, "m1", "<body>b</body>").await;
        send(&mut alice, BOB, "m2", OMEMO).await;
        assert!(alice.everything_until_pong(DOMAIN).await.is_empty(), "no bounce");
        let mut bob = Client::connect(setup.server.c2s_port(), DOMAIN, "bob", "phone").await;
        assert_eq!(archived_until(&mut bob, "m2").await, ["m1", "m2"]);
        let archived: Vec<_> = query(&mut bob, "").await.unwrap().results.into_iter().map(|(id, _)| id).collect();
        bob.online().await;
        let mut spooled = bob.everything_until_pong(DOMAIN).await;
        spooled.retain(|e| e.name() == "message");
        match Server::KIND {
            Kind::Prosody => assert!(spooled.is_empty(), "who asked the archive is not given it again: {spooled:?}"),
            // Clients see by the ids that they have them already.
            Kind::Ejabberd if offline_storage => {
                let ids: Vec<_> = spooled.iter().flat_map(stanza_ids).collect();
                assert_eq!(ids, archived.into_iter().map(|id| (BOB.to_owned(), id)).collect::<Vec<_>>());
            }
            Kind::Ejabberd => assert!(spooled.is_empty(), "{spooled:?}"),
        }
        assert_eq!(archived_until(&mut bob, "m2").await, ["m1", "m2"], "what is delivered later is not copied again");
    }
}

#[tokio::test]
async fn what_is_not_archived_gets_no_id() {
    let setup = Setup::start(&["alice", "bob"]);
    let (mut alice, mut bob) = (setup.client("alice", "phone").await, setup.client("bob", "phone").await);
    let body = "<body>b</body>";
    for (id, content) in [
        ("typing", "<composing xmlns='http://jabber.org/protocol/chatstates'/>".to_owned()),
        ("no-store", format!("{body}<no-store xmlns='urn:xmpp:hints'/>")),
        ("no-permanent-store", format!("{OMEMO}<no-permanent-store xmlns='urn:xmpp:hints'/>")),
        ("request", "<request xmlns='urn:xmpp:receipts'/>".to_owned()),
    ] {
        send(&mut alice, BOB, id, &content).await;
        let live = bob.wait_for(id, |e| e.attr("id") == Some(id)).await;
        assert!(stanza_ids(&live).is_empty(), "{id}");
    }
    alice.send_raw(&format!("<message type='headline' id='news' to='{BOB}'>{body}</message>")).await;
    for (id, content) in [
        ("hint", "<store xmlns='urn:xmpp:hints'/><x xmlns='urn:example:x'/>"),
        ("receipt", "<received xmlns='urn:xmpp:receipts' id='1'/>"),
        ("legacy", "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/></encrypted>"),
    ] {
        send(&mut alice, BOB, id, content).await;
        let live = bob.wait_for(id, |e| e.attr("id") == Some(id)).await;
        assert_eq!(stanza_ids(&live).len(), 1, "{id}");
    }
    assert_eq!(archived_until(&mut bob, "legacy").await, ["hint", "receipt", "legacy"]);
}

#[tokio::test]
async fn pages_are_bounded_by_what_fits_into_one_stanza() {
    let setup = Setup::with(
        &Deployment::new(&["alice", "bob"]),
        "[archive]\npage_default = 1000\npage_max = 1000\npage_bytes = 67108864\n",
    );
    let (mut alice, mut bob) = (setup.client("alice", "phone").await, setup.client("bob", "phone").await);
    let long = "x".repeat(60_000);
    for n in 0..20 {
        send(&mut alice, BOB, &format!("m{n:02}"), &format!("<body>{long}</body>")).await;
        bob.wait_for("a message", |e| e.name() == "message").await;
    }
    let ids = archived_until(&mut bob, "m19").await;
    assert_eq!(ids.len(), 20);
    let page = query(&mut bob, "").await.unwrap();
    assert!(page.results.len() < 20 && !page.complete());
    assert_eq!(setup.multiend.metric("multiend_link_reconnects_total"), 0.0);
}

#[tokio::test]
async fn disco_says_what_clients_look_for() {
    let setup = Setup::start(&["alice"]);
    let mut alice = setup.client("alice", "phone").await;
    let info = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    let of_account = String::from(&alice.request("get", Some(ALICE), info).await);
    for feature in
        ["urn:xmpp:mam:2", "urn:xmpp:mam:2#extended", "urn:xmpp:sid:0", "http://jabber.org/protocol/pubsub#publish"]
    {
        assert!(
            of_account.contains(&format!("'{feature}'")) || of_account.contains(&format!("\"{feature}\"")),
            "{feature}"
        );
    }
    let of_domain = alice.request("get", Some(DOMAIN), info).await;
    let query = of_domain.children().next().unwrap();
    let is_pep = |e: &Element| (e.attr("category"), e.attr("type")) == (Some("pubsub"), Some("pep"));
    assert!(query.children().any(is_pep), "clients of libpurple publish nothing without it");
    let metadata = alice.request("get", None, "<metadata xmlns='urn:xmpp:mam:2'/>").await;
    assert_eq!(metadata.attr("type"), Some("result"));
    let form = poll_async("the form", DEADLINE, async || {
        Some(alice.request("get", None, "<query xmlns='urn:xmpp:mam:2'/>").await)
    })
    .await;
    assert!(String::from(&form).contains("after-id"));
}

#[tokio::test]
async fn a_message_that_is_taken_back_leaves_a_tombstone_in_both_archives() {
    let setup = Setup::start(&["alice", "bob"]);
    let (mut alice, mut bob) = (setup.client("alice", "phone").await, setup.client("bob", "phone").await);
    send(&mut alice, BOB, "m1", "<body>oops</body>").await;
    send(&mut alice, BOB, "m2", "<body>fine</body>").await;
    bob.wait_for("what to take back", |e| e.attr("id") == Some("m2")).await;
    // Nobody takes back what another has said.
    send(&mut bob, ALICE, "r0", "<retract xmlns='urn:xmpp:message-retract:1' id='m2'/>").await;
    alice.wait_for("bob's attempt", |e| e.attr("id") == Some("r0")).await;
    send(&mut alice, BOB, "r1", "<retract xmlns='urn:xmpp:message-retract:1' id='m1'/>").await;
    for client in [&mut alice, &mut bob] {
        archived_until(client, "r1").await;
        let page = query(client, "").await.unwrap();
        let texts: Vec<String> = page.results.iter().map(|(_, message)| String::from(message)).collect();
        assert!(texts[0].contains("<retracted") && !texts[0].contains("oops"), "{}", texts[0]);
        assert!(texts[1].contains("fine"));
    }
}

#[tokio::test]
async fn what_an_owner_does_not_want_archived_is_not() {
    let setup = Setup::start(&["alice", "bob"]);
    let (mut alice, mut bob) = (setup.client("alice", "phone").await, setup.client("bob", "phone").await);
    let prefs = "<prefs xmlns='urn:xmpp:mam:2' default='never'><always/><never/></prefs>";
    assert_eq!(bob.request("set", None, prefs).await.attr("type"), Some("result"));
    send(&mut alice, BOB, "m1", "<body>b</body>").await;
    assert_eq!(archived_until(&mut alice, "m1").await, ["m1"]);
    assert!(query(&mut bob, "").await.unwrap().results.is_empty());
}
