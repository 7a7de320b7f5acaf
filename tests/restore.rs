//! A restore from a backup, as it happens to an operator: the database is put back to what it was, and no prekey that was
//! handed out in between is handed out as unused again (DESIGN: directory invariant 9).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use support::multiend::Multiend;
use support::omemo::{TestDevice, devices, items, items_of, prekeys_of, publish};
use support::postgres::Postgres;
use support::process::poll;
use support::prosody::Prosody;
use support::xmpp::{Client, error_condition};
use support::{COMPONENT, DOMAIN, SECRET};

const DEVICES: &str = "urn:xmpp:omemo:2:devices";
const BUNDLES: &str = "urn:xmpp:omemo:2:bundles";
const ALICE: &str = r"alice\40example.org@multiend.example.org";
const PHONE: TestDevice = TestDevice { id: 1001, seed: 1 };
const DEADLINE: Duration = Duration::from_secs(90);

/// How a database is backed up and put back.
enum Backup {
    Sqlite(PathBuf),
    Postgres(String),
}

impl Backup {
    /// A copy of the database as it is now, while it is in use.
    async fn take(url: &str) -> Self {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let copy = PathBuf::from(format!("{path}.backup"));
            let mut connection = SqliteConnection::connect(url).await.unwrap();
            let sql = format!("VACUUM INTO '{}'", copy.display());
            sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            return Self::Sqlite(copy);
        }
        // From one database to another by the tables' text form, as a dump does.
        let copy = Postgres::shared().fresh_database().await;
        multiend::store::migrate(&copy).await.unwrap();
        copy_tables(url, &copy).await;
        Self::Postgres(copy)
    }

    /// Puts it back. Nothing may be using the database.
    async fn restore(&self, url: &str) {
        match self {
            Self::Sqlite(copy) => {
                let path = url.strip_prefix("sqlite:").unwrap();
                for ending in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(format!("{path}{ending}"));
                }
                std::fs::copy(copy, path).unwrap();
            }
            Self::Postgres(copy) => copy_tables(copy, url).await,
        }
    }
}

/// Makes the tables of one PostgreSQL database those of another.
async fn copy_tables(from: &str, to: &str) {
    let mut source = PgConnection::connect(from).await.unwrap();
    let mut target = PgConnection::connect(to).await.unwrap();
    let mut writing = target.begin().await.unwrap();
    sqlx::query("SET LOCAL session_replication_role = replica").execute(&mut *writing).await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' AND tablename <> '_sqlx_migrations'",
    )
    .fetch_all(&mut source)
    .await
    .unwrap();
    for table in tables {
        sqlx::query(AssertSqlSafe(format!("DELETE FROM {table}"))).execute(&mut *writing).await.unwrap();
        let rows: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(format!("SELECT row_to_json(t)::text FROM {table} t")))
                .fetch_all(&mut source)
                .await
                .unwrap();
        for row in rows {
            sqlx::query(AssertSqlSafe(format!(
                "INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_record(null::{table}, $1::json)"
            )))
            .bind(row)
            .execute(&mut *writing)
            .await
            .unwrap();
        }
    }
    writing.commit().await.unwrap();
}

async fn ok(client: &mut Client, kind: &str, payload: &str) -> minidom::Element {
    let answer = client.request(kind, Some(ALICE), payload).await;
    assert_eq!(answer.attr("type"), Some("result"), "{payload}\n=> {}", String::from(&answer));
    answer
}

async fn publish_bundle(alice: &mut Client, prekeys: std::ops::RangeInclusive<u32>) {
    ok(alice, "set", &publish(BUNDLES, &PHONE.id.to_string(), &PHONE.bundle(prekeys))).await;
}

fn bundle_of_phone() -> String {
    items(BUNDLES, &[&PHONE.id.to_string()])
}

struct Place {
    prosody: Prosody,
    multiend: Multiend,
    sessions: u32,
}

impl Place {
    async fn client(&self, user: &str, resource: &str) -> Client {
        Client::connect(self.prosody.c2s_port(), DOMAIN, user, resource).await
    }

    /// A prekey for somebody new: its number.
    async fn claim(&mut self) -> u32 {
        self.sessions += 1;
        let mut client = self.client("bob", &format!("r{}", self.sessions)).await;
        let answer = ok(&mut client, "get", &bundle_of_phone()).await;
        prekeys_of(&items_of(&answer).remove(0).1)[0].0
    }

    async fn claim_is_refused(&mut self) {
        self.sessions += 1;
        let mut client = self.client("bob", &format!("r{}", self.sessions)).await;
        let answer = client.request("get", Some(ALICE), &bundle_of_phone()).await;
        assert_eq!(error_condition(&answer), Some("resource-constraint"), "{}", String::from(&answer));
        assert!(String::from(&answer).contains("restored from a backup"), "{}", String::from(&answer));
    }

    fn fresh(&self) -> f64 {
        self.multiend.metric("multiend_directory_claims_total{protocol=\"omemo2\",result=\"fresh\"}")
    }

    /// Starts, and waits until it is connected and says that it does not trust the database.
    fn start_in_doubt(&mut self) {
        self.multiend.spawn();
        poll("a connected multiend that doubts its database", DEADLINE, || {
            let (status, body) = self.multiend.http("/readyz")?;
            (status == 503 && body.contains("older than it was at the last run") && !body.contains("\"link\""))
                .then_some(())
        });
        assert!((self.multiend.metric("multiend_directory_unconfirmed") - 1.0).abs() < 0.1);
        assert!(self.multiend.log().contains("multiend admin restore-epoch --confirm-current"));
    }

    fn command(&self, args: &[&str]) -> String {
        let (status, output, errors) = self.multiend.command(&[&["admin"], args].concat());
        assert!(status.success(), "{args:?}: {errors}");
        output
    }

    fn wait_ready(&self) {
        poll("prekeys again", DEADLINE, || (self.multiend.http("/readyz")?.0 == 200).then_some(()));
    }
}

async fn restored_from_a_backup(url: Option<String>) {
    let prosody = Prosody::builder().users(&["alice", "bob"]).multiend().start();
    let builder = Multiend::builder(prosody.component_port());
    let multiend = match &url {
        Some(url) => builder.database(url).start(),
        None => builder.start(),
    };
    let url = url.unwrap_or_else(|| format!("sqlite:{}", multiend.data_dir().join("multiend.sqlite3").display()));
    let mut place = Place { prosody, multiend, sessions: 0 };
    let mut alice = place.client("alice", "phone").await;
    publish_bundle(&mut alice, 1..=10).await;
    ok(&mut alice, "set", &publish(DEVICES, "current", &devices(&[PHONE.id]))).await;
    assert_eq!([place.claim().await, place.claim().await], [1, 2]);

    let backup = Backup::take(&url).await;
    // After the backup: three of its prekeys are handed out, and two more that are not in it.
    assert_eq!([place.claim().await, place.claim().await, place.claim().await], [3, 4, 5]);
    publish_bundle(&mut alice, 5..=12).await;
    let mut handed = BTreeSet::from([1, 2, 3, 4, 5]);
    for expected in 6..=11 {
        assert_eq!(place.claim().await, expected);
        handed.insert(expected);
    }
    assert!(place.multiend.terminate().success());
    backup.restore(&url).await;

    place.start_in_doubt();
    place.claim_is_refused().await;
    // Everything else goes on: the owner has its list, and publishes.
    ok(&mut alice, "get", &items(DEVICES, &[])).await;
    // A restart does not help, nor an instance that knows nothing of the last run.
    place.multiend.terminate();
    std::fs::remove_file(place.multiend.data_dir().join("last-run.json")).unwrap();
    place.multiend.spawn();
    poll("an instance that was told", DEADLINE, || {
        let (status, body) = place.multiend.http("/readyz")?;
        (status == 503 && body.contains("an earlier start") && !body.contains("\"link\"")).then_some(())
    });
    place.claim_is_refused().await;

    let output = place.command(&["restore-epoch", "--json"]);
    assert!(output.contains("\"epoch\":1,\"devices\":1,\"prekeys\":8"), "{output}");
    let output = place.command(&["restore-epoch", "--resume", "--json"]);
    assert!(output.contains("\"epoch\":1,\"devices\":0,\"prekeys\":0"), "{output}");
    place.wait_ready();
    // The device is to publish again: its own bundle is gone for it.
    let own = alice.request("get", Some(ALICE), &bundle_of_phone()).await;
    assert_eq!(error_condition(&own), Some("item-not-found"));
    place.claim().await;
    // It publishes what it has: with 11 and 12, of which the database knows nothing. Nothing of it is fresh.
    publish_bundle(&mut alice, 5..=12).await;
    for _ in 0..10 {
        place.claim().await;
    }
    assert!(place.fresh() < 0.1, "a prekey from before was handed out as fresh");
    // New ones are.
    publish_bundle(&mut alice, 8..=15).await;
    assert_eq!([place.claim().await, place.claim().await, place.claim().await], [13, 14, 15]);
    assert!((place.fresh() - 3.0).abs() < 0.1);
    // From now on a start is as any other.
    place.multiend.restart();
    assert!(handed.insert(13));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_prekey_from_before_is_fresh_after_a_restore_on_sqlite() {
    restored_from_a_backup(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_prekey_from_before_is_fresh_after_a_restore_on_postgresql() {
    restored_from_a_backup(Some(Postgres::shared().fresh_database().await)).await;
}

/// A second database under the same data directory is no reason to void anything, if the operator says so. Every instance
/// that shares the database waits, and every one goes on.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_no_restore_is_confirmed_for_all_instances() {
    let prosody =
        Prosody::builder().users(&["alice", "bob"]).multiend().component("second.example.org", SECRET, "").start();
    let url = Postgres::shared().fresh_database().await;
    let first = Multiend::builder(prosody.component_port()).component(COMPONENT, SECRET).database(&url).start();
    let builder = Multiend::builder(prosody.component_port()).component("second.example.org", SECRET);
    let second = builder.database(&url).start();
    let mut place = Place { prosody, multiend: first, sessions: 0 };
    let mut alice = place.client("alice", "phone").await;
    publish_bundle(&mut alice, 1..=10).await;
    assert_eq!(place.claim().await, 1);
    let mut admin = PgConnection::connect(&url).await.unwrap();
    sqlx::query("UPDATE deployment SET progress = 0").execute(&mut admin).await.unwrap();
    // Both look at the database every few seconds, and the first to see it tells the other.
    for instance in [&place.multiend, &second] {
        poll("an instance in doubt", DEADLINE, || (instance.http("/readyz")?.0 == 503).then_some(()));
    }
    place.claim_is_refused().await;
    place.command(&["restore-epoch", "--confirm-current"]);
    for instance in [&place.multiend, &second] {
        poll("an instance that goes on", DEADLINE, || (instance.http("/readyz")?.0 == 200).then_some(()));
    }
    assert_eq!(place.claim().await, 2);
}
