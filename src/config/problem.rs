//! What is wrong with a configuration, said so that an operator finds the place. Never with the value: it might be a
//! secret.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: a line of the file (from 1), an environment variable, or neither for what is missing.
    pub place: Place,
    /// The key, as `component.secret`; empty where the file is not TOML at all.
    pub key: String,
    /// What is wrong with it.
    pub text: String,
}

/// Where something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Not known yet, or the key is missing.
    Unknown,
    /// In the file.
    Line {
        /// Which.
        file: PathBuf,
        /// From 1.
        line: usize,
    },
    /// In an environment variable.
    Variable(String),
}

impl Problem {
    /// A problem with a key, wherever it stands.
    pub(super) fn at(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { place: Place::Unknown, key: key.into(), text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Unknown => {}
            Place::Line { file, line } => write!(f, "{}:{line}: ", file.display())?,
            Place::Variable(name) => write!(f, "environment variable {name}: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.text)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {error}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("the configuration {} is too large to be one", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// What it says is wrong; one line each.
    #[error("{}", lines(.0))]
    Wrong(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
