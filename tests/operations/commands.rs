//! `multiend admin status`, `retention` and `backup-hints`, and `check-config` with what it names.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::multiend::Multiend;
use crate::support::ports::free_port;
use crate::support::postgres::Postgres;
use crate::support::process::poll;
use crate::support::prosody::Prosody;

fn json(multiend: &Multiend, args: &[&str]) -> Value {
    let (status, out, errors) = multiend.command(&[args, &["--json"]].concat());
    assert!(status.success(), "{errors}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn status_says_whether_the_service_runs_and_what_it_waits_for() {
    let mut multiend = Multiend::builder(free_port()).prepare();
    multiend.migrate();
    let status = json(&multiend, &["admin", "status"]);
    assert!(status["service"].as_str().unwrap().starts_with("nobody answers at 127.0.0.1:"), "{status}");
    assert_eq!((&status["expired"]["count"], &status["prekeys_handed_out"]), (&Value::from(0), &Value::from(true)));
    multiend.spawn();
    poll("the service", Duration::from_secs(90), || {
        let status = json(&multiend, &["admin", "status"]);
        status["service"].as_str().unwrap().starts_with("not ready: link: ").then_some(())
    });
    let (_, table, _) = multiend.command(&["admin", "status"]);
    assert!(table.starts_with("what "), "{table}");
}

#[test]
fn a_retention_run_is_dry_unless_told_otherwise() {
    let multiend = Multiend::builder(free_port()).prepare();
    multiend.migrate();
    let dry = json(&multiend, &["admin", "retention"]);
    assert_eq!((&dry["dry_run"], &dry["due"]), (&Value::from(true), &Value::from(0)));
    let run = json(&multiend, &["admin", "retention", "--run"]);
    assert_eq!((&run["dry_run"], &run["complete"]), (&Value::from(false), &Value::from(true)));
}

#[tokio::test]
async fn the_hints_for_backups_are_commands_that_work() {
    let url = Postgres::shared().fresh_database().await;
    for database in [None, Some(url)] {
        let mut builder = Multiend::builder(free_port());
        if let Some(url) = &database {
            builder = builder.database(url);
        }
        let multiend = builder.prepare();
        multiend.migrate();
        let hints = json(&multiend, &["admin", "backup-hints"]);
        let steps = hints["steps"].as_array().unwrap();
        let command = steps.iter().find_map(|step| step["command"].as_str()).unwrap();
        assert!(
            steps.iter().any(|step| step["when"] == "leave-out" && step["what"].as_str().unwrap().contains("last-run"))
        );
        let dir = tempfile::tempdir().unwrap();
        let tool = command.split(' ').next().unwrap();
        let there = std::process::Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap();
        if !there.status.success() {
            continue;
        }
        let run = std::process::Command::new("sh").args(["-c", command]).current_dir(dir.path()).output().unwrap();
        assert!(run.status.success(), "{command}: {}", String::from_utf8_lossy(&run.stderr));
        let written = fs::read_dir(dir.path()).unwrap().next().expect("a backup").unwrap();
        assert!(written.metadata().unwrap().len() > 1_000);
    }
}

#[test]
fn check_config_tries_the_database_the_server_and_the_port_and_says_what_serve_would_do() {
    let prosody = Prosody::builder().multiend().start();
    let mut multiend = Multiend::builder(prosody.component_port()).prepare();
    let (status, out, errors) = multiend.command(&["check-config"]);
    assert!(status.success(), "{out}{errors}");
    assert!(out.contains("database  is empty, or not there yet: `multiend serve` would set it up"), "{out}");
    assert!(out.contains("server    answers at its component port"), "{out}");
    assert!(out.contains("is free: metrics and health would be served there"), "{out}");
    assert!(!multiend.data_dir().join("multiend.sqlite3").exists(), "it only looks");
    let (status, out, _) = multiend.command(&["check-config", "--offline"]);
    assert!(status.success() && !out.contains("component port"), "{out}");

    multiend.restart();
    let (status, out, _) = multiend.command(&["check-config"]);
    assert!(status.success(), "{out}");
    assert!(out.contains("database  has schema "), "{out}");
    assert!(out.contains("a multiend runs at") && out.contains("already: ready"), "{out}");
    assert!(multiend.metric("multiend_link_up") > 0.5 && multiend.metric("multiend_link_reconnects_total") < 0.5);

    // A server that does not know it is waited for; a port that somebody else has is the end.
    let squatter = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = fs::read_to_string(multiend.config_path()).unwrap();
    let config = config
        .replace(
            &format!("127.0.0.1:{}\"\n\n", multiend.http_port()),
            &format!("{}\"\n\n", squatter.local_addr().unwrap()),
        )
        .replace("\"multiend.example.org\"", "\"unknown.example.org\"");
    fs::write(multiend.config_path(), config).unwrap();
    let (status, out, _) = multiend.command(&["check-config"]);
    assert_eq!(status.code(), Some(1), "{out}");
    assert!(out.contains("server    the server knows no component of this name"), "{out}");
    assert!(out.contains("http      PROBLEM: cannot listen on"), "{out}");
}

#[test]
fn everything_that_is_wrong_is_said_at_once_each_with_its_line() {
    let multiend = Multiend::builder(free_port()).prepare();
    let text = "domains = \"example.org\"\nsecret = \"hunter2\"\n[component]\nname = 5\nreconnect_max = \"1\"\n\
                [archiv]\npage_max = 1\npurge_batch = 2\n[limits]\ndepth = 1\n";
    fs::write(multiend.config_path(), text).unwrap();
    let (status, _, errors) = multiend.command(&["check-config"]);
    assert_eq!(status.code(), Some(2));
    let path = multiend.config_path().display().to_string();
    let said: Vec<&str> = errors.lines().map(|line| line.strip_prefix(&path).unwrap_or(line)).collect();
    assert_eq!(
        said,
        [
            ":1: domains: write a list of domains, as [\"example.org\"]",
            ":2: secret: unknown key; did you mean component.secret?",
            ":4: component.name: write it as a text, in quotes",
            ":5: component.reconnect_max: write a time with its unit: ms, s, m, h or d, as in \"90s\"",
            ":6: archiv: unknown key; did you mean archive?",
            ":10: limits.depth: must be a whole number between 16 and 256",
        ]
    );
    assert!(!errors.contains("hunter2"));
}
