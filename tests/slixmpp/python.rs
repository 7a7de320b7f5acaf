//! Where slixmpp is: a Python of its own below the target directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::support::repository;

/// The Python that has slixmpp; installed at the first use.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let run = repository().join("crypto/tests/interop/run.sh");
        let output = Command::new(run).arg("--slixmpp").stderr(Stdio::inherit()).output().expect("the script runs");
        assert!(output.status.success(), "slixmpp could not be installed");
        PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
    })
}
