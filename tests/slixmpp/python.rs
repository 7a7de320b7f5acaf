//! Where slixmpp is: a Python of its own below the target directory, which runs the scripts beside this file.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::support::repository;

/// A script of this directory, to which arguments may be added. It leaves nothing behind here.
pub fn script(name: &str) -> Command {
    let mut command = Command::new(python());
    command.arg("-B").arg(repository().join("tests/slixmpp").join(name));
    command
}

/// Runs a script to its end, and gives what it has written.
pub fn output(script: &mut Command) -> String {
    let output = script.output().expect("the script runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The Python that has slixmpp; installed at the first use.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let run = repository().join("crypto/tests/interop/run.sh");
        let output = Command::new(run).arg("--slixmpp").stderr(Stdio::inherit()).output().expect("the script runs");
        assert!(output.status.success(), "slixmpp could not be installed");
        PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
    })
}
