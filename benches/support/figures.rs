//! What a benchmark found, for `make bench`: `target/bench/NAME.json`, which `scripts/bench-table` prints.

// No benchmark has every kind of figure.
#![allow(dead_code)]

use std::path::Path;

use serde_json::{Value, json};

/// Figures in the order in which they were found.
#[derive(Default)]
pub struct Figures(Vec<Value>);

impl Figures {
    /// A figure that should be at least `target`.
    pub fn at_least(&mut self, name: &str, value: f64, unit: &str, target: f64) {
        self.add(name, value, unit, &format!(">= {target}"), value >= target);
    }

    /// A figure that should be at most `target`.
    pub fn at_most(&mut self, name: &str, value: f64, unit: &str, target: f64) {
        self.add(name, value, unit, &format!("<= {target}"), value <= target);
    }

    /// A figure that should be 0.
    pub fn none(&mut self, name: &str, count: u64) {
        self.add(name, count as f64, "", "0", count == 0);
    }

    /// A figure without a target.
    pub fn plain(&mut self, name: &str, value: f64, unit: &str) {
        self.add(name, value, unit, "", true);
    }

    fn add(&mut self, name: &str, value: f64, unit: &str, target: &str, holds: bool) {
        let value = (value * 100.0).round() / 100.0;
        println!("{name}: {value} {unit} {target} {}", if holds { "" } else { "MISSED" });
        self.0.push(json!({ "name": name, "value": value, "unit": unit, "target": target, "holds": holds }));
    }

    /// Writes them.
    pub fn write(&self, name: &str) {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        std::fs::create_dir_all(&home).unwrap();
        let text = serde_json::to_string_pretty(&json!({ "figures": self.0 })).unwrap();
        std::fs::write(home.join(format!("{name}.json")), text + "\n").unwrap();
    }
}

/// The middle one of what several rounds gave.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
