//! A second server, without any plugin, over s2s.

use super::lists::{answer_for_features, notified, online_with_notify};
use crate::support::DOMAIN;
use crate::support::archive::everything;
use crate::support::multiend::Multiend;
use crate::support::omemo::{TestDevice, devices, items, items_of, prekeys_of, publish};
use crate::support::plugin::{Kind, Server as _};
use crate::support::ports::free_port;
use crate::support::prosody::Prosody;
use crate::support::xmpp::{Client, befriend};
use crate::{ALICE, BUNDLES, DEVICES, Deployment, OMEMO, Server, archived_until, send};

/// A name that every machine finds without DNS.
const OTHER: &str = "localhost";
const CAROL: &str = "carol@localhost";

#[tokio::test]
async fn users_of_another_server_fetch_bundles_are_notified_and_write() {
    let (here, there) = (free_port(), free_port());
    let server = Deployment::new(&["alice"]).federates(here, OTHER, there).start();
    let other = Prosody::builder().domain(OTHER).users(&["carol"]).federates(there, &[(DOMAIN, here)]).start();
    let multiend = Multiend::builder(server.component_port()).start();
    let mut alice = Client::connect(server.c2s_port(), DOMAIN, "alice", "phone").await;
    let mut carol = Client::connect(other.c2s_port(), OTHER, "carol", "phone").await;
    alice.online().await;

    // Not yet a contact, she may read all the same.
    let device = TestDevice { id: 1, seed: 1 };
    alice.request("set", None, &publish(BUNDLES, "1", &device.bundle(1..=3))).await;
    alice.request("set", None, &publish(DEVICES, "current", &devices(&[1]))).await;
    let answer = carol.request("get", Some(ALICE), &items(BUNDLES, &["1"])).await;
    assert_eq!(prekeys_of(&items_of(&answer)[0].1).len(), 1);
    assert_eq!(answer.attr("from"), Some(ALICE));

    // A contact that wants to know is told by the server itself.
    carol.online().await;
    befriend(&mut carol, &mut alice).await;
    befriend(&mut alice, &mut carol).await;
    online_with_notify(&mut carol).await;
    // Her own server has asked her for her features; now alice's does.
    answer_for_features(&mut carol).await;
    // ejabberd gives the last item only to whose features it knew before; both tell of every change.
    if Server::KIND == Kind::Prosody {
        assert_eq!(notified(&mut carol, ALICE, DEVICES).await, Some(vec![1]));
    }
    alice.request("get", None, &items(DEVICES, &[])).await;
    alice.request("set", None, &publish(DEVICES, "current", &devices(&[1, 2]))).await;
    assert_eq!(notified(&mut carol, ALICE, DEVICES).await, Some(vec![1, 2]));

    // Messages both ways are in the one archive that there is. An id that she forged in the name of alice's is not.
    send(&mut carol, ALICE, "c1", &format!("{OMEMO}<stanza-id xmlns='urn:xmpp:sid:0' by='{ALICE}' id='forged'/>"))
        .await;
    let live = alice.wait_for("her message", |e| e.attr("id") == Some("c1")).await;
    let ids: Vec<_> = live.children().filter(|child| child.name() == "stanza-id").collect();
    assert_eq!((ids.len(), ids[0].attr("by")), (1, Some(ALICE)));
    assert_ne!(ids[0].attr("id"), Some("forged"));
    send(&mut alice, CAROL, "a1", OMEMO).await;
    let live = carol.wait_for("the answer", |e| e.attr("id") == Some("a1")).await;
    assert!(!live.children().any(|child| child.name() == "stanza-id"), "what alice's archive calls it is her business");
    assert_eq!(archived_until(&mut alice, "a1").await, ["c1", "a1"]);
    let archived = everything(&mut alice).await.unwrap();
    assert_eq!(archived[0].0, ids[0].attr("id").unwrap());
    // Nobody reads the archive from there.
    let theirs = carol.request("set", Some(ALICE), "<query xmlns='urn:xmpp:mam:2'/>").await;
    assert_eq!(theirs.attr("type"), Some("error"));
    assert!(multiend.metric("multiend_link_reconnects_total") < 0.5);
}
