//! The snippets of docs/delegation.md, run as they stand: only ports and directories are replaced.

use crate::stock::*;
use crate::support::document::{lines, snippet};
use crate::support::ejabberd::Ejabberd;
use crate::support::multiend::Multiend;
use crate::support::prosody::Prosody;

const DOCUMENT: &str = include_str!("../../docs/delegation.md");
const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// Runs multiend with the documented file beside a server with the documented lines, and reads an archive.
async fn it_works<S: Stock>(server: S) {
    let multiend = Multiend::documented(snippet(DOCUMENT, "delegation: multiend.toml"), server.component_port());
    let setup = Setup { server, multiend };
    setup.is_granted();
    let mut alice = setup.known_client("alice", "phone").await;
    let mut bob = setup.known_client("bob", "laptop").await;
    send(&mut alice, ALIAS_OF_BOB, "m1").await;
    for client in [&mut alice, &mut bob] {
        assert_eq!(query(client, None, "").await.unwrap().ids(), ["m1"]);
    }
}

#[tokio::test]
async fn the_documented_lines_make_a_fresh_prosody_work() {
    let documented = snippet(DOCUMENT, "delegation: prosody.cfg.lua");
    assert!(lines(documented) < 10, "less than ten lines");
    let mut server = Prosody::builder().users(&["alice", "bob"]).start();
    let config = std::fs::read_to_string(server.config_path()).unwrap();
    std::fs::write(server.config_path(), format!("{config}{documented}")).unwrap();
    server.restart();
    it_works(server).await;
}

#[tokio::test]
async fn the_documented_lines_make_a_fresh_ejabberd_work() {
    let (listen, modules) = (snippet(DOCUMENT, "delegation: listen"), snippet(DOCUMENT, "delegation: modules"));
    assert!(lines(listen) + lines(modules) < 10, "less than ten lines");
    assert_eq!(listen, snippet(OPERATIONS, "attach: ejabberd.yml"));
    let mut server = Ejabberd::builder().users(&["alice", "bob"]).start();
    server.restart_with(listen, modules);
    it_works(server).await;
}
