//! Bytes on disk of a message between two accounts of a host: one body, two copies, and every index. After a write load as the
//! writer makes it, in batches, and a checkpoint; nothing is rewritten or repacked.
//!
//! The least that a message can take is what is random in it: of each of ten headers a key, a ciphertext and a code, 88 bytes
//! in the legacy protocol and 112 in `omemo2`; ids, payload and initialisation vector (docs/archive.md, "Space").
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    unreachable_pub
)]

#[path = "support/figures.rs"]
mod figures;
#[path = "support/messages.rs"]
mod messages;

#[path = "../tests/support"]
#[allow(dead_code)]
mod support {
    pub mod ports;
    pub mod postgres;
    pub mod process;
}

use std::time::Duration;

use figures::Figures;
use multiend::model::{Protocol, Timestamp};
use multiend::store;
use sqlx::{Connection, PgConnection};
use support::postgres::{Fsync, Postgres};

/// What ejabberd's own archive takes for the same two copies.
const EJABBERD: f64 = 6_130.0;
const BATCH: u64 = 128;

fn main() {
    // `cargo test` builds benchmarks, and has nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let count: u64 = std::env::var("MESSAGES").ok().map_or(100_000, |count| count.parse().unwrap());
    let mut figures = Figures::default();
    figures.plain("ejabberd 23.01, mod_mam on PostgreSQL, 2.1 kB", EJABBERD, "bytes");
    for protocol in Protocol::ALL {
        let postgres = Postgres::start(Fsync::Off);
        let url = postgres.fresh_database().await;
        fill(&url, protocol, count).await;
        let mut admin = PgConnection::connect(&url).await.unwrap();
        let tables: Vec<(String, i64, i64)> = sqlx::query_as(
            "SELECT relname::text, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class
             WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname !~ '^_' ORDER BY 1",
        )
        .fetch_all(&mut admin)
        .await
        .unwrap();
        let per_message = |bytes: i64| bytes as f64 / count as f64;
        let total: i64 = tables.iter().map(|(_, table, indexes)| table + indexes).sum();
        let name = protocol.name();
        let raw: usize = (0..1_000).map(|n| messages::body(protocol, n, messages::parties(n)).len()).sum();
        figures.plain(&format!("{name}: a message as it comes"), raw as f64 / 1_000.0, "bytes");
        figures.at_most(
            &format!("{name}, PostgreSQL: a message with two copies"),
            per_message(total),
            "bytes",
            1_600.0,
        );
        for (table, size, indexes) in tables.into_iter().filter(|(_, size, indexes)| per_message(size + indexes) >= 1.0)
        {
            figures.plain(&format!("{name}, PostgreSQL: of these in {table}"), per_message(size), "bytes");
            figures.plain(
                &format!("{name}, PostgreSQL: of these in indexes of {table}"),
                per_message(indexes),
                "bytes",
            );
        }
        let indexes: Vec<(String, i64)> = sqlx::query_as(
            "SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index
             WHERE indrelid = ANY (ARRAY['entry', 'address']::regclass[]) ORDER BY 1",
        )
        .fetch_all(&mut admin)
        .await
        .unwrap();
        for (index, size) in indexes {
            figures.plain(&format!("{name}, PostgreSQL: of these in {index}"), per_message(size), "bytes");
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("multiend.sqlite3");
        fill(&format!("sqlite:{}", file.display()), protocol, count.min(50_000)).await;
        let size = std::fs::metadata(&file).unwrap().len();
        let per_message = size as f64 / count.min(50_000) as f64;
        figures.plain(&format!("{name}, SQLite: a message with two copies"), per_message, "bytes");
    }
    figures.write("archive-space");
}

async fn fill(url: &str, protocol: Protocol, count: u64) {
    store::migrate(url).await.unwrap();
    let store = store::open(url, 4).await.unwrap();
    let begin = Timestamp::from_micros(1_780_000_000_000_000);
    let mut number = 0;
    while number < count {
        let batch: Vec<_> = (number..(number + BATCH).min(count))
            .map(|number| {
                let at = begin.plus(Duration::from_millis(number * 10));
                messages::message(protocol, number, at, Some(at.plus(Duration::from_secs(30 * 86_400))))
            })
            .collect();
        store.append(&batch).await.unwrap();
        number += BATCH;
    }
}
