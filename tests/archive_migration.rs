//! An operator moves to multiend and away again, with the archives of its users: out of Prosody's storage, into ours, and
//! back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod migration;
#[allow(unused)]
mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use migration::export_file::deceptive;
use migration::{answers, archive, archive_until, exchange, exported, imported, preferences, reconfigure, wants};
use sqlx::Connection as _;
use support::DOMAIN;
use support::multiend::Multiend;
use support::plugin::{prosody, prosody_plugins};
use support::postgres::Postgres;
use support::prosody::Prosody;

fn prosodyctl(server: &Prosody, args: &[&str]) {
    let mut command = Command::new("prosodyctl");
    command.arg("--config").arg(server.config_path()).arg("mod_multiend_archive").args(args);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
}

/// `theirs`: the lines that say where Prosody keeps its archive, and the database if it is one. `ours`: our database.
async fn there_and_back(theirs: Option<&str>, ours: Option<&str>) {
    let files = tempfile::tempdir().unwrap();
    // A stock server with its own archive. The plugin's directory is there for the command.
    let mut builder = prosody(&["alice", "bob", "carol"]).host("archive_expires_after = \"never\"");
    if let Some(url) = theirs {
        builder = builder.global(&sql_of(url)).host("storage = { archive = \"sql\" }");
    }
    let mut server = builder.start();
    let port = server.c2s_port();
    reconfigure(&server.config_path(), ", \"multiend\"", ", \"mam\"");
    server.restart();
    exchange(port, "before", 30).await;
    let before = archive(port, "alice").await;
    assert_eq!(before.len(), 30);
    let before_bob = archive(port, "bob").await;
    let wanted = wants("always", &["bob@example.net", "dave@example.net/phone"], &["mallory@example.net"]);
    assert_eq!(preferences(port, "alice", Some(&wanted)).await, wanted);
    preferences(port, "carol", Some(&wants("roster", &[], &["mallory@example.net"]))).await;
    server.stop();
    let export = files.path().join("prosody.xml");
    prosodyctl(&server, &["export", DOMAIN, export.to_str().unwrap()]);

    let builder = Multiend::builder(server.component_port());
    let mut multiend = match ours {
        Some(url) => builder.database(url).prepare(),
        None => builder.prepare(),
    };
    multiend.migrate();
    // Interrupted in the middle of a message; then whole; then once more.
    assert_eq!(export.metadata().unwrap().permissions().mode() & 0o077, 0, "nobody else may read it");
    let text = std::fs::read_to_string(&export).unwrap();
    let cut = files.path().join("cut.xml");
    let (end, _) = text.match_indices("<forwarded ").nth(29).unwrap();
    std::fs::write(&cut, &text[..end + 5]).unwrap();
    let (status, _, errors) = multiend.command(&["admin", "import", cut.to_str().unwrap()]);
    assert!(!status.success() && errors.contains("cannot be read") && errors.contains("29 stored"), "{errors}");
    let whole = imported(&multiend, &[&export]);
    assert_eq!(
        (whole["read"].as_u64(), whole["late"].as_u64(), whole["unusable"].as_u64()),
        (Some(60), Some(0), Some(0)),
        "{whole}"
    );
    assert_eq!(whole["preferences_unusable"].as_u64(), Some(0), "{whole}");
    assert!(whole["known"].as_u64().unwrap() > 0, "{whole}");
    assert_eq!(whole["known"].as_u64().unwrap() + whole["stored"].as_u64().unwrap(), 60, "{whole}");
    let again = imported(&multiend, &[&export]);
    assert_eq!((again["stored"].as_u64(), again["known"].as_u64()), (Some(0), Some(60)), "{again}");
    assert_eq!(again["preferences"].as_u64(), Some(0), "{again}");

    reconfigure(&server.config_path(), ", \"mam\"", ", \"multiend\"");
    server.restart();
    multiend.restart();
    answers(port).await;
    assert_eq!(archive(port, "alice").await, before);
    assert_eq!(archive(port, "bob").await, before_bob);
    assert_eq!(preferences(port, "alice", None).await, wanted);
    assert_eq!(preferences(port, "carol", None).await, wants("always", &[], &["mallory@example.net"]));
    let wanted = wants("never", &["bob@example.org"], &["mallory@example.net/phone"]);
    assert_eq!(preferences(port, "alice", Some(&wanted)).await, wanted);
    exchange(port, "here", 10).await;
    let here = archive_until(port, "alice", "here9").await;
    assert_eq!(here.len(), 40);
    assert_eq!(here[..30], before);
    // What is older than what is here has no place any more, and is told.
    let older = files.path().join("older.xml");
    let first = text.find("<result ").unwrap();
    let id = text[first..].split('\'').nth(3).map(|_| &before[0].0).unwrap();
    std::fs::write(&older, text.replace(id.as_str(), "another-id")).unwrap();
    let late = imported(&multiend, &[&older]);
    assert_eq!((late["stored"].as_u64(), late["late"].as_u64()), (Some(0), Some(1)), "{late}");

    // And away again, into an empty archive of Prosody's.
    let back = ["alice", "bob"].map(|user| exported(&multiend, user, files.path()));
    server.stop();
    reconfigure(&server.config_path(), ", \"multiend\"", ", \"mam\"");
    match theirs {
        Some(url) => {
            let mut database = sqlx::PgConnection::connect(url).await.unwrap();
            let gone = sqlx::query("delete from prosodyarchive").execute(&mut database).await.unwrap();
            assert_eq!(gone.rows_affected(), 60);
        }
        None => {
            let data = server.data_path().join(DOMAIN.replace('.', "%2e"));
            let of_archive = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy() == "archive");
            let gone = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).filter(of_archive);
            assert_eq!(gone.map(|path| std::fs::remove_dir_all(path).unwrap()).count(), 1);
        }
    }
    for file in &back {
        prosodyctl(&server, &["import", file.to_str().unwrap()]);
    }
    // Twice is once.
    prosodyctl(&server, &["import", back[0].to_str().unwrap()]);
    server.restart();
    assert_eq!(archive(port, "alice").await, here);
    assert_eq!(preferences(port, "alice", None).await, wanted);
    assert!(prosody_plugins().join("mod_multiend_archive.lua").exists());
}

/// Prosody's words for a database of the tests' PostgreSQL.
fn sql_of(url: &str) -> String {
    let (path, _) = url.split_once('?').unwrap();
    let (_, name) = path.rsplit_once('/').unwrap();
    format!(
        "sql = {{ driver = \"PostgreSQL\"; database = \"{name}\"; username = \"postgres\"; password = \"\"; \
         host = \"127.0.0.1\"; port = {} }}",
        Postgres::shared().port()
    )
}

#[tokio::test]
async fn archives_in_prosody_s_files_come_and_go() {
    there_and_back(None, None).await;
}

#[tokio::test]
async fn archives_in_prosody_s_database_come_and_go() {
    let theirs = Postgres::shared().fresh_database().await;
    let ours = Postgres::shared().fresh_database().await;
    there_and_back(Some(&theirs), Some(&ours)).await;
}

#[tokio::test]
async fn a_file_is_believed_only_where_its_form_says_so() {
    let mut server = prosody(&["alice", "bob"]).host("archive_expires_after = \"never\"").start();
    let port = server.c2s_port();
    reconfigure(&server.config_path(), ", \"multiend\"", ", \"mam\"");
    server.stop();
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("file.xml");
    std::fs::write(&file, deceptive()).unwrap();
    prosodyctl(&server, &["import", file.to_str().unwrap()]);
    for (text, why) in
        [(&deceptive()[..1000], "cut short"), ("<other/>", "no export"), ("<a><b></a>", "mismatched tag")]
    {
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("prosodyctl");
        command.arg("--config").arg(server.config_path()).args(["mod_multiend_archive", "import"]).arg(&file);
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(why), "{why}: {told}");
    }
    server.restart();
    assert!(archive(port, "bob").await.is_empty());
    for user in ["alice", "bob"] {
        assert_eq!(preferences(port, user, None).await, wants("always", &[], &[]));
    }
    let there = archive(port, "alice").await;
    assert_eq!(there.iter().map(|(_, id, _)| id.as_str()).collect::<Vec<_>>(), ["first", "outer"]);
}
