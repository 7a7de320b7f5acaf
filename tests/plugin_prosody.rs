//! The plugin in a real Prosody: clients that know nothing of multiend use it at their own addresses (docs/prosody.md).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

#[path = "plugin_prosody/directory.rs"]
mod directory;
#[path = "plugin_prosody/failures.rs"]
mod failures;
#[path = "plugin_prosody/federation.rs"]
mod federation;
#[path = "plugin_prosody/hostile.rs"]
mod hostile;
#[path = "plugin_prosody/instances.rs"]
mod instances;
#[path = "plugin_prosody/lists.rs"]
mod lists;
#[path = "plugin_prosody/messages.rs"]
mod messages;
mod support;

const ALICE: &str = "alice@example.org";
const BOB: &str = "bob@example.org";
const DEVICES: &str = "urn:xmpp:omemo:2:devices";
const BUNDLES: &str = "urn:xmpp:omemo:2:bundles";
const LEGACY_LIST: &str = "eu.siacs.conversations.axolotl.devicelist";
/// An OMEMO message: no body, no hint.
const OMEMO: &str = "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'><keys jid='bob@example.org'>\
                     <key rid='2'>QUFB</key><key rid='3'>QkJC</key></keys></header><payload>UGF5bG9hZA==</payload></encrypted>";

/// Sends a message of type `chat`.
async fn send(client: &mut support::xmpp::Client, to: &str, id: &str, content: &str) {
    client.send_raw(&format!("<message type='chat' id='{id}' to='{to}'>{content}</message>")).await;
}

/// The stanza ids of everything in a client's archive, in order, as soon as the last of them is `last`.
async fn archived_until(client: &mut support::xmpp::Client, last: &str) -> Vec<String> {
    support::process::poll_async("the archive", support::xmpp::DEADLINE * 3, async || {
        let all = support::archive::everything(client).await.ok()?;
        let ids: Vec<_> = all.iter().map(|(_, m)| m.attr("id").unwrap_or_default().to_owned()).collect();
        (ids.last().map(String::as_str) == Some(last)).then_some(ids)
    })
    .await
}
