//! Our plugin for ejabberd, compiled against the ejabberd that is installed here, or that `EJABBERD_LIBS` names, as an operator
//! does it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{fs, io};

use super::repository;

/// The directory of the compiled modules. They are compiled once, and again when they or the ejabberd have changed.
pub fn compiled() -> &'static Path {
    static COMPILED: OnceLock<PathBuf> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let compiled = scratch().join(format!("plugin-{:016x}", hash_of_sources()));
        if !compiled.is_dir() {
            // Other tests may do the same at this moment: whoever is first gives it its name.
            fs::create_dir_all(scratch()).expect("a directory");
            let fresh = tempfile::tempdir_in(scratch()).expect("a temporary directory").keep();
            let compile = repository().join("plugins/ejabberd/compile");
            let output = Command::new(compile).arg(&fresh).output().expect("the script runs");
            assert!(
                output.status.success(),
                "the plugin does not compile:\n{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            if fs::rename(&fresh, &compiled).is_err() {
                fs::remove_dir_all(&fresh).expect("it is ours");
            }
        }
        assert!(compiled.is_dir());
        compiled
    })
}

/// A directory that outlives the tests and is thrown away by `cargo clean`.
fn scratch() -> PathBuf {
    let executable = std::env::current_exe().expect("the path of this program");
    let debug = executable.ancestors().nth(2).expect("tests and examples lie in a directory of their own");
    debug.join("ejabberd-plugins")
}

fn hash_of_sources() -> u64 {
    let mut hasher = DefaultHasher::new();
    std::env::var_os("EJABBERD_LIBS").hash(&mut hasher);
    let plugin = repository().join("plugins/ejabberd");
    let mut files = vec![plugin.join("compile")];
    for directory in ["mod_multiend/src", "mod_multiend/include"] {
        let entries: io::Result<Vec<_>> = fs::read_dir(plugin.join(directory)).expect("the sources").collect();
        files.extend(entries.expect("the sources").into_iter().map(|entry| entry.path()));
    }
    files.sort();
    for file in files {
        file.hash(&mut hasher);
        fs::read(&file).expect("a source").hash(&mut hasher);
    }
    hasher.finish()
}
