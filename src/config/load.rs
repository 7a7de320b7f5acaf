//! From a file and the environment to a checked configuration.

use std::fs;
use std::path::Path;

use serde::Deserialize as _;
use toml::{Table, Value};

use super::environment;
use super::given::Given;
use super::position::{explain, explain_key, key_at, line_at, line_of, nested, unknown_part};
use super::problem::{ConfigError, Place, Problem};
use super::settings::{Config, ConfigFile};

/// No configuration is as large as this, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A configuration, and what an operator should look at although it does not stop the program.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// One text each.
    pub warnings: Vec<String>,
    /// The keys that were given.
    pub given: Given,
}

/// Reads the file, lays the environment over it, and checks the whole. `variables` is the environment, as
/// [`std::env::vars`].
pub fn load(path: &Path, variables: impl Iterator<Item = (String, String)>) -> Result<Loaded, ConfigError> {
    let unreadable = |error| ConfigError::Unreadable { path: path.to_owned(), error };
    if fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    load_text(path, &text, variables)
}

/// The same for a text that stands for the file.
pub(super) fn load_text(
    path: &Path,
    text: &str,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    // Each source is checked alone first, since only then is it known where a mistake stands.
    let mut merged: Table =
        toml::from_str(text).map_err(|error| ConfigError::Wrong(vec![locate(path, text, &error)]))?;
    let mut problems = match toml::from_str::<ConfigFile>(text) {
        Ok(_) => Vec::new(),
        Err(first) => each_problem(path, text, &merged, &first),
    };
    let overrides = environment::read(variables).unwrap_or_else(|wrong| {
        problems.extend(wrong);
        environment::Overrides::default()
    });
    if !problems.is_empty() {
        return Err(ConfigError::Wrong(problems));
    }
    for (key, value, _) in &overrides.values {
        set(&mut merged, key, value.clone());
    }
    let given = Given::of(&merged);
    // It cannot fail after both sources passed alone; if it does, say why.
    let file = ConfigFile::deserialize(Value::Table(merged))
        .map_err(|error| ConfigError::Wrong(vec![Problem::at("", explain(error.message()))]))?;
    let config = file.check().map_err(|mut problems| {
        for problem in &mut problems {
            let variable = overrides.values.iter().find(|(key, ..)| *key == problem.key);
            problem.place = match (variable, line_of(text, &problem.key)) {
                (Some((_, _, variable)), _) => Place::Variable(variable.clone()),
                (None, Some(line)) => Place::Line { file: path.to_owned(), line },
                (None, None) => Place::Unknown,
            };
        }
        ConfigError::Wrong(problems)
    })?;
    Ok(Loaded { config, warnings: overrides.warnings, given })
}

/// Everything that is wrong with single keys: the library stops at the first, so each key is read alone.
fn each_problem(path: &Path, text: &str, table: &Table, first: &toml::de::Error) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for (key, value) in leaves("", table) {
        let Err(error) = ConfigFile::deserialize(nested(&key, value)) else { continue };
        // A section that does not exist is one mistake, however many keys it has.
        let key = unknown_part(&key, error.message());
        let place = match line_of(text, &key) {
            Some(line) => Place::Line { file: path.to_owned(), line },
            None => Place::Unknown,
        };
        let problem = Problem { place, text: explain_key(&key, error.message()), key };
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    problems.sort_by_key(|problem| match problem.place {
        Place::Line { line, .. } => line,
        _ => usize::MAX,
    });
    if problems.is_empty() { vec![locate(path, text, first)] } else { problems }
}

/// Every key with its value, as `component.secret`; an empty table counts as a value.
fn leaves(prefix: &str, table: &Table) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match value {
            Value::Table(inner) if !inner.is_empty() => found.extend(leaves(&format!("{key}."), inner)),
            value => found.push((key, value.clone())),
        }
    }
    found
}

fn locate(path: &Path, text: &str, error: &toml::de::Error) -> Problem {
    let offset = error.span().map_or(0, |span| span.start);
    Problem {
        place: Place::Line { file: path.to_owned(), line: line_at(text, offset) },
        key: key_at(text, offset).unwrap_or_default(),
        text: explain(error.message()),
    }
}

/// Sets `a.b` in a table. Both sources have passed alone, so what stands at `a`, if anything, is a table.
fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section.to_owned()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}
