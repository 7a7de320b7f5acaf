//! The plugin in a real Prosody: clients that know nothing of multiend use it at their own addresses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use std::time::Duration;

use minidom::Element;
use support::archive::{everything, query};
use support::omemo::{LEGACY, PUBSUB, TestDevice, devices, ids_of, items, items_of, prekeys_of, publish};
use support::plugin::{Setup, prosody};
use support::process::poll_async;
use support::xmpp::{Client, DEADLINE, error_condition};
use support::{COMPONENT, DOMAIN};

const ALICE: &str = "alice@example.org";
const BOB: &str = "bob@example.org";
const DEVICES: &str = "urn:xmpp:omemo:2:devices";
const BUNDLES: &str = "urn:xmpp:omemo:2:bundles";
const LEGACY_LIST: &str = "eu.siacs.conversations.axolotl.devicelist";
const OMEMO: &str = "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'><keys jid='bob@example.org'>\
                     <key rid='2'>QUFB</key><key rid='3'>QkJC</key></keys></header><payload>UGF5bG9hZA==</payload></encrypted>";

async fn message(client: &mut Client, to: &str, id: &str, content: &str) {
    client.send_raw(&format!("<message type='chat' id='{id}' to='{to}'>{content}</message>")).await;
}

/// The ids that an archive gave a message.
fn stanza_ids(message: &Element) -> Vec<(String, String)> {
    let ids = message.children().filter(|child| child.is("stanza-id", "urn:xmpp:sid:0"));
    ids.map(|id| (id.attr("by").unwrap().to_owned(), id.attr("id").unwrap().to_owned())).collect()
}

/// The stanza ids of everything in a client's archive, in order, once there are `count`.
async fn archived(client: &mut Client, count: usize) -> Vec<String> {
    poll_async("the archive", DEADLINE, async || {
        let all = everything(client).await.ok()?;
        (all.len() >= count).then(|| all.iter().map(|(_, m)| m.attr("id").unwrap_or_default().to_owned()).collect())
    })
    .await
}

#[tokio::test]
async fn a_message_is_in_both_archives_under_the_ids_that_were_stamped_on_it() {
    let setup = Setup::start(&["alice", "bob"]);
    let (mut alice, mut bob) = (setup.client("alice", "phone").await, setup.client("bob", "phone").await);
    let forged: String = [ALICE, BOB, "BOB@Example.org"]
        .iter()
        .map(|by| format!("<stanza-id xmlns='urn:xmpp:sid:0' by='{by}' id='forged'/>"))
        .collect();
    message(&mut alice, BOB, "m1", &format!("<body>hello &amp; &lt;you&gt;\nthere</body>{forged}")).await;
    message(&mut alice, BOB, "m2", OMEMO).await;
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
    assert!(setup.multiend.metric("multiend_link_reconnects_total") < 0.5);
}
