//! The snippets of docs/ejabberd.md, run as they stand: only ports and directories are replaced.

use std::path::Path;
use std::process::Command;

use crate::it_works_for_alice_and_bob;
use crate::support::document::{lines, snippet};
use crate::support::ejabberd::Ejabberd;
use crate::support::multiend::Multiend;
use crate::support::repository;

const DOCUMENT: &str = include_str!("../../../docs/ejabberd.md");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// Does what the document says, with the home directory of this ejabberd for that of Debian's.
fn install(server: &Ejabberd) {
    let home = server.config_path().parent().unwrap().to_owned();
    let commands = snippet(DOCUMENT, "plugin: install").replace("/var/lib/ejabberd", home.to_str().unwrap());
    let status = Command::new("sh").arg("-ec").arg(commands).current_dir(repository()).status().unwrap();
    assert!(status.success());
    assert!(Path::new(&home).join(".ejabberd-modules/mod_multiend/ebin/mod_multiend.beam").exists());
}

#[tokio::test]
async fn the_documented_lines_make_a_fresh_server_work() {
    let (listen, modules) = (snippet(DOCUMENT, "plugin: listen"), snippet(DOCUMENT, "plugin: modules"));
    assert!(lines(listen) + lines(modules) < 10, "less than ten lines");
    assert_eq!(listen, snippet(OPERATIONS, "attach: ejabberd.yml"));
    assert_eq!(snippet(DOCUMENT, "plugin: multiend.toml"), snippet(OPERATIONS, "attach: multiend.toml"));

    let mut server = Ejabberd::builder().users(&["alice", "bob"]).start();
    install(&server);
    server.restart_with(listen, modules);
    let _multiend = Multiend::documented(snippet(DOCUMENT, "plugin: multiend.toml"), server.component_port());
    it_works_for_alice_and_bob(server.c2s_port()).await;
}

#[test]
fn every_option_of_the_plugin_is_documented() {
    let plugin = repository().join("plugins/ejabberd/mod_multiend/src/mod_multiend.erl");
    let plugin = std::fs::read_to_string(plugin).unwrap();
    let mut found = 0;
    for option in plugin.split("\nmod_opt_type(").skip(1) {
        let (name, _) = option.split_once(')').unwrap();
        assert!(DOCUMENT.contains(&format!("| `{name}` |")), "{name} is not in docs/ejabberd.md");
        assert!(plugin.contains(&format!("%%%   {name}: ")), "{name} is not at the top of the plugin");
        found += 1;
    }
    assert_eq!(found, 7);
}
