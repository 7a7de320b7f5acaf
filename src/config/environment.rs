//! Overrides from the environment: `MULTIEND_COMPONENT__SECRET` is `component.secret`.
//!
//! Texts stand as they are, without quotes; everything else as in TOML: `MULTIEND_DOMAINS='["example.org"]'`.

use serde::Deserialize as _;
use toml::{Table, Value};

use super::position::{explain, known_keys, nearest, nested};
use super::problem::{Place, Problem};
use super::settings::ConfigFile;

const PREFIX: &str = "MULTIEND_";
/// Names the file itself, so it is no key of it.
const CONFIG_VARIABLE: &str = "MULTIEND_CONFIG";

/// What the environment says.
#[derive(Default)]
pub(super) struct Overrides {
    /// The keys and their values, and the variable that each came from.
    pub(super) values: Vec<(String, Value, String)>,
    /// Variables with our prefix that mean nothing to us, one text each.
    pub(super) warnings: Vec<String>,
}

/// Sorts out the variables with our prefix.
pub(super) fn read(variables: impl Iterator<Item = (String, String)>) -> Result<Overrides, Vec<Problem>> {
    let keys = known_keys();
    let mut overrides = Overrides { values: Vec::new(), warnings: Vec::new() };
    let mut problems = Vec::new();
    for (variable, text) in variables {
        let Some(name) = variable.strip_prefix(PREFIX).filter(|_| variable != CONFIG_VARIABLE) else {
            continue;
        };
        let key = name.to_lowercase().replace("__", ".");
        if !keys.contains(&key) {
            let advice = match nearest(&key, keys.iter().map(String::as_str)) {
                Some(meant) => format!("did you mean {}?", variable_of(meant)),
                None => "no key of the configuration has this name".to_owned(),
            };
            // Kubernetes sets MULTIEND_PORT and the like beside a service of our name, so these must not stop the program;
            // two underscores are surely meant for us.
            if name.contains("__") {
                problems.push(problem(variable, "", advice));
            } else {
                overrides.warnings.push(format!("environment variable {variable} is ignored: {advice}"));
            }
            continue;
        }
        match value_for(&key, &text) {
            Ok(value) => overrides.values.push((key, value, variable)),
            Err(text) => problems.push(problem(variable, &key, text)),
        }
    }
    if problems.is_empty() { Ok(overrides) } else { Err(problems) }
}

fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

fn problem(variable: String, key: &str, text: String) -> Problem {
    Problem { place: Place::Variable(variable), key: key.to_owned(), text }
}

/// The text itself if the key takes a text; else what it means in TOML.
fn value_for(key: &str, text: &str) -> Result<Value, String> {
    let check = |value: &Value| match ConfigFile::deserialize(nested(key, value.clone())) {
        Ok(_) => Ok(()),
        Err(error) => Err(explain(error.message())),
    };
    let literal = Value::String(text.to_owned());
    let Err(as_text) = check(&literal) else {
        return Ok(literal);
    };
    match toml::from_str::<Table>(&format!("value = {text}")).ok().and_then(|mut table| table.remove("value")) {
        Some(value) if !value.is_str() => check(&value).map(|()| value),
        _ => Err(as_text),
    }
}
