//! The snippets of docs/ejabberd.md, run as they stand: only ports and directories are replaced.

use std::path::Path;
use std::process::Command;

use crate::support::ejabberd::Ejabberd;
use crate::support::multiend::Multiend;
use crate::support::omemo::{TestDevice, items, items_of, prekeys_of, publish};
use crate::support::xmpp::Client;
use crate::support::{DOMAIN, repository};
use crate::{ALICE, BOB, BUNDLES, archived_until, send};

const DOCUMENT: &str = include_str!("../../../docs/ejabberd.md");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// The code block after `<!-- KIND: NAME -->`.
fn snippet<'d>(document: &'d str, mark: &str) -> &'d str {
    let (_, rest) = document.split_once(&format!("<!-- {mark} -->\n```")).unwrap();
    rest.split_once('\n').unwrap().1.split_once("```").unwrap().0
}

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
    let lines = |text: &str| text.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines(listen) + lines(modules) < 10, "less than ten lines");
    assert_eq!(listen, snippet(OPERATIONS, "attach: ejabberd.yml"));
    assert_eq!(snippet(DOCUMENT, "plugin: multiend.toml"), snippet(OPERATIONS, "attach: multiend.toml"));

    let mut server = Ejabberd::builder().users(&["alice", "bob"]).start();
    install(&server);
    let listen = listen.replace("5347", &server.component_port().to_string());
    let config = std::fs::read_to_string(server.config_path()).unwrap();
    let config = config.replacen("listen:\n", &format!("listen:\n{listen}"), 1);
    std::fs::write(server.config_path(), config.replacen("modules:\n", &format!("modules:\n{modules}"), 1)).unwrap();
    server.restart();
    let multiend = Multiend::builder(server.component_port()).prepare();
    let data = multiend.data_dir();
    let address = format!("127.0.0.1:{}", multiend.http_port());
    let mut multiend = multiend
        .with_env("MULTIEND_DATA_DIR", data.to_str().unwrap())
        .with_env("MULTIEND_COMPONENT__SERVER", &format!("127.0.0.1:{}", server.component_port()))
        .with_env("MULTIEND_HTTP__LISTEN", &address);
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
