//! An operator moves to multiend and away again, with the archives of its users: out of ejabberd's mod_mam, into ours, and
//! back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

#[path = "migration/ejabberd_commands.rs"]
mod ejabberd_commands;
mod migration;
#[allow(unused)]
mod support;

use std::collections::BTreeSet;
use std::path::Path;

use ejabberd_commands::Commands;
use migration::export_file::{deceptive, of_user, result, server_data};
use migration::{
    Archived, answers, archive, archive_until, exchange, exported, imported, preferences, reconfigure, wants,
};
use sqlx::Connection as _;
use support::DOMAIN;
use support::ejabberd::Ejabberd;
use support::ejabberd_plugin::compiled;
use support::multiend::Multiend;
use support::plugin::Server as _;
use support::postgres::Postgres;

const MOVES: &str = "  mod_multiend_archive: {}\n";

/// A stock server with mod_mam, which can move archives; on PostgreSQL if a database is given.
fn stock(database: Option<&str>) -> (Ejabberd, Commands) {
    let commands = Commands::new();
    let mut builder = commands
        .allowed(Ejabberd::builder().users(&["alice", "bob", "carol"]).load_path(compiled()).multiend())
        .module(MOVES.trim_end());
    match database {
        Some(name) => {
            builder = builder
                .top(&format!(
                    "sql_type: pgsql\nsql_server: 127.0.0.1\nsql_port: {}\nsql_database: {name}\nsql_username: postgres\n\
                     sql_password: \"\"\nsql_pool_size: 2",
                    Postgres::shared().port()
                ))
                .module("  mod_mam: {default: always, db_type: sql}");
        }
        None => builder = builder.module("  mod_mam: {default: always, db_type: mnesia}"),
    }
    (builder.start(), commands)
}

/// A database with ejabberd's tables: its URL and its name.
async fn ejabberd_database() -> (String, String) {
    let url = Postgres::shared().fresh_database().await;
    let (path, _) = url.split_once('?').unwrap();
    let name = path.rsplit_once('/').unwrap().1.to_owned();
    let mut database = sqlx::PgConnection::connect(&url).await.unwrap();
    let schema = std::fs::read_to_string("/usr/share/ejabberd/sql/pg.sql").unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(schema)).execute(&mut database).await.unwrap();
    (url, name)
}

fn export(commands: &Commands, file: &Path) -> Result<String, String> {
    commands.run("multiend_archive_export", &[("host", DOMAIN), ("file", file.to_str().unwrap())])
}

fn import(commands: &Commands, file: &Path) -> Result<String, String> {
    commands.run("multiend_archive_import", &[("file", file.to_str().unwrap())])
}

/// The archive ids in an export, in order.
fn ids_in(export: &str) -> Vec<&str> {
    let results = export.lines().filter(|line| line.starts_with("<result "));
    results.map(|line| line.split_once(" id='").unwrap().1.split_once('\'').unwrap().0).collect()
}

/// Messages without their archive ids.
fn contents(archive: &[Archived]) -> Vec<(&str, &str)> {
    archive.iter().map(|(_, id, content)| (id.as_str(), content.as_str())).collect()
}

/// `theirs`: the database of ejabberd, if it is not Mnesia. `ours`: our database, if it is not SQLite.
async fn there_and_back(theirs: Option<&str>, ours: Option<&str>) {
    let files = tempfile::tempdir().unwrap();
    let (mut server, commands) = stock(theirs);
    let port = server.c2s_port();
    exchange(port, "before", 30).await;
    let before = archive(port, "alice").await;
    assert_eq!(before.len(), 30);
    let before_bob = archive(port, "bob").await;
    let before_wanted = wants("always", &["bob@example.net", "dave@example.net"], &["mallory@example.net"]);
    assert_eq!(preferences(port, "alice", Some(&before_wanted)).await, before_wanted);
    preferences(port, "carol", Some(&wants("roster", &[], &["mallory@example.net"]))).await;

    // With the plugin on, nothing is added to what mod_mam has, and what is written meanwhile waits.
    reconfigure(&server.config_path(), MOVES, &format!("{MOVES}{}", Ejabberd::LOADS_PLUGIN));
    server.restart();
    exchange(port, "waiting", 4).await;
    let file = files.path().join("ejabberd.xml");
    assert_eq!(export(&commands, &file).unwrap(), "60 messages of 2 accounts");

    let builder = Multiend::builder(server.component_port());
    let mut multiend = match ours {
        Some(url) => builder.database(url).prepare(),
        None => builder.prepare(),
    };
    multiend.migrate();
    let whole = imported(&multiend, &[&file]);
    assert_eq!((whole["read"].as_u64(), whole["stored"].as_u64()), (Some(60), Some(60)), "{whole}");
    assert_eq!((whole["preferences"].as_u64(), whole["rosters"].as_u64()), (Some(2), Some(1)), "{whole}");
    let again = imported(&multiend, &[&file]);
    assert_eq!((again["stored"].as_u64(), again["known"].as_u64()), (Some(0), Some(60)), "{again}");
    multiend.restart();
    answers(port).await;
    let there = archive_until(port, "alice", "waiting3").await;
    assert_eq!((&there[..30], there.len()), (before.as_slice(), 34));
    assert_eq!(archive_until(port, "bob", "waiting3").await[..30], before_bob);
    assert_eq!(preferences(port, "alice", None).await, before_wanted);
    assert_eq!(preferences(port, "carol", None).await, wants("always", &[], &["mallory@example.net"]));
    let wanted = wants("never", &["bob@example.org"], &["mallory@example.net/phone"]);
    assert_eq!(preferences(port, "alice", Some(&wanted)).await, wanted);
    exchange(port, "here", 10).await;
    let here = archive_until(port, "alice", "here9").await;
    assert_eq!((&here[..34], here.len()), (there.as_slice(), 44));
    archive_until(port, "bob", "here9").await;

    // And away again. What mod_mam had is there still; it has given those ids, and they are known by them.
    let [alice, bob] = ["alice", "bob"].map(|user| exported(&multiend, user, files.path()));
    multiend.terminate();
    reconfigure(&server.config_path(), Ejabberd::LOADS_PLUGIN, "");
    reconfigure(&server.config_path(), "default: always", "default: always, compress_xml: true");
    server.restart();
    assert_eq!(archive(port, "alice").await, before);
    assert_eq!(preferences(port, "alice", None).await, before_wanted);
    assert_eq!(import(&commands, &alice).unwrap(), "14 messages stored, 30 there already");
    assert_eq!(import(&commands, &bob).unwrap(), "14 messages stored, 30 there already");
    let wanted = wants("never", &["bob@example.org"], &["mallory@example.net"]);
    assert_eq!(preferences(port, "alice", None).await, wanted, "mod_mam knows no resources");
    let back = archive(port, "alice").await;
    assert_eq!(contents(&back), contents(&here));
    assert_eq!(back[..30], before);
    let ids: Vec<u64> = back.iter().map(|(id, ..)| id.parse().unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    assert_eq!(import(&commands, &alice).unwrap(), "0 messages stored, 44 there already");

    // Into an empty archive, the same.
    commands.run("remove_mam_for_user", &[("user", "alice"), ("host", DOMAIN)]).unwrap();
    assert!(archive(port, "alice").await.is_empty());
    assert_eq!(import(&commands, &alice).unwrap(), "44 messages stored, 0 there already");
    assert_eq!(archive(port, "alice").await, back);
    assert_eq!(export(&commands, &file).unwrap(), "88 messages of 2 accounts");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(ids_in(&text)[..44], back.iter().map(|(id, ..)| id.as_str()).collect::<Vec<_>>());
}

#[tokio::test]
async fn archives_in_ejabberd_s_mnesia_come_and_go() {
    there_and_back(None, None).await;
}

#[tokio::test]
async fn archives_in_ejabberd_s_database_come_and_go() {
    let (_, theirs) = ejabberd_database().await;
    let ours = Postgres::shared().fresh_database().await;
    there_and_back(Some(&theirs), Some(&ours)).await;
}

#[tokio::test]
async fn messages_of_one_microsecond_each_have_a_place() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("file.xml");
    let (url, name) = ejabberd_database().await;
    for database in [None, Some(name.as_str())] {
        let (server, commands) = stock(database);
        let stamp = "2026-01-31T12:00:00.000005Z";
        let body = |n: u32| format!("<body>{n}</body>");
        let mut results: String =
            (0..3).map(|n| result(&format!("given-elsewhere-{n}"), stamp, &format!("m{n}"), &body(n))).collect();
        results += &result("next", "2026-01-31T12:00:00.000006Z", "m3", &body(3));
        // A message need have no id.
        results += &result("no", "2026-01-31T12:00:00.000006Z", "", &body(4)).replace(" id=''", "");
        let expired = "<expired xmlns='urn:multiend:0'/>";
        results += &result("gone", "2026-01-31T12:00:01Z", "gone", expired);
        results += &result("no time", "yesterday", "untimely", &body(5));
        std::fs::write(&file, server_data(&of_user("alice", "", &results))).unwrap();
        let rest = ", 1 places without a message left out, 1 cannot be used";
        assert_eq!(import(&commands, &file).unwrap(), format!("5 messages stored, 0 there already{rest}"));
        assert_eq!(import(&commands, &file).unwrap(), format!("0 messages stored, 5 there already{rest}"));
        let there = archive(server.c2s_port(), "alice").await;
        let numbers: Vec<_> = there.iter().map(|(_, _, content)| content.as_str()).collect();
        assert_eq!(numbers, ["body 0", "body 1", "body 2", "body 3", "body 4"]);
        let ids: Vec<_> = there.iter().map(|(id, ..)| id.as_str()).collect();
        assert_eq!(ids, [5, 6, 7, 8, 9].map(|n| format!("176986080000000{n}")));
    }

    // mod_mam itself may give one id twice; and more often than a page is long.
    let mut database = sqlx::PgConnection::connect(&url).await.unwrap();
    let copies = "insert into archive (username, timestamp, peer, bare_peer, xml, txt, kind, nick) \
                  select username, timestamp, peer, bare_peer, replace(xml, 'm1', 'copy' || n), txt, kind, nick \
                  from archive, generate_series(1, 600) n where username = 'alice' and xml like '%m1%'";
    assert_eq!(sqlx::query(copies).execute(&mut database).await.unwrap().rows_affected(), 600);
    let (_server, commands) = stock(Some(&name));
    assert_eq!(export(&commands, &file).unwrap(), "605 messages of 1 accounts");
    let text = std::fs::read_to_string(&file).unwrap();
    let ids = ids_in(&text);
    assert_eq!((ids[0], ids[1], ids[2]), ("1769860800000005", "1769860800000006", "1769860800000006-2"));
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 605, "each has an id of its own");
    let multiend = Multiend::builder(1).extra("[archive.retention]\nplain = \"forever\"\n").prepare();
    multiend.migrate();
    let whole = imported(&multiend, &[&file]);
    assert_eq!(whole["stored"].as_u64(), Some(605), "{whole}");
    // Back again, each is recognised.
    let alice = exported(&multiend, "alice", files.path());
    assert_eq!(import(&commands, &alice).unwrap(), "0 messages stored, 605 there already");
}

#[tokio::test]
async fn a_file_is_believed_only_where_its_form_says_so() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("file.xml");
    let (server, commands) = stock(None);
    std::fs::write(&file, deceptive()).unwrap();
    assert_eq!(import(&commands, &file).unwrap(), "2 messages stored, 0 there already");
    assert!(archive(server.c2s_port(), "bob").await.is_empty());
    for user in ["alice", "bob"] {
        assert_eq!(preferences(server.c2s_port(), user, None).await, wants("always", &[], &[]));
    }
    let there = archive(server.c2s_port(), "alice").await;
    assert_eq!(there.iter().map(|(_, id, _)| id.as_str()).collect::<Vec<_>>(), ["first", "outer"]);

    let one = |id: &str| result(id, "2026-01-31T12:00:00Z", id, "<body>b</body>");
    let whole = server_data(&of_user("alice", "", &one("whole")));
    let unknown = server_data(&of_user("dave", "", &one("m")));
    let elsewhere = whole.replace(DOMAIN, "elsewhere.example");
    let typed = whole.replacen("<server-data", "<!DOCTYPE a [<!ENTITY b 'c'>]><server-data", 1);
    let long = server_data(&of_user("alice", "", &one("long").replace("<body>", &"<body>b</body>".repeat(400_000))));
    let broken = whole.replace("</body>", "</bdy>");
    for (text, why) in [
        (&whole[..whole.len() - 5], "cut short"),
        (&whole[..whole.find("<delay").unwrap()], "cut short"),
        ("", "cut short"),
        ("<other/><a/>\n", "server-data"),
        (unknown.as_str(), "no account dave@example.org"),
        (elsewhere.as_str(), "no account alice@elsewhere.example"),
        (typed.as_str(), "document type"),
        (long.as_str(), "too long"),
        (broken.as_str(), "well-formed"),
    ] {
        std::fs::write(&file, text).unwrap();
        let told = import(&commands, &file).unwrap_err();
        assert!(told.contains(why), "{why}: {told}");
    }
    let told = import(&commands, &files.path().join("none.xml")).unwrap_err();
    assert!(told.contains("no such file"), "{told}");
    let told =
        commands.run("multiend_archive_export", &[("host", "elsewhere.example"), ("file", "/nowhere")]).unwrap_err();
    assert!(told.contains("mod_mam is not loaded"), "{told}");
}
