//! The snippets of docs/prosody.md, run as they stand: only ports and directories are replaced.

use crate::support::DOMAIN;
use crate::support::multiend::Multiend;
use crate::support::omemo::{TestDevice, items, items_of, prekeys_of, publish};
use crate::support::plugin::prosody_plugins;
use crate::support::prosody::Prosody;
use crate::support::xmpp::Client;
use crate::{ALICE, BOB, BUNDLES, archived_until, send};

const DOCUMENT: &str = include_str!("../../../docs/prosody.md");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// The code block after `<!-- KIND: NAME -->`.
fn snippet<'d>(document: &'d str, mark: &str) -> &'d str {
    let (_, rest) = document.split_once(&format!("<!-- {mark} -->\n```")).unwrap();
    rest.split_once('\n').unwrap().1.split_once("```").unwrap().0
}

#[tokio::test]
async fn the_documented_lines_make_a_fresh_server_work() {
    let (global, hosts) = (snippet(DOCUMENT, "plugin: global"), snippet(DOCUMENT, "plugin: hosts"));
    let lines = |text: &str| text.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines(global) + lines(hosts) < 10, "less than ten lines");
    assert_eq!(snippet(DOCUMENT, "plugin: multiend.toml"), snippet(OPERATIONS, "attach: multiend.toml"));

    let mut server = Prosody::builder().users(&["alice", "bob"]).start();
    let config = std::fs::read_to_string(server.config_path()).unwrap();
    let without_paths: String = config
        .lines()
        .filter(|line| !line.starts_with("plugin_paths"))
        .fold(String::new(), |text, line| text + line + "\n");
    let global = global.replace("/usr/local/lib/prosody/modules", prosody_plugins().to_str().unwrap());
    std::fs::write(server.config_path(), format!("{global}{without_paths}{hosts}")).unwrap();
    server.restart();
    let multiend = Multiend::builder(server.component_port()).prepare();
    let data = multiend.data_dir();
    let listen = format!("127.0.0.1:{}", multiend.http_port());
    let mut multiend = multiend
        .with_env("MULTIEND_DATA_DIR", data.to_str().unwrap())
        .with_env("MULTIEND_COMPONENT__SERVER", &format!("127.0.0.1:{}", server.component_port()))
        .with_env("MULTIEND_HTTP__LISTEN", &listen);
    std::fs::write(multiend.config_path(), snippet(DOCUMENT, "plugin: multiend.toml")).unwrap();
    multiend.restart();

    let mut alice = Client::connect(server.c2s_port(), DOMAIN, "alice", "phone").await;
    let mut bob = Client::connect(server.c2s_port(), DOMAIN, "bob", "phone").await;
    let bundle = TestDevice { id: 1, seed: 1 }.bundle(1..=3);
    alice.request("set", None, &publish(BUNDLES, "1", &bundle)).await;
    let answer = bob.request("get", Some(ALICE), &items(BUNDLES, &["1"])).await;
    assert_eq!(prekeys_of(&items_of(&answer)[0].1).len(), 1);
    send(&mut alice, BOB, "m", "<body>b</body>").await;
    assert_eq!(archived_until(&mut bob, "m").await, ["m"]);
}

#[test]
fn every_option_of_the_plugin_is_documented_with_its_default() {
    let plugin = std::fs::read_to_string(prosody_plugins().join("mod_multiend/mod_multiend.lua")).unwrap();
    let mut found = 0;
    for call in plugin.split("module:get_option").skip(1) {
        let Some(name) = call.split('"').nth(1).filter(|name| name.starts_with("multiend_")) else { continue };
        assert!(DOCUMENT.contains(&format!("| `{name}` |")), "{name} is not in docs/prosody.md");
        assert!(plugin.contains(&format!("--   {name} = ")), "{name} is not at the top of the plugin");
        found += 1;
    }
    assert_eq!(found, 7);
}
