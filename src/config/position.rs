//! From an error of the TOML library to the key and the line. The library's own rendering quotes the line, and with it
//! perhaps a secret, so it is never shown.

use serde::Deserialize as _;
use toml::de::{DeTable, DeValue};

use super::settings::ConfigFile;

/// The line, from 1, of a byte of the text.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count().saturating_add(1)
}

/// The key at a byte of the text, as `component.secret`; `None` if the text is not TOML or no key is there.
pub(super) fn key_at(text: &str, offset: usize) -> Option<String> {
    let document = DeTable::parse(text).ok()?;
    path_at(document.get_ref(), offset)
}

fn path_at(table: &DeTable<'_>, offset: usize) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref();
        let below = match value.get_ref() {
            DeValue::Table(inner) => path_at(inner, offset),
            _ => None,
        };
        match below {
            Some(path) => Some(format!("{name}.{path}")),
            None if key.span().contains(&offset) || value.span().contains(&offset) => Some(name.to_string()),
            None => None,
        }
    })
}

/// The line of a key in the text, if it stands there.
pub(super) fn line_of(text: &str, path: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        let (key, value) = table.iter().find(|(key, _)| key.get_ref() == name)?;
        match value.get_ref() {
            DeValue::Table(inner) if names.peek().is_some() => table = inner,
            _ => return Some(line_at(text, key.span().start)),
        }
    }
    None
}

/// The library's message for people: for an unknown key with the one that was probably meant.
pub(super) fn explain(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field ") else {
        return message.to_owned();
    };
    // "unknown field `sercet`, expected one of `server`, `name`, …"
    let mut names = rest.split('`').skip(1).step_by(2);
    let unknown = names.next().unwrap_or_default();
    let known: Vec<&str> = names.collect();
    match nearest(unknown, known.iter().copied()) {
        Some(meant) => format!("unknown key; did you mean {meant}?"),
        None => format!("unknown key; there are {}", known.join(", ")),
    }
}

/// The same for a key whose place is known: a key that stands in the wrong section is told where it belongs.
pub(super) fn explain_key(key: &str, message: &str) -> String {
    let text = explain(message);
    let name = key.rsplit('.').next().unwrap_or(key);
    if !message.starts_with("unknown field ") || text.contains("did you mean") {
        return text;
    }
    let elsewhere = known_keys().into_iter().find(|known| known.rsplit('.').next() == Some(name));
    elsewhere.map_or(text, |known| format!("unknown key; did you mean {known}?"))
}

/// The part of a key that a message says is not known; all of it, if the message says something else.
pub(super) fn unknown_part(key: &str, message: &str) -> String {
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    let mut part = String::new();
    for name in key.split('.') {
        if !part.is_empty() {
            part.push('.');
        }
        part.push_str(name);
        if unknown == Some(name) {
            return part;
        }
    }
    part
}

/// The candidate that a misspelled name most likely means, if one is near.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&name, candidate), candidate))
        .filter(|(distance, candidate)| distance.saturating_mul(3) <= candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

/// Every key of the file, as `component.secret`: what the deserialiser itself expects.
pub(super) fn known_keys() -> Vec<String> {
    let mut found = Vec::new();
    let mut prefixes = vec![String::new()];
    while let Some(prefix) = prefixes.pop() {
        // A name that no section has makes the deserialiser list the names that it has.
        let probe = format!("{prefix}\u{1}");
        let Some(names) = expected_names(&probe) else {
            found.push(prefix.trim_end_matches('.').to_owned());
            continue;
        };
        prefixes.extend(names.iter().map(|name| format!("{prefix}{name}.")));
    }
    found.sort();
    found
}

fn expected_names(path: &str) -> Option<Vec<String>> {
    let error = ConfigFile::deserialize(nested(path, toml::Value::Boolean(true))).err()?;
    let rest = error.message().strip_prefix("unknown field ")?;
    Some(rest.split('`').skip(1).step_by(2).skip(1).map(str::to_owned).collect())
}

/// A document with one key: `a.b` and a value give `{a: {b: value}}`.
pub(super) fn nested(path: &str, value: toml::Value) -> toml::Value {
    path.rsplit('.').fold(value, |inner, name| toml::Value::Table([(name.to_owned(), inner)].into_iter().collect()))
}
