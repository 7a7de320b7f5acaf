//! docs/operations.md explains the metrics that the program really has: each with its labels and its type, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use crate::support::multiend::Multiend;
use crate::support::ports::free_port;
use crate::support::process::poll;

/// A metric: its labels, and its type.
type Metrics = BTreeMap<String, (BTreeSet<String>, String)>;

/// What a program shows that has just been started and whose server is not there.
fn shown() -> String {
    let mut multiend = Multiend::builder(free_port()).prepare();
    multiend.spawn();
    poll("a walk over all devices", Duration::from_secs(90), || {
        let (_, text) = multiend.http("/metrics")?;
        (!text.contains("\nmultiend_census_walked_timestamp_seconds 0\n")).then_some(text)
    })
}

fn metrics_of(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            metrics.insert(name.to_owned(), (BTreeSet::new(), kind.to_owned()));
            continue;
        }
        let Some((series, labels)) = line.split_once(' ').unwrap().0.split_once('{') else { continue };
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
            let name = series.strip_suffix(suffix)?;
            metrics.get(name).filter(|(_, kind)| kind == "histogram").map(|_| name.to_owned())
        });
        let entry = metrics.get_mut(&family.unwrap_or_else(|| series.to_owned())).unwrap();
        let names = labels.trim_end_matches('}').split("\",").map(|label| label.split('=').next().unwrap());
        entry.0.extend(names.filter(|name| *name != "le").map(str::to_owned));
    }
    metrics
}

fn documented() -> Metrics {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let line = line.strip_prefix("| `")?;
        (line.starts_with("multiend_") || line.starts_with("process_")).then_some(line)
    });
    let mut metrics = Metrics::new();
    for row in rows {
        let (name, rest) = row.split_once('`').unwrap();
        let columns: Vec<&str> = rest.split('|').map(str::trim).collect();
        assert!(!columns[2].is_empty(), "{name} is not explained");
        let kind = columns[1].split(',').next().unwrap().to_owned();
        let (name, labels) = name.trim_end_matches('}').split_once('{').unwrap_or((name, ""));
        let labels = labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect();
        assert!(metrics.insert(name.to_owned(), (labels, kind)).is_none(), "{name} is there twice");
    }
    metrics
}

#[test]
fn the_table_of_metrics_is_what_the_program_shows_and_every_counter_starts_at_0() {
    let text = shown();
    let (shown, documented) = (metrics_of(&text), documented());
    for (name, what) in &shown {
        assert_eq!(documented.get(name), Some(what), "{name} in docs/operations.md");
    }
    for name in documented.keys() {
        assert!(shown.contains_key(name), "{name} stands in docs/operations.md, and the program does not show it");
    }
    for (name, (_, kind)) in shown.iter().filter(|(name, _)| name.starts_with("multiend_")) {
        let mut series = text.lines().filter(|line| line.starts_with(name.as_str()));
        assert!(series.clone().next().is_some(), "{name} has no series at the start");
        // What the program does by itself: the database. Nobody has asked it anything.
        if kind == "counter" && !name.starts_with("multiend_store_") {
            assert!(series.all(|line| line.ends_with(" 0")), "{name} does not start at 0");
        }
    }
    // Whoever is served, they are in no label.
    assert!(!text.contains("example"), "a domain or an address is in a label");
}

#[test]
fn every_metric_that_any_document_names_is_there() {
    let known = documented();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![root.join("README.md")];
    documents.extend(std::fs::read_dir(root.join("docs")).unwrap().map(|file| file.unwrap().path()));
    for document in documents {
        let Ok(text) = std::fs::read_to_string(&document) else { continue };
        for (start, _) in text.match_indices("multiend_") {
            let name: String = text[start..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            let parts = ["link", "door", "queue", "directory", "archive", "store", "census", "build"];
            // The plugin's commands have names that begin alike.
            if text[..start].ends_with("ejabberdctl ") {
                continue;
            }
            let is_metric = parts.iter().any(|part| name.starts_with(&format!("multiend_{part}_")));
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let exists = known.contains_key(&name) || family.is_some_and(|family| known.contains_key(family));
            assert!(!is_metric || exists, "{} names {name}, which is not there", document.display());
        }
    }
}
