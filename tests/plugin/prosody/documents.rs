//! The snippets of docs/prosody.md, run as they stand: only ports and directories are replaced.

use crate::it_works_for_alice_and_bob;
use crate::support::document::{lines, snippet};
use crate::support::multiend::Multiend;
use crate::support::plugin::prosody_plugins;
use crate::support::prosody::Prosody;

const DOCUMENT: &str = include_str!("../../../docs/prosody.md");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

#[tokio::test]
async fn the_documented_lines_make_a_fresh_server_work() {
    let (global, hosts) = (snippet(DOCUMENT, "plugin: global"), snippet(DOCUMENT, "plugin: hosts"));
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
    let _multiend = Multiend::documented(snippet(DOCUMENT, "plugin: multiend.toml"), server.component_port());
    it_works_for_alice_and_bob(server.c2s_port()).await;
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
