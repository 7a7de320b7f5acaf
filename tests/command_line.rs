//! The program as an operator meets it: command line, configuration errors, health, stop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use std::process::Command;
use std::time::Duration;

use support::multiend::{Multiend, binary};
use support::ports::free_port;
use support::process::poll;

#[test]
fn check_config_says_what_the_configuration_comes_to_without_secrets() {
    let multiend = Multiend::builder(free_port()).component("multiend.example.org", "hunter2").prepare();
    let (status, out, errors) = multiend.command(&["check-config"]);
    assert!(status.success(), "{errors}");
    assert!(out.contains("component multiend.example.org at 127.0.0.1:"), "{out}");
    assert!(!format!("{out}{errors}").contains("hunter2"), "{out}{errors}");
}

#[test]
fn check_config_and_serve_name_the_key_and_the_line_and_exit_with_2() {
    let mut multiend = Multiend::builder(free_port()).prepare();
    let good = std::fs::read_to_string(multiend.config_path()).unwrap();
    std::fs::write(multiend.config_path(), good.replace("secret =", "sercet =")).unwrap();
    let said = format!("{}:7: component.sercet: unknown key; did you mean secret?\n", multiend.config_path().display());
    let (status, _, errors) = multiend.command(&["check-config"]);
    assert_eq!((status.code(), errors), (Some(2), said.clone()));
    multiend.spawn();
    assert_eq!(multiend.wait_exit().code(), Some(2));
    assert_eq!(multiend.log(), said);
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let output = Command::new(binary()).args(["check-config", "--config", "/nowhere/multiend.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.starts_with("cannot read the configuration /nowhere/multiend.toml: "), "{errors}");
}

#[test]
fn a_program_that_is_not_ready_is_healthy_shows_metrics_and_stops_when_told() {
    // Nobody listens on the component port.
    let mut multiend = Multiend::builder(free_port()).prepare();
    multiend.spawn();
    poll("health", Duration::from_secs(60), || multiend.http("/healthz").filter(|(status, _)| *status == 200));
    let (status, body) = multiend.http("/readyz").unwrap();
    assert_eq!(status, 503);
    assert!(body.contains("\"part\":\"link\""), "{body}");
    let version = format!("multiend_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(multiend.metric(&version), 1.0);
    assert!(multiend.terminate().success(), "{}", multiend.log());
}

#[test]
fn a_second_program_on_the_same_http_port_names_the_setting_in_the_format_of_the_log() {
    let mut first = Multiend::builder(free_port()).prepare();
    first.spawn();
    poll("health", Duration::from_secs(60), || first.http("/healthz"));
    let second = Multiend::builder(free_port()).env("MULTIEND_LOG__FORMAT", "json").prepare();
    std::fs::copy(first.config_path(), second.config_path()).unwrap();
    let (status, _, errors) = second.command(&["serve"]);
    assert_eq!(status.code(), Some(1));
    let lines: Vec<serde_json::Value> = errors.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!(last["level"], "ERROR");
    assert!(last["message"].as_str().unwrap().starts_with("http.listen: cannot listen on 127.0.0.1:"), "{errors}");
}

#[test]
fn stats_of_an_empty_database_are_all_zero_and_migrate_may_run_twice() {
    let multiend = Multiend::builder(free_port()).prepare();
    multiend.migrate();
    multiend.migrate();
    let (status, out, errors) = multiend.command(&["admin", "stats", "--json"]);
    assert!(status.success(), "{errors}");
    let stats: serde_json::Value = serde_json::from_str(&out).unwrap();
    let figures = ["directory", "archive"].map(|part| stats[part].as_object().unwrap().values().collect::<Vec<_>>());
    assert_eq!(figures.map(|part| part.iter().filter(|figure| **figure == 0).count()), [4, 4], "{out}");
}

#[test]
fn stats_are_a_table_for_people_and_say_when_there_is_no_database() {
    let multiend = Multiend::builder(free_port()).prepare();
    let (status, _, errors) = multiend.command(&["admin", "stats"]);
    assert_eq!(status.code(), Some(1));
    assert!(errors.starts_with("multiend: there is no database yet: `multiend migrate` makes one"), "{errors}");
    multiend.migrate();
    let (status, out, errors) = multiend.command(&["admin", "stats"]);
    assert!(status.success(), "{errors}");
    let first: Vec<&str> = out.lines().take(2).collect();
    assert_eq!(first, ["figure                    value", "devices with a bundle         0"], "{out}");
}
