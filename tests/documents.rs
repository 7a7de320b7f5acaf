//! What the documents point to is there: files that they link, and the tests that docs/architecture.md names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files of a directory whose names end so; of one level.
fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(directory)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect()
}

#[test]
fn every_linked_file_exists() {
    let mut documents = Vec::new();
    for directory in
        [".", "docs", "plugins", "charts", "charts/multiend", "monitoring", "packaging", "crypto", "client"]
    {
        documents.extend(files(directory, ".md"));
    }
    let mut links = 0;
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for target in text.split("](").skip(1).map(|rest| rest.split_once(')').unwrap().0) {
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let path = document.parent().unwrap().join(file);
            assert!(path.exists(), "{} links {target}, which is not there", document.display());
            links += 1;
        }
    }
    assert!(links > 0, "no link was found");
}

#[test]
fn every_test_that_the_documents_name_exists() {
    let architecture = tests_named_in("docs/architecture.md", "invariants");
    assert!(architecture > 40, "only {architecture} tests were found");
    let archive = tests_named_in("docs/archive.md", "walk");
    assert!(archive > 30, "only {archive} tests were found");
}

/// How many tests a part of a document names; each must be there.
fn tests_named_in(document: &str, part: &str) -> usize {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let (_, rest) = text.split_once(&format!("<!-- {part} -->")).unwrap();
    let (tables, _) = rest.split_once(&format!("<!-- end of {part} -->")).unwrap();
    let contract: String =
        files("tests/contract", ".rs").iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let contract = contract + &fs::read_to_string(root().join("tests/contract.rs")).unwrap();
    let mut named = 0;
    // Names with an underscore: `<fin/>` and the like are none.
    for name in tables.split('`').skip(1).step_by(2).filter(|name| name.contains('_')) {
        let (source, test) = match name.split_once("::") {
            Some((file, test)) => (fs::read_to_string(root().join(file)).expect(file), test),
            None => (contract.clone(), name),
        };
        assert!(source.contains(&format!("fn {test}(")), "{document} names {name}, which is not there");
        named += 1;
    }
    named
}
