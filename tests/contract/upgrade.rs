//! Upgrades: a database of every earlier schema, with data in it, comes to the schema of today with all of it; and a
//! program that serves meanwhile goes on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use multiend::model::{Device, Protocol, ProtocolDevice};
use multiend::store::{self, Edge, Filter, NodeKind, NoticeKind, Page, PageQuery, SharedStore, StoreError};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use super::database::Database;
use super::words::{
    Got, OMEMO2, alice, at, bundle, claim, copy, device, jid, key, list, message, plain_bundle, publish, session,
};

const SECRET: [u8; 32] = [0x5a; 32];

/// What a program of each schema has left in it: statements, in which `{a}` is alice's account, `{key:N}` the key of a
/// number, `{blob:HEX}` bytes, and `{1,2}` a list of device ids.
const DATA: [(i64, &[&str]); 6] = [
    (
        1,
        &[
            "INSERT INTO account (jid, created_at) VALUES ('someone@example.org', 1), ('alice@example.org', 1)",
            "INSERT INTO device_list (account, protocol, updated_at) VALUES ({a}, 2, 7)",
            "INSERT INTO listed_device (account, protocol, device, position, label) VALUES ({a}, 2, 1, 0, 'phone'), ({a}, 2, 2, 1, NULL)",
            "INSERT INTO list_seen (account, protocol, resource, devices, seen_at) VALUES ({a}, 2, 'phone', {1,2}, 7)",
            "INSERT INTO bundle (account, protocol, device, item_id, payload, identity_key, next_upload, signed_prekey_id,
                 signed_prekey, signed_prekey_signature, published_at)
             VALUES ({a}, 2, 1, 'current', {blob:3c622f3e}, {key:100}, 9, 1, {key:101}, {key:102}, 8)",
            "INSERT INTO prekey (account, protocol, device, key, prekey_id, upload, issued_at, last_issued_at, consumed_at)
             VALUES ({a}, 2, 1, {key:1}, 1, 1, NULL, NULL, NULL), ({a}, 2, 1, {key:2}, 2, 2, {now}, {now}, NULL),
                    ({a}, 2, 1, {key:3}, 3, 3, {now}, {now}, {now})",
            "INSERT INTO prekey_claim (account, protocol, device, requester, key, identity_key, last_resort, claimed_at)
             VALUES ({a}, 2, 1, 'bob@example.net/phone', {key:2}, {key:100}, false, {now})",
            "INSERT INTO hand_out (account, protocol, device, key, requester, last_resort, at)
             VALUES ({a}, 2, 1, {key:2}, 'bob@example.net/phone', false, {now}), ({a}, 2, 1, {key:3}, 'carol@example.net/x', false, {now})",
            "INSERT INTO subscription (account, protocol, node, subscriber) VALUES ({a}, 2, 1, 'bob@example.net')",
            "INSERT INTO session_device (account, protocol, resource, device, learned_at) VALUES ({a}, 2, 'phone', 1, 9)",
        ],
    ),
    (
        2,
        &[
            "INSERT INTO body (id, bytes) VALUES (1, {blob:68656c6c6f})",
            "INSERT INTO entry (account, sequence, archive_id, peer, peer_resource, direction, class, at, body, size)
             VALUES ({a}, 1, 'm1', 'bob@example.net', 'phone', 2, 1, {now}, 1, 5), ({a}, 2, 'm2', 'bob@example.net', NULL, 1, 1, {now}, NULL, 0)",
            "UPDATE account SET next_sequence = 3, last_at = {now} WHERE id = {a}",
            "INSERT INTO meta (key, value) VALUES ('archive-id-secret', {blob:SECRET})",
        ],
    ),
    (
        3,
        &[
            "INSERT INTO prekey (account, protocol, device, key, prekey_id, upload, issued_at, last_issued_at, claimant, fresh_issues)
             VALUES ({a}, 2, 1, {key:4}, 4, 4, {now}, {now}, 'erin@example.net/x', 1)",
            "INSERT INTO claim_budget (scope, name, spent_until, spent_day) VALUES (1, 'erin@example.net', {now}, 20000)",
        ],
    ),
    (5, &["UPDATE deployment SET progress = 7"]),
    (8, &["INSERT INTO notice (account, protocol, kind, device, at) VALUES ({a}, 2, 5, 1, 11)"]),
    (
        10,
        &[
            "UPDATE account SET archive_default = 1 WHERE id = {a}",
            "INSERT INTO archive_preference (account, jid, keep) VALUES ({a}, 'eve@example.net', false)",
            "INSERT INTO read_cursor (account, protocol, device, sequence, moved_at) VALUES ({a}, 2, 1, 1, 9)",
        ],
    ),
];

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A statement as the database understands it.
fn statement(text: &str, is_sqlite: bool) -> String {
    let blob = |hex: &str| if is_sqlite { format!("x'{hex}'") } else { format!("'\\x{hex}'::bytea") };
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, next) = after.split_once('}').unwrap();
        out.push_str(before);
        out.push_str(&match name.split_once(':') {
            Some(("key", number)) => blob(&hex_of(&key(number.parse().unwrap()))),
            Some(("blob", "SECRET")) => blob(&hex_of(&SECRET)),
            Some(("blob", hex)) => blob(hex),
            _ if name == "a" => "(SELECT id FROM account WHERE jid = 'alice@example.org')".to_owned(),
            _ if name == "now" => at(0).micros().to_string(),
            _ if is_sqlite => format!("'{}'", name.replace(',', " ")),
            _ => format!("'{{{name}}}'"),
        });
        rest = next;
    }
    out + rest
}

async fn migrations(database: &Database) -> Migrator {
    let engine = if database.is_sqlite() { "sqlite" } else { "postgres" };
    Migrator::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(engine)).await.unwrap()
}

/// The numbers of all migrations.
async fn versions(database: &Database) -> Vec<i64> {
    migrations(database).await.iter().map(|migration| migration.version).collect()
}

/// Brings a database to one schema, as the program of that time did.
async fn migrate_to(database: &Database, version: i64) {
    let known = migrations(database).await;
    let until = Migrator::with_migrations(known.iter().filter(|one| one.version <= version).cloned().collect());
    if let Some(path) = database.url.strip_prefix("sqlite:") {
        let url = format!("sqlite:{path}?mode=rwc");
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        until.run(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    } else {
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        until.run(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

/// What must be there, whatever the schema was that it came with.
async fn check(store: &SharedStore, from: i64) {
    let in_force = store.device_list(&alice(), OMEMO2, None).await.unwrap().unwrap();
    let devices: Vec<&Device> = in_force.devices().iter().collect();
    assert_eq!((devices.len(), devices[0].label.as_deref()), (2, Some("phone")), "from {from}");
    let bundles = store.published_bundles(&alice(), OMEMO2, None, 9).await.unwrap();
    assert_eq!((bundles.len(), bundles[0].2.as_ref()), (1, b"<b/>".as_slice()), "from {from}");
    assert_eq!(store.stock(&alice(), OMEMO2, device(1)).await.unwrap().unissued, 1, "from {from}");
    let subscribers = store.subscribers(&alice(), OMEMO2, NodeKind::DeviceList).await.unwrap();
    assert_eq!(subscribers, [jid("bob@example.net")], "from {from}");
    assert_eq!(store.session_devices(&alice(), OMEMO2, &session("phone")).await.unwrap(), [device(1)], "from {from}");
    assert!(store.device_records(&alice()).await.unwrap().unwrap().len() >= 2, "from {from}");

    // Invariants 1 to 4: what was issued stays issued, and to whom.
    assert_eq!(claim(store, "bob", at(10)).await, Got::Repeat(2), "from {from}");
    assert_eq!(claim(store, "zoe", at(10)).await, Got::Fresh(1), "from {from}");
    let Got::LastResort(number) = claim(store, "yan", at(10)).await else {
        panic!("a second fresh prekey, from {from}")
    };
    assert_ne!(number, 3, "a consumed prekey is never given again, from {from}");
    assert_eq!(store.directory_totals().await.unwrap().issued_twice, 0, "from {from}");

    let query = PageQuery { owner: alice(), filter: Filter::default(), edge: Edge::First, max: 9, max_bytes: 1 << 20 };
    let Page::Copies { copies, .. } = store.page(&query, at(10)).await.unwrap() else { panic!("no page, from {from}") };
    if from >= 2 {
        let bodies: Vec<_> = copies.iter().map(|copy| (copy.archive_id.as_str(), copy.body.as_deref())).collect();
        assert_eq!(bodies, [("m1", Some(b"hello".as_slice())), ("m2", None)], "from {from}");
        assert_eq!(store.archive_id_secret().await.unwrap(), SECRET, "from {from}");
    }
    if from >= 5 {
        assert_eq!(store.deployment().await.unwrap().progress, 7, "from {from}");
    }
    if from >= 8 {
        let notices = store.take_notices(9, Duration::from_secs(9), at(10)).await.unwrap();
        assert!(notices.iter().any(|notice| notice.kind == NoticeKind::Restored && notice.at.micros() == 11));
    }
    if from >= 10 {
        let never = store.preferences(&alice()).await.unwrap();
        assert!(format!("{never:?}").contains("eve@example.net"), "from {from}");
        let read = ProtocolDevice { protocol: Protocol::Omemo2, device: device(1) };
        let cursors = store.cursors(&alice()).await.unwrap();
        let cursor = cursors.iter().find(|cursor| cursor.device == read).unwrap();
        assert_eq!((cursor.read.map(|(place, _)| place), cursor.behind), (Some(1), 1), "from {from}");
    }
    // And it can be written.
    store.append(&[message("new", at(20), vec![copy("new", "bob@b")])]).await.unwrap();
    publish(store, &bundle(100, &[(50, 50)])).await;
    store.publish_device_list(&alice(), OMEMO2, &session("phone"), &list(&[1, 2, 3]), 9, at(20)).await.unwrap();
    store.purge(at(20), 10).await.unwrap();
}

pub async fn a_database_of_every_earlier_schema_keeps_what_it_has(database: Database) {
    let versions = versions(&database).await;
    assert!(versions.len() > 9);
    for from in &versions {
        let database = database.empty_sibling().await;
        for (version, statements) in DATA.iter().filter(|(version, _)| version <= from) {
            migrate_to(&database, *version).await;
            for text in *statements {
                database.execute(&statement(text, database.is_sqlite())).await;
            }
        }
        migrate_to(&database, *from).await;
        if from != versions.last().unwrap() {
            let refused = database.try_open().await.map(drop).unwrap_err();
            assert!(refused.to_string().contains("run `multiend migrate`"), "{refused}");
        }
        store::migrate(&database.url).await.unwrap();
        check(&database.open().await, *from).await;
    }
}

pub async fn a_migration_that_is_missing_or_another_one_is_named(database: Database) {
    let refused = async || database.try_open().await.map(drop).unwrap_err();
    let forget = "DELETE FROM _sqlx_migrations WHERE version = 7";
    let keep = "CREATE TABLE kept AS SELECT * FROM _sqlx_migrations WHERE version = 7";
    database.execute(keep).await;
    database.execute(forget).await;
    let error = refused().await;
    assert!(matches!(error, StoreError::Migrated { version: 7, .. }), "{error}");
    assert!(error.to_string().contains("is missing in the database"), "{error}");
    database.execute("INSERT INTO _sqlx_migrations SELECT * FROM kept").await;
    database.open().await;

    let other = if database.is_sqlite() { "x'00'" } else { "'\\x00'" };
    database.execute(&format!("UPDATE _sqlx_migrations SET checksum = {other} WHERE version = 7")).await;
    assert!(refused().await.to_string().contains("migration 7 is another one"));
    database.execute(forget).await;
    database.execute("INSERT INTO _sqlx_migrations SELECT * FROM kept").await;
    database.execute("UPDATE _sqlx_migrations SET success = false WHERE version = 7").await;
    assert!(refused().await.to_string().contains("migration 7 has failed half-way"));
}

/// What a program does all day; any error is one of the upgrade.
async fn work(store: &SharedStore, worker: usize, round: usize) -> Result<(), StoreError> {
    let name = format!("w{worker}r{round}");
    store.append(&[message("x", at(0), vec![copy(&name, "bob@b")])]).await?;
    claim(store, &name, at(0)).await;
    let first = u32::try_from(1_000 * (worker + 1) + 3 * round).unwrap();
    publish(store, &plain_bundle(1, first..first + 3)).await;
    store.publish_device_list(&alice(), OMEMO2, &session(&name), &list(&[1]), 9, at(0)).await?;
    store.device_list(&alice(), OMEMO2, Some(&session(&name))).await?;
    store.published_bundles(&alice(), OMEMO2, None, 9).await?;
    let query = PageQuery { owner: alice(), filter: Filter::default(), edge: Edge::Last, max: 9, max_bytes: 1 << 20 };
    store.page(&query, at(0)).await?;
    store.preferences(&alice()).await?;
    store.cursors(&alice()).await?;
    store.device_records(&alice()).await?;
    store.take_notices(9, Duration::from_secs(1), at(0)).await?;
    store.deployment().await?;
    store.waiting(at(0)).await?;
    store.purge(at(0), 9).await?;
    Ok(())
}

/// Every table, as it is now.
async fn tables(database: &Database) -> Vec<String> {
    let sql = if database.is_sqlite() {
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    } else {
        "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'"
    };
    if database.is_sqlite() {
        let mut connection = SqliteConnection::connect(&database.url).await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap()
    } else {
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap()
    }
}

/// Columns and tables that a newer schema adds do not disturb a program that was started before (expand, then contract).
pub async fn a_program_serves_on_while_a_newer_schema_adds_to_every_table(database: Database) {
    let store = database.open().await;
    store.register_account(&alice(), at(0)).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..3)
        .map(|worker| {
            let (store, stop, rounds) = (store.clone(), stop.clone(), rounds.clone());
            tokio::spawn(async move {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    work(&store, worker, round).await.unwrap();
                    round += 1;
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let some_rounds = async || {
        let until = rounds.load(Ordering::Relaxed) + 9;
        crate::support::process::poll_async("work", Duration::from_secs(60), async || {
            (rounds.load(Ordering::Relaxed) >= until).then_some(())
        })
        .await;
    };
    some_rounds().await;
    for table in tables(&database).await.into_iter().filter(|table| table != "_sqlx_migrations") {
        database.execute(&format!("ALTER TABLE \"{table}\" ADD COLUMN added_later integer NOT NULL DEFAULT 3")).await;
    }
    database.execute("CREATE TABLE added_later (account bigint PRIMARY KEY)").await;
    some_rounds().await;
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
}

/// From here on a migration only adds, or says in which version what it takes away went out of use.
const ONLY_ADDED_AFTER: u32 = 12;

#[test]
fn migrations_leave_the_program_before_them_able_to_serve() {
    for engine in ["postgres", "sqlite"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(engine);
        for file in std::fs::read_dir(directory).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let number: u32 = name.split('_').next().unwrap().parse().unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            if number <= ONLY_ADDED_AFTER || text.contains("-- contract: ") {
                continue;
            }
            let sql: String =
                text.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join(" ");
            let sql = sql.to_uppercase();
            for taken in ["DROP TABLE", "DROP COLUMN", "RENAME ", " TYPE ", "SET NOT NULL"] {
                assert!(
                    !sql.contains(taken),
                    "{engine}/{name}: {taken} breaks the program before it, which serves meanwhile; if it is out of use \
                     for a version, say so in a line that begins with `-- contract: `"
                );
            }
            for added in sql.split("ADD COLUMN ").skip(1) {
                let column = added.split([',', ';']).next().unwrap();
                let is_safe = !column.contains("NOT NULL") || column.contains("DEFAULT");
                assert!(is_safe, "{engine}/{name}: a column that must be given and has no default: {column}");
            }
        }
    }
}
