//! What holds on every server that has the plugin. Each of them runs these scenarios, with `crate::Server` for itself.

mod backlog;
mod component;
mod directory;
mod failures;
mod federation;
mod hostile;
mod hosts;
mod instances;
mod leaving;
mod lists;
mod messages;
mod rooms;

use crate::support::DOMAIN;
use crate::support::omemo::{TestDevice, items, items_of, prekeys_of, publish};
use crate::support::xmpp::Client;
use crate::{Server, support};

/// That server with the plugin and multiend.
pub type Setup = support::plugin::Setup<Server>;
/// That server with the plugin.
pub type Deployment = support::plugin::Deployment<Server>;

pub const ALICE: &str = "alice@example.org";
pub const BOB: &str = "bob@example.org";
pub const DEVICES: &str = "urn:xmpp:omemo:2:devices";
pub const BUNDLES: &str = "urn:xmpp:omemo:2:bundles";
pub const LEGACY_LIST: &str = "eu.siacs.conversations.axolotl.devicelist";
/// An OMEMO message: no body, no hint.
pub const OMEMO: &str = "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'><keys jid='bob@example.org'>\
                         <key rid='2'>QUFB</key><key rid='3'>QkJC</key></keys></header><payload>UGF5bG9hZA==</payload></encrypted>";

/// Sends a message of type `chat`.
pub async fn send(client: &mut Client, to: &str, id: &str, content: &str) {
    client.send_raw(&format!("<message type='chat' id='{id}' to='{to}'>{content}</message>")).await;
}

/// What the plugin is for, by sessions that know nothing of multiend: one prekey a claim, and an archive.
pub async fn it_works_for_alice_and_bob(c2s_port: u16) {
    let mut alice = Client::connect(c2s_port, DOMAIN, "alice", "phone").await;
    let mut bob = Client::connect(c2s_port, DOMAIN, "bob", "phone").await;
    let bundle = TestDevice { id: 1, seed: 1 }.bundle(1..=3);
    alice.request("set", None, &publish(BUNDLES, "1", &bundle)).await;
    let answer = bob.request("get", Some(ALICE), &items(BUNDLES, &["1"])).await;
    assert_eq!(prekeys_of(&items_of(&answer)[0].1).len(), 1);
    send(&mut alice, BOB, "m", "<body>b</body>").await;
    assert_eq!(archived_until(&mut bob, "m").await, ["m"]);
}

/// The stanza ids of everything in a client's archive, in order, as soon as the last of them is `last`.
pub async fn archived_until(client: &mut Client, last: &str) -> Vec<String> {
    support::process::poll_async("the archive", support::xmpp::DEADLINE * 3, async || {
        let all = support::archive::everything(client).await.ok()?;
        let ids: Vec<_> = all.iter().map(|(_, m)| m.attr("id").unwrap_or_default().to_owned()).collect();
        (ids.last().map(String::as_str) == Some(last)).then_some(ids)
    })
    .await
}
