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

#[allow(unused)]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use sqlx::Connection as _;
use support::DOMAIN;
use support::archive::everything;
use support::multiend::Multiend;
use support::plugin::{prosody, prosody_plugins};
use support::postgres::Postgres;
use support::process::poll_async;
use support::prosody::Prosody;
use support::xmpp::{Client, DEADLINE};

const OMEMO: &str = "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'><key rid='2'>QUFB</key>\
                     <iv>AAAA</iv></header><payload>UGF5bG9hZA==</payload></encrypted><store xmlns='urn:xmpp:hints'/>";

/// What an archive has: ids, stanza ids, and the messages without what a server adds on the way.
async fn archive(server: &Prosody, user: &str) -> Vec<(String, String, String)> {
    let mut client = Client::connect(server.c2s_port(), DOMAIN, user, "reader").await;
    let all = everything(&mut client).await.unwrap();
    let text = |message: &minidom::Element| message.children().map(|c| format!("{} {}", c.name(), c.text())).collect();
    all.iter()
        .map(|(id, message)| (id.clone(), message.attr("id").unwrap_or_default().to_owned(), text(message)))
        .collect()
}

/// The archive as soon as it ends with the message that has this stanza id.
async fn archive_until(server: &Prosody, user: &str, last: &str) -> Vec<(String, String, String)> {
    poll_async("the archive", DEADLINE, async || {
        let all = archive(server, user).await;
        all.last().is_some_and(|(_, id, _)| id == last).then_some(all)
    })
    .await
}

async fn exchange(server: &Prosody, name: &str, count: usize) {
    let mut alice = Client::connect(server.c2s_port(), DOMAIN, "alice", "phone").await;
    let mut bob = Client::connect(server.c2s_port(), DOMAIN, "bob", "phone").await;
    alice.online().await;
    bob.online().await;
    for number in 0..count {
        let (writer, to) = if number % 2 == 0 { (&mut alice, "bob") } else { (&mut bob, "alice") };
        let content = match number % 3 {
            0 => OMEMO.to_owned(),
            1 => format!("<body>in clear {number} &lt;&amp; äöü</body>"),
            _ => format!("<body>over\n  two lines\r {number}</body>"),
        };
        let id = format!("{name}{number}");
        writer.send_raw(&format!("<message type='chat' id='{id}' to='{to}@{DOMAIN}'>{content}</message>")).await;
        let reader = if number % 2 == 0 { &mut bob } else { &mut alice };
        reader.wait_for(&id, |e| e.name() == "message" && e.attr("id") == Some(&id)).await;
    }
}

fn prosodyctl(server: &Prosody, args: &[&str]) {
    let mut command = Command::new("prosodyctl");
    command.arg("--config").arg(server.config_path()).arg("mod_multiend_archive").args(args);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
}

/// Takes words of the server's configuration out and puts others in.
fn reconfigure(server: &Prosody, from: &str, to: &str) {
    let config = std::fs::read_to_string(server.config_path()).unwrap();
    assert!(config.contains(from), "{from}");
    std::fs::write(server.config_path(), config.replace(from, to)).unwrap();
}

fn imported(multiend: &Multiend, files: &[&Path]) -> serde_json::Value {
    let mut args = vec!["admin", "import", "--json"];
    args.extend(files.iter().map(|file| file.to_str().unwrap()));
    let (status, report, errors) = multiend.command(&args);
    assert!(status.success(), "{errors}");
    serde_json::from_str(&report).unwrap()
}

/// `theirs`: the lines that say where Prosody keeps its archive, and the database if it is one. `ours`: our database.
async fn there_and_back(theirs: Option<&str>, ours: Option<&str>) {
    let files = tempfile::tempdir().unwrap();
    // A stock server with its own archive. The plugin's directory is there for the command.
    let mut builder = prosody(&["alice", "bob"]).host("archive_expires_after = \"never\"");
    if let Some(url) = theirs {
        builder = builder.global(&sql_of(url)).host("storage = { archive = \"sql\" }");
    }
    let mut server = builder.start();
    reconfigure(&server, ", \"multiend\"", ", \"mam\"");
    server.restart();
    exchange(&server, "before", 30).await;
    let before = archive(&server, "alice").await;
    assert_eq!(before.len(), 30);
    let before_bob = archive(&server, "bob").await;
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
    assert!(whole["known"].as_u64().unwrap() > 0, "{whole}");
    assert_eq!(whole["known"].as_u64().unwrap() + whole["stored"].as_u64().unwrap(), 60, "{whole}");
    let again = imported(&multiend, &[&export]);
    assert_eq!((again["stored"].as_u64(), again["known"].as_u64()), (Some(0), Some(60)), "{again}");

    reconfigure(&server, ", \"mam\"", ", \"multiend\"");
    server.restart();
    multiend.restart();
    poll_async("the archive", DEADLINE, async || {
        let mut client = Client::connect(server.c2s_port(), DOMAIN, "alice", "reader").await;
        everything(&mut client).await.ok()
    })
    .await;
    assert_eq!(archive(&server, "alice").await, before);
    assert_eq!(archive(&server, "bob").await, before_bob);
    exchange(&server, "here", 10).await;
    let here = archive_until(&server, "alice", "here9").await;
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
    let back = files.path().join("multiend.xml");
    let mut all = String::new();
    for user in ["alice", "bob"] {
        let (status, export, errors) = multiend.command(&["admin", "export", &format!("{user}@{DOMAIN}")]);
        assert!(status.success(), "{errors}");
        all = export;
        std::fs::write(back.with_extension(user), &all).unwrap();
    }
    assert!(all.contains("<archive"));
    server.stop();
    reconfigure(&server, ", \"multiend\"", ", \"mam\"");
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
    for user in ["alice", "bob"] {
        prosodyctl(&server, &["import", back.with_extension(user).to_str().unwrap()]);
    }
    // Twice is once.
    prosodyctl(&server, &["import", back.with_extension("alice").to_str().unwrap()]);
    server.restart();
    assert_eq!(archive(&server, "alice").await, here);
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
