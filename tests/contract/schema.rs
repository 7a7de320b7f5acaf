//! Opening and migrating.

use multiend::store::{self, StoreError};

use super::database::Database;
use super::words::{alice, at};

/// A database without schema, or without file, says so; `open` changes nothing.
pub async fn an_unmigrated_database_is_refused(database: Database) {
    let empty = database.empty_sibling().await;
    for _ in 0..2 {
        let Err(StoreError::Schema { found: 0, needed, advice }) = empty.try_open().await.map(drop) else {
            panic!("an empty database was opened");
        };
        assert!(needed > 0 && advice.contains("migrate"));
    }
    store::migrate(&empty.url).await.unwrap();
    empty.open().await.ping().await.unwrap();
}

pub async fn a_newer_schema_is_refused(database: Database) {
    let columns = "(version, description, success, checksum, execution_time)";
    let bytes = if database.is_sqlite() { "x'00'" } else { "'\\x00'" };
    database
        .execute(&format!("INSERT INTO _sqlx_migrations {columns} VALUES (9000, 'from the future', true, {bytes}, 1)"))
        .await;
    let Err(StoreError::Schema { found: 9000, advice, .. }) = database.try_open().await.map(drop) else {
        panic!("a newer schema was opened");
    };
    assert!(advice.contains("newer"));
}

pub async fn migrating_twice_and_by_two_at_once_is_safe(database: Database) {
    store::migrate(&database.url).await.unwrap();
    let empty = database.empty_sibling().await;
    let (one, two) = tokio::join!(store::migrate(&empty.url), store::migrate(&empty.url));
    one.unwrap();
    two.unwrap();
    // While it is open, SQLite takes none of its files away.
    let open = empty.open().await;
    open.ping().await.unwrap();
    if let Some(dir) = &empty.dir {
        use std::os::unix::fs::PermissionsExt;
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
        }
    }
}

pub async fn the_archive_id_secret_is_made_once(database: Database) {
    let (one, two) = (database.open().await, database.open().await);
    let (first, second) = tokio::join!(one.archive_id_secret(), two.archive_id_secret());
    let first = first.unwrap();
    assert_eq!(first, second.unwrap());
    assert_ne!(first, [0; 32]);
    assert_eq!(first, database.open().await.archive_id_secret().await.unwrap());
}

pub async fn what_the_store_does_shows_in_its_metrics(database: Database) {
    let store = database.open().await;
    let registry = prometheus::Registry::new();
    store.metrics().register(&registry).unwrap();
    store.register_account(&alice(), at(0)).await.unwrap();
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    for line in [
        "multiend_store_operation_seconds_count{operation=\"register-account\"} 1",
        "multiend_store_errors_total{operation=\"register-account\"} 0",
        "multiend_store_pool_wait_seconds_count 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("alice"));
}

/// A password in a URL shows up in no error. Nothing listens on port 1.
#[tokio::test]
async fn no_error_shows_the_password() {
    for url in [
        "postgres://multiend:swordfish@127.0.0.1:1/multiend",
        "postgres://multiend:swordfish@127.0.0.1:port/multiend",
        "postgres://multiend:swordfish@[/multiend",
        "mysql://multiend:swordfish@127.0.0.1/multiend",
    ] {
        let errors = [store::open(url, 1).await.map(drop).unwrap_err(), store::migrate(url).await.unwrap_err()];
        for error in errors {
            let source = std::error::Error::source(&error).map(|source| format!("{source} {source:?}"));
            let text = format!("{error} {error:?} {source:?}");
            assert!(!text.contains("swordfish"), "{text}");
        }
    }
}
