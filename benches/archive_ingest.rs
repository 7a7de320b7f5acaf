//! Messages through the built program: from the stream of a server, whose plugin hands over copies, to durable rows; on a
//! PostgreSQL of its own with fsync on, and on SQLite. In the same run, the same bytes by binary COPY and by single INSERTs
//! into a table with one index, and the memory and processor time of the program.
//!
//! `COPIES=1000000` (default 100000) says how many a round has; there are five rounds, or as many as half a million copies
//! allow. The load generator, the program and the database share the machine.
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

#[path = "support/component_server.rs"]
mod component_server;
#[path = "support/figures.rs"]
mod figures;
#[path = "support/messages.rs"]
mod messages;

#[path = "../tests/support"]
#[allow(dead_code)]
mod support {
    pub mod multiend;
    pub mod ports;
    pub mod postgres;
    pub mod process;

    pub const DOMAIN: &str = "d0.example.org";
    pub const COMPONENT: &str = "multiend.example.org";
    pub const SECRET: &str = "secret";
}

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use component_server::Component;
use figures::{Figures, median};
use messages::Noise;
use multiend::model::Protocol;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use support::multiend::Multiend;
use support::postgres::{Fsync, Postgres};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Domains, each of which has one batch under way.
const DOMAINS: u64 = 4;
/// Messages of a batch, each with two copies.
const BATCH: u64 = 64;
/// Most rounds, each of the program and of COPY: what counts is the median of their ratios.
const ROUNDS: u64 = 5;

fn main() {
    // `cargo test` builds benchmarks, and has nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let copies: u64 = std::env::var("COPIES").ok().map_or(100_000, |copies| copies.parse().unwrap());
    let mut figures = Figures::default();
    let postgres = Postgres::start(Fsync::On);
    let mut rounds = Vec::new();
    for _ in 0..(500_000 / copies).clamp(1, ROUNDS) {
        let ours = ingest(Some(&postgres.fresh_database().await), copies).await;
        rounds.push((ours, copy_in(&postgres.fresh_database().await, copies).await));
    }
    let by_insert = insert(&postgres.fresh_database().await, copies.min(5_000)).await;
    let median = |of: fn(&(Ingest, f64)) -> f64| median(rounds.iter().map(of));
    figures.plain("PostgreSQL: copies through the link", median(|(ours, _)| ours.rate), "copies/s");
    figures.plain("PostgreSQL: the same bytes by binary COPY", median(|(_, by_copy)| *by_copy), "copies/s");
    figures.plain("PostgreSQL: the same by single INSERTs", by_insert, "copies/s");
    figures.at_least("PostgreSQL: link to COPY", median(|(ours, by_copy)| ours.rate / by_copy), "x", 0.7);
    figures.at_most("PostgreSQL: processor time of the program", median(|(ours, _)| ours.cpu_micros), "us/copy", 40.0);
    let memory = rounds.iter().map(|(ours, _)| ours.memory_mib).fold(0.0, f64::max);
    figures.at_most("PostgreSQL: memory of the program, most", memory, "MiB", 96.0);
    let ours = ingest(None, copies).await;
    figures.plain("SQLite: copies through the link", ours.rate, "copies/s");
    figures.plain("SQLite: processor time of program and database", ours.cpu_micros, "us/copy");
    figures.at_most("SQLite: memory of the program, most", ours.memory_mib, "MiB", 96.0);
    figures.write("archive-ingest");
}

struct Ingest {
    rate: f64,
    cpu_micros: f64,
    memory_mib: f64,
}

async fn ingest(database: Option<&str>, copies: u64) -> Ingest {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let domains: Vec<String> = (0..DOMAINS).map(domain).collect();
    let mut builder = Multiend::builder(port)
        .domains(&domains.iter().map(String::as_str).collect::<Vec<_>>())
        .env("MULTIEND_LOG__LEVEL", "warn");
    if let Some(url) = database {
        builder = builder.database(url);
    }
    let starting = tokio::task::spawn_blocking(move || builder.start());
    let component = Component::accept(&listener).await;
    let multiend = starting.await.unwrap();
    let (before, started) = (processor_time(multiend.pid()), Instant::now());
    let next = Arc::new(AtomicU64::new(0));
    let batches = copies / (BATCH * 2);
    let mut lanes = JoinSet::new();
    for lane in 0..DOMAINS {
        let (component, next) = (component.clone(), next.clone());
        lanes.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= batches {
                    return;
                }
                let id = format!("b{number}");
                component.send(&id, &batch(&id, lane, number)).await;
            }
        });
    }
    lanes.join_all().await;
    let took = started.elapsed();
    let stored = (batches * BATCH * 2) as f64;
    Ingest {
        rate: stored / took.as_secs_f64(),
        cpu_micros: (processor_time(multiend.pid()) - before).as_micros() as f64 / stored,
        memory_mib: most_memory(multiend.pid()),
    }
}

fn domain(number: u64) -> String {
    format!("d{number}.example.org")
}

/// A batch of messages between accounts of a domain, the sender's copy before the recipient's.
fn batch(id: &str, lane: u64, number: u64) -> String {
    let domain = domain(lane);
    let mut out = format!(
        "<iq type='set' id='{id}' from='{domain}' to='multiend.example.org'><copies xmlns='urn:multiend:plugin:0'>"
    );
    for message in number * BATCH..(number + 1) * BATCH {
        for (owner, direction, id, stanza) in copies_of(&domain, message) {
            out.push_str(&format!(
                "<copy owner='{owner}' direction='{direction}' id='{id}' stamp='2026-06-01T12:00:00.000000Z'>{stanza}</copy>"
            ));
        }
    }
    out.push_str("</copies></iq>");
    out
}

/// Owner, direction, archive id and stanza of both copies of a message.
fn copies_of(domain: &str, message: u64) -> [(String, &'static str, String, String); 2] {
    let parties = messages::parties(message);
    let protocol = if message.is_multiple_of(2) { Protocol::Legacy } else { Protocol::Omemo2 };
    let body = messages::body(protocol, message, parties);
    let (from, to) = (format!("user{}@{domain}", parties.0), format!("user{}@{domain}", parties.1));
    let stanza = body.replacen(
        "<message",
        &format!("<message xmlns='jabber:client' from='{from}/Conversations.x7Hk' to='{to}'"),
        1,
    );
    let mut noise = Noise::new(message ^ 0x0dd_ba11);
    let mut id = || noise.id();
    [(from, "sent", id(), stanza.clone()), (to, "received", id(), stanza)]
}

/// The same copies into a table with a primary key, a thousand in a transaction.
async fn copy_in(url: &str, copies: u64) -> f64 {
    let mut connection = table(url).await;
    let started = Instant::now();
    let mut number = 0_u64;
    while number < copies {
        let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        for message in (number / 2)..(number / 2 + 500) {
            for (owner, _, id, stanza) in copies_of("d0.example.org", message) {
                bytes.extend(3_i16.to_be_bytes());
                for field in [owner.as_bytes(), id.as_bytes(), stanza.as_bytes()] {
                    bytes.extend(i32::try_from(field.len()).unwrap().to_be_bytes());
                    bytes.extend(field);
                }
            }
        }
        bytes.extend((-1_i16).to_be_bytes());
        let mut copy = connection.copy_in_raw("COPY copy FROM STDIN (FORMAT binary)").await.unwrap();
        copy.send(bytes).await.unwrap();
        copy.finish().await.unwrap();
        number += 1_000;
    }
    number as f64 / started.elapsed().as_secs_f64()
}

async fn insert(url: &str, copies: u64) -> f64 {
    let mut connection = table(url).await;
    let started = Instant::now();
    for message in 0..copies / 2 {
        for (owner, _, id, stanza) in copies_of("d0.example.org", message) {
            sqlx::query("INSERT INTO copy VALUES ($1, $2, $3)")
                .bind(owner)
                .bind(id)
                .bind(stanza.into_bytes())
                .execute(&mut connection)
                .await
                .unwrap();
        }
    }
    (copies / 2 * 2) as f64 / started.elapsed().as_secs_f64()
}

async fn table(url: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let table = "CREATE TABLE copy (owner text, id text, stanza bytea, PRIMARY KEY (owner, id))";
    sqlx::query(table).execute(&mut connection).await.unwrap();
    connection
}

/// What a process has used of the processor, in user and system mode.
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // Linux counts hundredths of a second for everybody, whatever its own clock.
    Duration::from_millis(ticks * 10)
}

/// The most memory that a process has had, in MiB.
fn most_memory(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
