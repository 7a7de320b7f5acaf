//! That nothing which a request asks of PostgreSQL grows with the tables: by the server's own counters, over tables large
//! enough that it would choose an index where there is one.

use std::time::Duration;

use multiend::model::{Claimant, Device, HistoryHead, PrekeyId, Requester, Timestamp};
use multiend::store::{
    Claim, ClaimOutcome, ClaimRules, DevicePlace, Due, Edge, Filter, Page, PageQuery, Revived, SharedStore, SignOfLife,
    Step,
};
use sqlx::{Connection, PgConnection};

use crate::support::process::poll_async;

use super::database::Database;
use super::words::{
    Got, OMEMO2, alice, at, claim, claim_by, copy, device, id, jid, list, message, owner, plain_bundle, publish,
    session,
};

/// Enough for PostgreSQL to turn to generic plans, which it does after five runs of a statement on one connection.
const ROUNDS: usize = 7;

/// Alice has 100,000 copies of messages with four peers, one a second, and 30,000 prekeys of her device 2 that she has
/// withdrawn; 20,000 other accounts have bundles and archives too.
const FILL: [&str; 14] = [
    "INSERT INTO account (jid, next_sequence, last_at, created_at, next_address)
     SELECT CASE n WHEN 1 THEN 'alice@example.org' ELSE 'u' || n || '@example.org' END, 1000000, 0, 0, 21
     FROM generate_series(1, 20000) n",
    "INSERT INTO body_block (id, ends, holders, bytes)
     SELECT n, '{40}', '{1}', decode(repeat('ab', 40), 'hex') FROM generate_series(1, 160000) n",
    "SELECT setval('body_block_id_seq', 160001)",
    "INSERT INTO address (account, number, jid)
     SELECT id, n, 'peer' || (n - 1) % 4 || '@example.net' || CASE WHEN n < 5 THEN '' ELSE '/r' || n - 5 END
     FROM account, generate_series(1, 20) n WHERE jid = 'alice@example.org'",
    "INSERT INTO entry (at, expires_at, origin, account, sequence, peer, peer_full, own_full, block, id_key, position, kind,
         archive_id)
     SELECT 1780000000000000 + n * 1000000::bigint,
            CASE WHEN n % 5 = 0 THEN 1900000000000000 + n ELSE 9223372036854775807 END, 0,
            CASE WHEN n <= 100000 THEN (SELECT id FROM account WHERE jid = 'alice@example.org') ELSE 2 + n % 19000 END,
            n, 1 + n % 4, 5 + n % 16, 0, n,
            ('x' || encode(substr(sha256(convert_to('id.' || n, 'UTF8')), 1, 4), 'hex'))::bit(32)::integer,
            1, 1::\"char\", convert_to('id.' || n, 'UTF8')
     FROM generate_series(1, 160000) n",
    "INSERT INTO archive_trim (account, due_at) SELECT DISTINCT account, 1900000000000000 + account FROM entry",
    "INSERT INTO bundle (account, protocol, device, item_id, payload, identity_key, next_upload, signed_prekey_id,
         signed_prekey, signed_prekey_signature, published_at)
     SELECT id, 2, 1, '1', 'x', 'x', 1, 1, 'x', 'x', 0 FROM account WHERE jid <> 'alice@example.org'",
    "INSERT INTO prekey (account, protocol, device, key, prekey_id, upload, issued_at, last_issued_at, claimant)
     SELECT id, 2, 1, decode(lpad(to_hex(n), 64, '0'), 'hex'), n, n, CASE WHEN n % 2 = 0 THEN 1 END, 1,
            CASE WHEN n % 2 = 0 THEN 'r' || n || '@example.net/phone' END
     FROM account, generate_series(1, 6) n",
    "INSERT INTO bundle (account, protocol, device, item_id, payload, identity_key, next_upload, signed_prekey_id,
         signed_prekey, signed_prekey_signature, published_at)
     SELECT id, 2, 2, '2', 'x', 'x', 1, 1, 'x', 'x', 0 FROM account WHERE jid = 'alice@example.org'",
    "INSERT INTO prekey (account, protocol, device, key, prekey_id, upload, issued_at, last_issued_at, withdrawn)
     SELECT id, 2, 2, decode('e0' || lpad(to_hex(n), 62, '0'), 'hex'), 1000 + n, -n, 1, 1, true
     FROM account, generate_series(1, 30000) n WHERE jid = 'alice@example.org'",
    "INSERT INTO last_resort (account, protocol, device, claimant, key, claimed_at)
     SELECT id, 2, 1, 'r' || n, 'x', 1900000000000000 FROM account, generate_series(1, 3) n",
    "INSERT INTO claim_budget (scope, name, spent_until, spent_day)
     SELECT 1, 'b' || n || '@example.net', 0, 40000 FROM generate_series(1, 40000) n",
    "INSERT INTO history (account, position, at, protocol, kind, device, content, hash)
     SELECT id, n, 0, 2, 3, 1, decode('000000010000000161', 'hex'), decode(repeat('00', 32), 'hex') FROM account, generate_series(1, 3) n",
    "INSERT INTO device_life (account, protocol, device, listed_at, seen_at, no_bundle_since, quarantined_at, cause)
     SELECT id, 2, n, 0, moment, CASE WHEN id % 2 = 0 THEN moment END, CASE n WHEN 2 THEN moment END, CASE n WHEN 2 THEN 1 END
     FROM account, generate_series(1, 2) n, LATERAL (SELECT 1900000000000000 + id AS moment) m
     WHERE jid <> 'alice@example.org'",
];

/// The tables that grow with use.
const TABLES: [&str; 10] = [
    "account",
    "entry",
    "address",
    "body_block",
    "bundle",
    "prekey",
    "last_resort",
    "claim_budget",
    "device_life",
    "history",
];

async fn pages(store: &SharedStore) {
    let with = |text: &str| Filter { with: Some(jid(text)), ..Filter::default() };
    let time = |second: i64| Some(Timestamp::from_micros(1_780_000_000_000_000 + second * 1_000_000));
    let filters = [
        Filter::default(),
        with("peer1@example.net"),
        with("peer1@example.net/r5"),
        with("peer1@example.net/r6"),
        with("nobody@example.net"),
        Filter { start: time(50_000), ..Filter::default() },
        Filter { start: time(40_000), end: time(60_000), ..with("peer2@example.net") },
        Filter { start: time(200_000), ..Filter::default() },
        Filter { after_id: Some(id("id.30000")), before_id: Some(id("id.70000")), ..with("peer3@example.net") },
        Filter { ids: (0..20).map(|n| id(format!("id.{}", 50_000 + n))).collect(), ..Filter::default() },
    ];
    for filter in filters {
        for edge in [Edge::First, Edge::Last, Edge::After(id("id.50000")), Edge::Before(id("id.50000"))] {
            let query = PageQuery { owner: alice(), filter: filter.clone(), edge, max: 20, max_bytes: 10_000 };
            assert!(matches!(store.page(&query, at(0)).await.unwrap(), Page::Copies { .. }));
        }
    }
    store.ends(&alice(), at(0)).await.unwrap().unwrap();
}

/// What the life cycle of devices comes to.
async fn lives(store: &SharedStore) {
    let place = |owner| DevicePlace { owner, protocol: OMEMO2, device: device(1) };
    let others = (100..120).map(|n| place(owner(&format!("u{n}"))));
    let signs: Vec<_> = others.map(|place| SignOfLife { place, at: at(200_000_000) }).collect();
    store.note_signs_of_life(&signs).await.unwrap();
    let before = Timestamp::from_micros(1_900_000_000_000_000 + 90);
    for due in [Due::NoBundleSince(before), Due::UnseenSince(before), Due::QuarantinedSince(before)] {
        let first = store.due_devices(due, None, 20).await.unwrap();
        assert!(first.next.is_some());
        store.due_devices(due, first.next, 20).await.unwrap();
    }
    assert!(store.quarantine_device(&place(alice()), Step::Now, at(0)).await.unwrap());
    assert_eq!(store.revive_device(&place(alice()), 9, at(0)).await.unwrap(), Revived::Listed);
    store.device_records(&alice()).await.unwrap();
    assert_eq!(store.owner_records(Some(&alice()), 20).await.unwrap().len(), 20);
    store.watched_since(Duration::from_secs(1), at(0)).await.unwrap();
}

/// One round of what requests come to.
async fn requests(store: &SharedStore, round: usize) {
    pages(store).await;
    let batch: Vec<_> = (0..20).map(|n| message("x", at(0), vec![copy(format!("new{round}-{n}"), "bob@b")])).collect();
    store.append(&batch).await.unwrap();
    store.append(&batch).await.unwrap();
    let first = round as u32 * 10 + 1;
    publish(store, &plain_bundle(1, first..first + 3)).await;
    for name in ["a", "b", "c"] {
        assert!(matches!(claim(store, &format!("{name}{round}"), at(0)).await, Got::Fresh(_)));
        assert!(matches!(claim(store, &format!("{name}{round}"), at(1)).await, Got::Repeat(_)));
    }
    assert!(matches!(claim(store, &format!("d{round}"), at(2)).await, Got::LastResort(_)));
    store.stock(&alice(), OMEMO2, device(1)).await.unwrap();
    let withdrawn: Vec<PrekeyId> = (1_001..1_020).map(|id| PrekeyId::new(id).unwrap()).collect();
    store.prekey_states(&alice(), OMEMO2, device(2), &withdrawn).await.unwrap().unwrap();
    store.bundle_items(&alice(), OMEMO2, 128).await.unwrap();
    store.device_sessions(&alice(), OMEMO2, device(1), 4).await.unwrap();
    let added = Device::unlabelled(device(7));
    store.add_device(&alice(), OMEMO2, &session("phone"), &added, 9, at(0)).await.unwrap();
    store.remove_device(&alice(), OMEMO2, &session("phone"), device(7), at(0)).await.unwrap();
    store.published_bundles(&alice(), OMEMO2, Some(&[device(1)]), 128).await.unwrap();
    store.publish_device_list(&alice(), OMEMO2, &session("phone"), &list(&[1]), 9, at(0)).await.unwrap();
    store.device_list(&alice(), OMEMO2, Some(&session("x"))).await.unwrap();
    store.learn_session(&alice(), OMEMO2, &session("phone"), device(1), at(0)).await.unwrap();
    store.history(&alice(), &HistoryHead::START, 2, at(0)).await.unwrap();
    store.identity_keys(&alice(), OMEMO2, device(1), 5).await.unwrap();
    store.deployment().await.unwrap();
    store.void_older(5, at(0)).await.unwrap();
    store.forget_claims(at(-1_000_000), 10).await.unwrap();
    lives(store).await;
    let devices = store.stock_page(None, 20).await.unwrap();
    store.stock_page(devices.next, 20).await.unwrap();
    store.unread_page(None, 20).await.unwrap();
    store.waiting(at(0)).await.unwrap();
    // The first few of the copies that expire at all.
    store.purge(Timestamp::from_micros(1_900_000_000_000_000 + 200), 10).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_reads_a_table_from_end_to_end() {
    let database = Database::postgres().await;
    let mut admin = PgConnection::connect(&database.url).await.unwrap();
    for statement in FILL {
        sqlx::query(statement).execute(&mut admin).await.unwrap();
    }
    sqlx::query("VACUUM ANALYZE").execute(&mut admin).await.unwrap();
    // A connection keeps its counts to itself for up to a minute otherwise, and what filled the tables has read them.
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(&mut admin).await.unwrap();
    let before = read_counts(&mut admin).await;
    // One connection, so that its statements come to their generic plans.
    let store = multiend::store::open(&database.url, 1).await.unwrap();
    for round in 0..ROUNDS {
        requests(&store, round).await;
    }
    drop(store);
    ended(&database).await;
    let mut reader = PgConnection::connect(&database.url).await.unwrap();
    let after = read_counts(&mut reader).await;
    for (table, (before, after)) in TABLES.iter().zip(before.into_iter().zip(after)) {
        assert_eq!(before.0, after.0, "{table} was read from end to end");
        // About 40 pages of 20 a round and a few rows for everything else; a scan of one archive would be 100,000 each.
        let rows = after.1 - before.1;
        assert!(rows < 3_000 * ROUNDS as i64, "{rows} rows of {table} were read by index");
    }
}

/// Waits for the end of the store's connections: a connection reports its counters at the latest when it ends.
async fn ended(database: &Database) {
    poll_async("the end of the store's connections", Duration::from_secs(20), async || {
        let mut probe = PgConnection::connect(&database.url).await.unwrap();
        let others: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'multiend'",
        )
        .fetch_one(&mut probe)
        .await
        .unwrap();
        (others == 0).then_some(())
    })
    .await;
}

/// Of each table: sequential scans, and rows read through its indexes.
async fn read_counts(connection: &mut PgConnection) -> Vec<(i64, i64)> {
    let mut counts = Vec::new();
    for table in TABLES {
        let row = sqlx::query_as(
            "SELECT (SELECT seq_scan FROM pg_stat_user_tables WHERE relname = $1),
                    (SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE relname = $1)",
        )
        .bind(table)
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        counts.push(row);
    }
    counts
}

/// A server that has seen fifty accounts keeps the plans that it makes then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_do_not_read_all_bundles_while_there_are_few() {
    let database = Database::postgres().await;
    let mut admin = PgConnection::connect(&database.url).await.unwrap();
    for statement in [
        "INSERT INTO account (jid, created_at) SELECT 'u' || n || '@example.org', 0 FROM generate_series(1, 50) n",
        "INSERT INTO bundle (account, protocol, device, item_id, payload, identity_key, next_upload, signed_prekey_id,
             signed_prekey, signed_prekey_signature, published_at)
         SELECT id, 2, 1, '1', 'x', decode(repeat('01', 32), 'hex'), 101, 1, decode(repeat('02', 32), 'hex'),
                decode(repeat('03', 64), 'hex'), 0 FROM account",
        "INSERT INTO prekey (account, protocol, device, key, prekey_id, upload)
         SELECT id, 2, 1, sha256(convert_to(id || '/' || n, 'UTF8')), n, n FROM account, generate_series(1, 100) n",
        "VACUUM ANALYZE",
        "SELECT pg_stat_force_next_flush()",
    ] {
        sqlx::query(statement).execute(&mut admin).await.unwrap();
    }
    let before = read_counts(&mut admin).await;
    let store = multiend::store::open(&database.url, 1).await.unwrap();
    let mut claims = 0;
    for round in 0..ROUNDS {
        // One, which goes alone, and then many.
        for crowd in [1, 40] {
            let asked: Vec<Claim> = (0..crowd)
                .map(|n| Claim {
                    owner: owner(&format!("u{}", n + 1)),
                    claimant: Claimant::Address(
                        Requester::parse(&format!("r{n}@example.org/{round}.{crowd}")).unwrap(),
                    ),
                    foreign: false,
                    ..claim_by("anybody")
                })
                .collect();
            for outcome in store.claim_many(&asked, &ClaimRules::default(), at(0)).await {
                assert!(matches!(outcome, Ok(ClaimOutcome::Handed { .. })), "{outcome:?}");
            }
            claims += crowd;
        }
    }
    drop(store);
    ended(&database).await;
    let mut reader = PgConnection::connect(&database.url).await.unwrap();
    let after = read_counts(&mut reader).await;
    for (table, (before, after)) in TABLES.iter().zip(before.into_iter().zip(after)) {
        let rows = after.1 - before.1;
        assert!(rows < 20 * claims, "{rows} rows of {table} were read by index for {claims} claims");
    }
}
