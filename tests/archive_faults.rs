//! What the writer of the archive does when the database dies or is full: nothing is acknowledged that is not durable, and
//! once the fault is gone all that was accepted is stored, once and in order (DESIGN, archive invariant 1).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

#[path = "support"]
#[allow(dead_code, unreachable_pub)]
mod support {
    pub mod ports;
    pub mod postgres;
    pub mod process;
}

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use multiend::archive::{ArchiveMetrics, Committed, Ingest, IngestHandle, IngestSettings};
use multiend::model::{ArchiveId, ArchivedMessage, Class, Clock as _, Copy, Direction, Owner, SystemClock, Timestamp};
use multiend::store::{self, Appended, Edge, Filter, Page, PageQuery, SharedStore};
use sqlx::{Connection, PgConnection};
use support::postgres::{Fsync, Postgres};
use support::process::{is_root, poll_async};
use tokio::sync::mpsc;

const OWNERS: usize = 3;
const KILLS: usize = 20;
const DEADLINE: Duration = Duration::from_secs(60);
/// In the environment: the directory on a small file system that the test runs beside.
const SMALL: &str = "MULTIEND_TEST_SMALL";

fn owner(number: usize) -> Owner {
    Owner::parse(&format!("user{number}@example.org")).unwrap()
}

/// The message with this number, to one archive after the other. Its length is that of an encrypted one.
fn message(number: usize) -> ArchivedMessage {
    let copy = Copy {
        owner: owner(number % OWNERS),
        archive_id: ArchiveId::parse(&format!("m{number}")).unwrap(),
        direction: Direction::Received,
        peer: jid::Jid::new("bob@example.net/phone").unwrap(),
        own_resource: None,
        expires_at: None,
    };
    // Digits that no packing makes much shorter.
    let digits: String =
        (0..100_u64).map(|n| (n.wrapping_add(number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_string()).collect();
    ArchivedMessage {
        class: Class::Content,
        // A clock that steps back, every tenth time by an hour.
        at: Timestamp::from_micros(1_780_000_000_000_000 - if number.is_multiple_of(10) { 3_600_000_000 } else { 0 }),
        body: Bytes::from(format!("<message><body>{number} {digits}</body></message>")),
        origin: None,
        retracts: None,
        copies: vec![copy],
        key_exchanges: Vec::new(),
    }
}

fn start(store: &SharedStore) -> (IngestHandle<usize>, mpsc::Receiver<Committed<usize>>, prometheus::Registry) {
    let registry = prometheus::Registry::new();
    let metrics = ArchiveMetrics::register(&registry).unwrap();
    let settings = IngestSettings {
        batch_max: 16,
        retry_first: Duration::from_millis(10),
        retry_max: Duration::from_millis(100),
        ..IngestSettings::default()
    };
    let (handle, committed) = Ingest::start(store.clone(), settings, metrics);
    (handle, committed, registry)
}

/// Takes the words, which must come in order, and counts them.
fn count(mut committed: mpsc::Receiver<Committed<usize>>) -> (Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let counted = acknowledged.clone();
    let task = tokio::spawn(async move {
        while let Some(word) = committed.recv().await {
            assert_eq!(word.token, counted.load(Ordering::SeqCst), "in the order submitted");
            assert!(matches!(word.result.unwrap()[0], Appended::Stored(_) | Appended::Duplicate));
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (acknowledged, task)
}

/// The numbers of the messages in an archive, in its order. Time must not go back in it.
async fn stored(store: &SharedStore, owner: &Owner) -> Vec<usize> {
    let (mut numbers, mut edge, mut last) = (Vec::new(), Edge::First, None);
    loop {
        let query = PageQuery { owner: owner.clone(), filter: Filter::default(), edge, max: 500, max_bytes: 64 << 20 };
        let Page::Copies { copies, complete, .. } = store.page(&query, SystemClock.now()).await.unwrap() else {
            panic!("an id is gone")
        };
        for copy in &copies {
            let number: usize = copy.archive_id.as_str()[1..].parse().unwrap();
            assert_eq!(copy.body, Some(message(number).body), "what went in comes out");
            assert!(last <= Some(copy.at), "time goes back");
            last = Some(copy.at);
            numbers.push(number);
        }
        match copies.last() {
            Some(copy) if !complete => edge = Edge::After(copy.archive_id.clone()),
            _ => return numbers,
        }
    }
}

async fn assert_all_stored(store: &SharedStore, count: usize) {
    for number in 0..OWNERS {
        let expected: Vec<usize> = (0..count).filter(|n| n % OWNERS == number).collect();
        assert_eq!(stored(store, &owner(number)).await, expected, "all, once, in order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archive_1_all_is_stored_once_and_in_order_though_postgresql_is_killed_twenty_times() {
    let mut postgres = Postgres::start(Fsync::On);
    let url = postgres.fresh_database().await;
    store::migrate(&url).await.unwrap();
    let store = store::open(&url, 4).await.unwrap();
    let (handle, committed, _registry) = start(&store);
    let (acknowledged, counting) = count(committed);
    let sent = tokio::spawn(async move {
        let mut number = 0;
        // Until the test has seen enough and aborts this, or drops the other end.
        while handle.submit(message(number), number).await.is_ok() {
            number += 1;
            if number == 100_000 {
                break;
            }
        }
    });
    for _ in 0..KILLS {
        let before = acknowledged.load(Ordering::SeqCst);
        poll_async("traffic", DEADLINE, async || (acknowledged.load(Ordering::SeqCst) > before + 40).then_some(()))
            .await;
        postgres.kill9();
        postgres.restart();
    }
    sent.abort();
    let _ = sent.await;
    // The handle is gone: the writer stores what it has and ends.
    tokio::time::timeout(DEADLINE, counting).await.unwrap().unwrap();
    assert_all_stored(&store, acknowledged.load(Ordering::SeqCst)).await;
}

#[test]
fn archive_1_a_full_disk_is_no_acknowledgement_on_sqlite() {
    on_a_small_disk("archive_1_a_full_disk_is_no_acknowledgement_on_sqlite", 8, async |disk| {
        let url = format!("sqlite:{}", disk.join("multiend.sqlite3").display());
        fills_up_and_recovers(&url, disk, 5).await;
    });
}

#[test]
fn archive_1_a_full_disk_is_no_acknowledgement_on_postgresql() {
    on_a_small_disk("archive_1_a_full_disk_is_no_acknowledgement_on_postgresql", 32, async |disk| {
        let postgres = Postgres::start(Fsync::Off);
        let tables = disk.join("tables");
        std::fs::create_dir(&tables).unwrap();
        if is_root() {
            assert!(Command::new("chown").arg("postgres").arg(&tables).status().unwrap().success());
        }
        let mut admin = PgConnection::connect(&postgres.url("postgres")).await.unwrap();
        for statement in [
            format!("CREATE TABLESPACE small LOCATION '{}'", tables.display()),
            "CREATE DATABASE small TABLESPACE small".to_owned(),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut admin).await.unwrap();
        }
        fills_up_and_recovers(&postgres.url("small"), disk, 18).await;
    });
}

/// Does the work of this test on a file system of a few megabytes: in a process of its own, which runs the test once more
/// and which alone sees that file system.
fn on_a_small_disk(test: &str, megabytes: u32, work: impl AsyncFnOnce(&Path)) {
    if let Some(disk) = std::env::var_os(SMALL) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(work(Path::new(&disk)));
    }
    // Who may not mount is root in a world of its own for as long as that takes, and then again who it was: PostgreSQL does
    // not run as root.
    let (alone, again) = if is_root() {
        ("-m", "")
    } else {
        ("-rm", "unshare -U --map-user=\"$MULTIEND_TEST_USER\" --map-group=\"$MULTIEND_TEST_USER\"")
    };
    let directory = tempfile::tempdir().unwrap();
    let mounted = format!(
        "mount -t tmpfs -o size={megabytes}m,mode=0777 tmpfs \"${SMALL}\" && exec {again} \"$0\" --exact --nocapture \"$1\""
    );
    let output = Command::new("unshare")
        .args([alone, "sh", "-c", &mounted])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(SMALL, directory.path())
        .env("MULTIEND_TEST_USER", std::fs::metadata("/proc/self").unwrap().uid().to_string())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).join("\n");
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Stores until the disk is full, sees that nothing more is acknowledged, makes room, and finds everything stored.
async fn fills_up_and_recovers(url: &str, disk: &Path, filler_megabytes: usize) {
    store::migrate(url).await.unwrap();
    let store = store::open(url, 4).await.unwrap();
    let filler = disk.join("filler");
    std::fs::write(&filler, vec![1_u8; filler_megabytes << 20]).unwrap();
    let (handle, committed, registry) = start(&store);
    let (acknowledged, counting) = count(committed);
    let retries = || {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let line =
            text.lines().find(|line| line.starts_with("multiend_archive_append_retries_total ")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let mut submitted = 0;
    while retries() == 0 {
        assert!(submitted < 100_000, "the disk never fills up");
        // The queue is longer than what is submitted between two looks, so this waits for the writer and not for room.
        if let Ok(accepted) =
            tokio::time::timeout(Duration::from_millis(50), handle.submit(message(submitted), submitted)).await
        {
            accepted.unwrap();
            submitted += 1;
        }
    }
    let stuck_at = acknowledged.load(Ordering::SeqCst);
    let tried = retries();
    poll_async("further attempts", DEADLINE, async || (retries() > tried + 3).then_some(())).await;
    assert_eq!(acknowledged.load(Ordering::SeqCst), stuck_at, "nothing is acknowledged while the disk is full");
    assert!(stuck_at < submitted, "what was not stored was not acknowledged");
    // Reading goes on.
    assert!(!stored(&store, &owner(0)).await.is_empty());
    std::fs::remove_file(filler).unwrap();
    poll_async("everything to be stored", DEADLINE, async || {
        (acknowledged.load(Ordering::SeqCst) == submitted).then_some(())
    })
    .await;
    drop(handle);
    tokio::time::timeout(DEADLINE, counting).await.unwrap().unwrap();
    assert_all_stored(&store, submitted).await;
}
