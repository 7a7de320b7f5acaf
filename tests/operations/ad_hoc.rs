//! The commands of `multiend admin` from an XMPP client: an unmodified slixmpp beside a real Prosody.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::python;
use crate::support::multiend::Multiend;
use crate::support::omemo::{OMEMO_2, TestDevice, devices, publish};
use crate::support::prosody::Prosody;
use crate::support::xmpp::{Client, error_condition};
use crate::support::{COMPONENT, DOMAIN};

/// What an administrator's client is told of each command, and first of the list of them.
fn play(prosody: &Prosody, user: &str, commands: &[Value]) -> Vec<Value> {
    let mut process = python::script("commands.py")
        .args([prosody.c2s_port().to_string(), format!("{user}@{DOMAIN}"), user.to_owned(), COMPONENT.to_owned()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = commands.iter().map(|command| format!("{command}\n")).collect();
    process.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    let out = String::from_utf8(output.stdout).unwrap();
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn an_administrator_works_from_a_client_and_nobody_else_does() {
    let prosody = Prosody::builder().users(&["admin", "alice", "bob"]).multiend().start();
    let mut multiend = Multiend::builder(prosody.component_port())
        .extra("[admin]\njids = [\"admin@example.org\"]")
        .env("MULTIEND_LOG__LEVEL", "info")
        .start();
    let alias = r"alice\40example.org@multiend.example.org";
    let mut alice = Client::connect(prosody.c2s_port(), DOMAIN, "alice", "phone").await;
    alice.online().await;
    let node = format!("{OMEMO_2}:devices");
    let list = publish(&node, "current", &devices(&[1001, 1002]));
    assert_eq!(error_condition(&alice.request("set", Some(alias), &list).await), None);
    let bundle = publish(&format!("{OMEMO_2}:bundles"), "1001", &TestDevice { id: 1001, seed: 1 }.bundle(1..=25));
    assert_eq!(error_condition(&alice.request("set", Some(alias), &bundle).await), None);

    let owner = json!({"owner": "alice@example.org"});
    let device = json!({"owner": "alice@example.org", "protocol": "omemo2", "device": "1002"});
    let commands = [
        json!({"node": "status"}),
        json!({"node": "owners", "fields": {}}),
        json!({"node": "devices", "fields": owner}),
        json!({"node": "quarantine", "fields": device}),
        json!({"node": "quarantine", "fields": device}),
        json!({"node": "revive", "fields": device}),
        json!({"node": "retention", "fields": {"run": "1"}}),
        json!({"node": "dead-letters", "fields": {"action": "list"}}),
        json!({"node": "erase", "fields": {"owner": "alice@example.org", "confirm": "bob@example.org"}}),
        json!({"node": "devices", "fields": {"owner": "not an address"}}),
        json!({"node": "erase", "fields": {"owner": "alice@example.org", "confirm": "alice@example.org"}}),
        json!({"node": "devices", "fields": owner}),
        json!({"node": "no-such-command"}),
    ];
    let told = play(&prosody, "admin", &commands);
    assert_eq!(told.len(), commands.len() + 1, "{told:?}");
    let (list, told) = told.split_first().unwrap();
    assert_eq!(list["commands"].as_array().unwrap().len(), 11, "{list}");
    assert_eq!(list["offered"], true);

    assert_eq!((&told[0]["status"], &told[0]["fields"]["devices_listed"]), (&json!("completed"), &json!("2")));
    assert_eq!(told[1]["items"][0]["owner"], "alice@example.org", "{}", told[1]);
    let devices = told[2]["items"].as_array().unwrap();
    assert_eq!(devices.len(), 2, "{}", told[2]);
    assert_eq!((&devices[0]["device"], &devices[0]["unissued"]), (&json!("1001"), &json!("25")), "{}", told[2]);
    assert_eq!(told[3]["fields"]["state"], "quarantined", "{}", told[3]);
    assert_eq!(told[4]["error"], "not-acceptable", "it is in quarantine already: {}", told[4]);
    assert_eq!(told[5]["fields"]["state"], "listed", "{}", told[5]);
    assert_eq!(told[6]["fields"]["complete"], "true", "{}", told[6]);
    assert_eq!(told[7]["status"], "completed", "{}", told[7]);
    assert_eq!(told[8]["error"], "bad-request", "{}", told[8]);
    assert_eq!(told[9]["error"], "bad-request", "{}", told[9]);
    assert_eq!(told[10]["fields"]["complete"], "true", "{}", told[10]);
    assert_eq!(told[11]["error"], "not-acceptable", "nobody is known by that name any more: {}", told[11]);
    assert_eq!(told[12]["error"], "item-not-found", "{}", told[12]);
    let log = multiend.log();
    let logged: Vec<&str> = log.lines().filter(|line| line.contains("a command of an administrator")).collect();
    assert!(logged.iter().all(|line| line.contains("admin@example.org")), "{logged:?}");
    assert!(logged.iter().any(|line| line.contains("erase")), "{logged:?}");
    assert!(multiend.metric("multiend_door_request_seconds_count{door=\"commands\"}") > 20.0);

    // Bob is told that there are none, and may not use them.
    let told = play(&prosody, "bob", &[json!({"node": "status"}), json!({"node": "erase", "fields": owner})]);
    assert_eq!(told[0]["error"], "item-not-found", "{}", told[0]);
    assert!(told[1..].iter().all(|told| told["error"] == "forbidden"), "{told:?}");

    // Until the operator names him instead.
    let config = std::fs::read_to_string(multiend.config_path()).unwrap();
    std::fs::write(multiend.config_path(), config.replace("admin@example.org", "bob@example.org")).unwrap();
    multiend.process().signal("HUP");
    crate::support::process::poll("the reload", std::time::Duration::from_secs(60), || {
        multiend.log().contains("has been read again").then_some(())
    });
    assert_eq!(play(&prosody, "bob", &[json!({"node": "status"})])[1]["status"], "completed");
    assert_eq!(play(&prosody, "admin", &[json!({"node": "status"})])[1]["error"], "forbidden");
}
