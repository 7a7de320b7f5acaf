//! `multiend check-config`: beyond the file itself, whether the program could start with it, and what it would do first.
//! Changes nothing: the database is looked at, and the server is greeted without logging in.

use std::fmt;

use tokio::net::TcpListener;

use crate::config::Config;
use crate::link::{self, DownReason};
use crate::ops::probe;
use crate::serve::link_config;
use crate::store::{self, StoreError};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// One line for each part.
    pub lines: Vec<Finding>,
}

/// What was found of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `database`, `server` or `http`.
    pub part: &'static str,
    /// Whether `multiend serve` would end because of it.
    pub prevents_start: bool,
    /// What is so, and what would be done.
    pub text: String,
}

impl Findings {
    /// Whether `multiend serve` would start.
    pub fn would_start(&self) -> bool {
        !self.lines.iter().any(|finding| finding.prevents_start)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { part, prevents_start, text } in &self.lines {
            writeln!(f, "{part:<9} {}{text}", if *prevents_start { "PROBLEM: " } else { "" })?;
        }
        Ok(())
    }
}

/// Looks at everything that a configuration names.
pub async fn check(config: &Config) -> Findings {
    Findings { lines: vec![database(config).await, server(config).await, http(config).await] }
}

async fn database(config: &Config) -> Finding {
    let finding = |prevents_start, text: String| Finding { part: "database", prevents_start, text };
    match store::open(config.database.expose(), 1).await {
        Ok(store) => finding(false, format!("has schema {}, as this version needs it", store.schema_version())),
        Err(StoreError::Schema { found: 0, needed, .. }) => finding(
            false,
            format!("is empty, or not there yet: `multiend serve` would set it up, with schema {needed}"),
        ),
        Err(error) => finding(true, error.to_string()),
    }
}

async fn server(config: &Config) -> Finding {
    let finding = |prevents_start, text: String| Finding { part: "server", prevents_start, text };
    match link::probe(&link_config(config)).await {
        Ok(()) => finding(
            false,
            "answers at its component port; the secret was not tried, which would get in the way of a running multiend"
                .to_owned(),
        ),
        // It may come later: the program waits for it.
        Err(reason @ (DownReason::Unreachable(_) | DownReason::SystemShutdown)) => {
            finding(false, format!("{reason}; `multiend serve` would go on trying"))
        }
        Err(reason) => finding(false, format!("{reason}")),
    }
}

async fn http(config: &Config) -> Finding {
    let listen = config.http.listen;
    let finding = |prevents_start, text: String| Finding { part: "http", prevents_start, text };
    match TcpListener::bind(listen).await {
        Ok(_) => finding(false, format!("{listen} is free: metrics and health would be served there")),
        Err(error) => match probe::service(listen).await {
            service if service.starts_with("nobody") => finding(true, format!("cannot listen on {listen}: {error}")),
            service => finding(false, format!("a multiend runs at {listen} already: {service}")),
        },
    }
}
