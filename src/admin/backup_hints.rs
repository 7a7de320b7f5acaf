//! `multiend admin backup-hints`: what to back up of this very configuration, with which command, and what not.

use std::fmt;

use serde::Serialize;

use super::last_run;
use crate::config::{Config, DatabaseKind};

/// Steps, each with what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupHints {
    /// In this order.
    pub steps: Vec<Hint>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hint {
    /// `backup`, `leave-out`, `restore`.
    pub when: &'static str,
    /// What to do, or why not.
    pub what: String,
    /// The command, where there is one. It holds no password.
    pub command: Option<String>,
}

/// For a configuration.
pub fn backup_hints(config: &Config) -> BackupHints {
    let hint = |when, what: &str, command: Option<String>| Hint { when, what: what.to_owned(), command };
    let (backup, restore) = match config.database.kind() {
        DatabaseKind::Sqlite(path) => {
            let path = quoted(&path.display().to_string());
            (format!("sqlite3 {path} \".backup backup.sqlite3\""), format!("cp backup.sqlite3 {path}"))
        }
        DatabaseKind::Postgres { host, port, user, database } => {
            let place = format!("--host={} --port={port} --username={}", quoted(&host), quoted(&user));
            let database = quoted(&database);
            (
                format!("pg_dump --format=custom {place} --file=backup.dump {database}"),
                format!("pg_restore --clean --if-exists {place} --dbname={database} backup.dump"),
            )
        }
    };
    let last_run = config.data_dir.join(last_run::FILE).display().to_string();
    let steps = vec![
        hint("backup", "the database: it can be done while multiend runs", Some(backup)),
        hint("backup", "the configuration and the files of secrets that it names", None),
        hint(
            "leave-out",
            &format!("{last_run}: it is what recognises that a database is older than it was; keep it where it is"),
            None,
        ),
        hint("restore", "stop all instances, and put the database in place", Some(restore)),
        hint(
            "restore",
            "say that it was restored, so that no prekey is given twice; then start",
            Some("multiend admin restore-epoch".to_owned()),
        ),
    ];
    BackupHints { steps }
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

impl fmt::Display for BackupHints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Hint { when, what, command } in &self.steps {
            writeln!(f, "{when}: {what}")?;
            if let Some(command) = command {
                writeln!(f, "    {command}")?;
            }
        }
        Ok(())
    }
}
