//! A private Prometheus that scrapes one multiend every second, with the alert rules of this repository.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::multiend::http_get;
use super::ports::free_port;
use super::process::{Process, Program, poll};

const START_DEADLINE: Duration = Duration::from_secs(30);
const SCRAPE_DEADLINE: Duration = Duration::from_secs(60);

/// The program with its data. Dropping it kills the program.
pub struct Prometheus {
    // Before the directory: what still runs must not write into it.
    _process: Process,
    _dir: TempDir,
    port: u16,
}

impl Prometheus {
    /// Starts one for the metrics on a loopback port, under the job `multiend`; returns when it answers.
    pub fn start(metrics_port: u16) -> Self {
        let dir = tempfile::Builder::new().prefix("prometheus-").tempdir().expect("a temporary directory");
        let port = free_port();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring/alerts.yml");
        let config = dir.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{rules:?}]\nscrape_configs:\n  \
             - {{job_name: multiend, static_configs: [{{targets: [\"127.0.0.1:{metrics_port}\"]}}]}}\n"
        );
        fs::write(&config, text).expect("a file");
        let mut process = Program::new("prometheus", &dir.path().join("prometheus.log"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .start();
        process.wait_ready(START_DEADLINE, || http_get(port, "/-/ready").is_some_and(|(status, _)| status == 200));
        Self { _process: process, _dir: dir, port }
    }

    /// Waits until it has scraped so often from now on.
    pub fn wait_for_scrapes(&self, scrapes: u32) {
        let count = || {
            let count = self.query("sum(count_over_time(up{job=\"multiend\"}[1h]))").expect("a query");
            count.first().map_or(0.0, |sample| sample.value)
        };
        let before = count();
        poll("scrapes", SCRAPE_DEADLINE, || (count() >= before + f64::from(scrapes)).then_some(()));
    }

    /// The series that a query gives now, or what is wrong with it.
    pub fn query(&self, query: &str) -> Result<Vec<Sample>, String> {
        let (_, body) = http_get(self.port, &format!("/api/v1/query?query={}", escaped(query))).expect("it answers");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let result = answer["data"]["result"].as_array().expect("a vector");
        Ok(result.iter().map(Sample::read).collect())
    }

    /// Name and expression of each alert rule that it has loaded.
    pub fn alerts(&self) -> Vec<(String, String)> {
        let (_, body) = http_get(self.port, "/api/v1/rules?type=alert").expect("it answers");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        let groups = answer["data"]["groups"].as_array().expect("groups");
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules"));
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        rules.map(|rule| (text(&rule["name"]), text(&rule["query"]))).collect()
    }
}

/// One series of an answer.
#[derive(Debug)]
pub struct Sample {
    /// Its labels, as JSON.
    pub labels: Value,
    /// Its value now.
    pub value: f64,
}

impl Sample {
    fn read(series: &Value) -> Self {
        let value = series["value"][1].as_str().expect("a value").parse().expect("a number");
        Self { labels: series["metric"].clone(), value }
    }
}

/// A text as part of a URL's query.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut url, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => url.push(char::from(byte)),
            _ => {
                let _ = write!(url, "%{byte:02X}");
            }
        }
        url
    })
}
