//! What an operator has given, key by key: which keys differ between two readings, and which of them take effect while the
//! program runs.

use std::collections::BTreeMap;
use std::fmt;

use toml::{Table, Value};

/// Keys that take effect when the configuration is read again; one that ends with a dot stands for all below it.
const RELOADED: [&str; 8] = [
    "admin.jids",
    "archive.page_bytes",
    "archive.page_default",
    "archive.page_max",
    "archive.retention.",
    "archive.unreadable",
    "directory.",
    "log.level",
];

/// Exceptions from those above.
const FIXED: [&str; 1] = ["directory.lifecycle.interval"];

/// The keys that were given, in the file or in the environment, with their values. Some are secrets: they are never shown.
#[derive(Clone, Default)]
pub struct Given(BTreeMap<String, Value>);

impl Given {
    pub(super) fn of(table: &Table) -> Self {
        let mut keys = BTreeMap::new();
        flatten("", table, &mut keys);
        Self(keys)
    }

    /// The keys that have another value there, or stand in only one of both.
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let keys: std::collections::BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        keys.into_iter().filter(|key| self.0.get(*key) != other.0.get(*key)).cloned().collect()
    }

    /// Whether a key takes effect when the configuration is read again.
    pub fn is_reloaded(key: &str) -> bool {
        let stands_for =
            |pattern: &&str| if pattern.ends_with('.') { key.starts_with(*pattern) } else { key == *pattern };
        RELOADED.iter().any(stands_for) && !FIXED.contains(&key)
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn flatten(prefix: &str, table: &Table, keys: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match value {
            Value::Table(inner) => flatten(&format!("{key}."), inner, keys),
            value => drop(keys.insert(key, value.clone())),
        }
    }
}
