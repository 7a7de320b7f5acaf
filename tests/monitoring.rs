//! Dashboards and alert rules against what the program really exposes, through a real Prometheus: every metric, label and
//! value that a panel or a rule names is there, and every panel shows something.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

#[path = "monitoring/expressions.rs"]
mod expressions;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use expressions::named_in;
use serde_json::Value;
use support::DOMAIN;
use support::multiend::Multiend;
use support::omemo::{OMEMO_2, TestDevice, devices, items, publish};
use support::prometheus::Prometheus;
use support::prosody::Prosody;
use support::xmpp::Client;

const ALICE: &str = r"alice\40example.org@multiend.example.org";
const BOB: &str = r"bob\40example.org@multiend.example.org";

/// What Prometheus adds to each series.
const ADDED_LABELS: [&str; 2] = ["job", "instance"];
/// The metric that Prometheus makes of whether a scrape succeeds.
const UP: &str = "up";

/// Metrics as exposed: name, then label, then the values that it has.
type Exposed = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Alice and bob publish keys, bob claims alice's and writes to her, alice reads her archive.
async fn traffic(prosody: &Prosody) {
    let mut alice = Client::connect(prosody.c2s_port(), DOMAIN, "alice", "phone").await;
    let mut bob = Client::connect(prosody.c2s_port(), DOMAIN, "bob", "phone").await;
    for (client, alias, id) in [(&mut alice, ALICE, 1), (&mut bob, BOB, 2)] {
        client.online().await;
        let bundle = TestDevice { id, seed: 1 }.bundle(1..=30);
        let bundle = publish(&format!("{OMEMO_2}:bundles"), &id.to_string(), &bundle);
        let list = publish(&format!("{OMEMO_2}:devices"), "current", &devices(&[id]));
        for payload in [bundle, list] {
            assert_eq!(client.request("set", Some(alias), &payload).await.attr("type"), Some("result"));
        }
    }
    let claim = items(&format!("{OMEMO_2}:bundles"), &["1"]);
    assert_eq!(bob.request("get", Some(ALICE), &claim).await.attr("type"), Some("result"));
    for n in 0..10 {
        bob.send_raw(&format!("<message type='chat' to='{ALICE}' id='m{n}'><body>hello</body></message>")).await;
    }
    alice.wait_for("the last message", |stanza| stanza.attr("id") == Some("m9")).await;
    let query = "<query xmlns='urn:xmpp:mam:2'/>";
    assert_eq!(alice.request("set", Some(ALICE), query).await.attr("type"), Some("result"));
}

#[tokio::test]
async fn dashboards_and_alerts_name_what_there_is_and_every_panel_shows_something() {
    let prosody = Prosody::builder().users(&["alice", "bob"]).multiend().start();
    let multiend = Multiend::builder(prosody.component_port()).start();
    let prometheus = Prometheus::start(multiend.http_port());
    prometheus.wait_for_scrapes(1);
    traffic(&prosody).await;
    prometheus.wait_for_scrapes(2);

    let (_, text) = multiend.http("/metrics").expect("it answers");
    let exposed = exposed(&text);
    let mut wrong = Vec::new();
    for (name, query) in prometheus.alerts() {
        wrong.extend(unknown_names(&query, &exposed).into_iter().map(|what| format!("{name}: {what}")));
    }
    let mut shown = BTreeMap::new();
    for panel in panels() {
        wrong.extend(unknown_names(&panel.query, &exposed).into_iter().map(|what| format!("{panel}: {what}")));
        let query = panel.query.replace("$job", ".+").replace("$instance", ".+");
        match prometheus.query(&query) {
            Err(error) => wrong.push(format!("{panel}: {error}")),
            Ok(samples) if samples.is_empty() => wrong.push(format!("{panel}: shows nothing: {query}")),
            Ok(samples) => drop(shown.insert(panel.to_string(), samples)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(shown.len() > 50, "only {} queries were found", shown.len());

    // And what they show is what happened.
    let largest = |panel: &str, label: &str, value: &str| {
        let samples = shown.get(panel).unwrap_or_else(|| panic!("no panel {panel} among {:?}", shown.keys()));
        let of_label = samples.iter().filter(|sample| label.is_empty() || sample.labels[label] == value);
        of_label.map(|sample| sample.value).fold(0.0, f64::max)
    };
    assert!(largest("overview: Connection", "", "") > 0.5);
    assert!(largest("overview: Prekeys asked for", "result", "fresh") > 0.0);
    assert!(largest("overview: Messages stored", "class", "plain") > 0.0);
    assert!(largest("overview: Archive queries", "outcome", "answered") > 0.0);
    assert!(largest("overview: Stanzas in", "kind", "message") > 0.0);
    assert!(largest("archive: Batch (p50)", "", "") >= 0.5);
    assert!(largest("directory: Prekeys in and out (published)", "", "") > 0.0);
}

#[test]
fn every_alert_has_a_case_that_fires_and_one_that_does_not() {
    let cases = fs::read_to_string(root().join("monitoring/alerts.test.yml")).unwrap();
    let rules = fs::read_to_string(root().join("monitoring/alerts.yml")).unwrap();
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "only {} alerts were found", alerts.len());
    for alert in alerts {
        let (_, case) = cases.split_once(&format!("- name: {alert}\n")).unwrap_or_else(|| panic!("no case {alert}"));
        let case = case.split("- name: ").next().unwrap();
        assert!(
            case.contains(&format!("'ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"")),
            "{alert} never fires"
        );
        let (input, expected) = case.split_once("promql_expr_test:").unwrap();
        assert!(input.contains("\"quiet\""), "{alert} has nothing that does not fire");
        assert!(!expected.contains("\"quiet\""), "{alert} fires where it should not");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One query of a panel.
struct Panel {
    dashboard: String,
    title: String,
    legend: String,
    query: String,
}

impl std::fmt::Display for Panel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.dashboard, self.title)?;
        // A legend that is made of labels tells the lines of one query apart, not the queries of one panel.
        if self.legend.is_empty() || self.legend.starts_with("{{") { Ok(()) } else { write!(f, " ({})", self.legend) }
    }
}

/// The queries of all panels of all dashboards.
fn panels() -> Vec<Panel> {
    let files = fs::read_dir(root().join("monitoring/dashboards")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    let mut panels = Vec::new();
    for file in files {
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                panels.push(Panel {
                    dashboard: file.file_stem().unwrap().to_string_lossy().into_owned(),
                    title: text(&panel["title"]),
                    legend: text(&target["legendFormat"]),
                    // As long as the test can have run.
                    query: text(&target["expr"]).replace("$__rate_interval", "1h"),
                });
            }
        }
    }
    panels
}

/// Reads the text format of Prometheus.
fn exposed(text: &str) -> Exposed {
    let mut exposed = Exposed::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let named = named_in(series);
        let [selector] = &named.selectors[..] else { panic!("not one series: {line}") };
        let labels = exposed.entry(selector.metric.clone()).or_default();
        for (label, value) in &selector.matchers {
            labels.entry(label.clone()).or_default().insert(value.clone());
        }
    }
    exposed
}

/// What an expression names that there is not.
fn unknown_names(expression: &str, exposed: &Exposed) -> Vec<String> {
    let mut wrong = Vec::new();
    let named = named_in(expression);
    let of_up = BTreeMap::new();
    let mut labels: BTreeSet<&str> = ADDED_LABELS.into();
    for selector in &named.selectors {
        let metric = &selector.metric;
        let Some(there) = (if metric == UP { Some(&of_up) } else { exposed.get(metric) }) else {
            wrong.push(format!("there is no metric {metric}"));
            continue;
        };
        labels.extend(there.keys().map(String::as_str));
        for (label, value) in &selector.matchers {
            if ADDED_LABELS.contains(&label.as_str()) {
                continue;
            }
            let Some(values) = there.get(label) else {
                wrong.push(format!("{metric} has no label {label}"));
                continue;
            };
            for alternative in value.split('|') {
                let is_there = match alternative.strip_suffix(".*") {
                    Some(start) => values.iter().any(|value| value.starts_with(start)),
                    None => values.contains(alternative),
                };
                if !is_there {
                    wrong.push(format!("{metric}: {label} is never {alternative}"));
                }
            }
        }
    }
    let unknown = named.grouping.iter().filter(|label| !labels.contains(label.as_str()));
    wrong.extend(unknown.map(|label| format!("nothing has the label {label}")));
    wrong
}

#[test]
fn a_name_that_is_not_exposed_is_found() {
    let exposed = exposed("# HELP a_total Help\na_total{result=\"fresh\"} 0\nb 1\n");
    assert_eq!(
        unknown_names("sum by (job, result) (rate(a_total{job=~\"$job\", result=~\"fr.*\"}[5m])) / b", &exposed),
        [""; 0]
    );
    for (expression, expected) in [
        ("rate(c_total[5m])", "there is no metric c_total"),
        ("a_total{outcome=\"fresh\"}", "a_total has no label outcome"),
        ("a_total{result=~\"fresh|stale\"}", "a_total: result is never stale"),
        ("sum by (kind) (a_total)", "nothing has the label kind"),
    ] {
        assert_eq!(unknown_names(expression, &exposed), [expected], "{expression}");
    }
}
