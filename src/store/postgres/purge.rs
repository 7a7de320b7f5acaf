//! Purging: what has expired leaves the database in small steps. Several instances may purge at once: each takes rows that
//! no other has locked, and none waits for an append.

use std::collections::BTreeSet;

use sqlx::PgConnection;

use crate::model::Timestamp;
use crate::store::{Purged, StoreError, columns};

/// One step: expired copies become placeholders, placeholders at the oldest end of an archive go, and so do bodies that
/// no copy needs. At most `limit` of each.
pub(super) async fn step(connection: &mut PgConnection, now: Timestamp, limit: i64) -> Result<Purged, StoreError> {
    let expired = expire(connection, now, limit).await?;
    let trimmed = trim(connection, limit).await?;
    let bodies = delete_bodies(connection, now, limit).await?;
    Ok(Purged { expired, trimmed, bodies })
}

async fn expire(connection: &mut PgConnection, now: Timestamp, limit: i64) -> Result<u64, StoreError> {
    let accounts: Vec<i64> = sqlx::query_scalar(
        "WITH due AS MATERIALIZED (
             SELECT account, sequence FROM entry WHERE expires_at <= $1 AND body IS NOT NULL
             ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)
         UPDATE entry e SET body = NULL FROM due WHERE e.account = due.account AND e.sequence = due.sequence
         RETURNING e.account",
    )
    .bind(now.micros())
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    let expired = u64::try_from(accounts.len()).unwrap_or(u64::MAX);
    let accounts: BTreeSet<i64> = accounts.into_iter().collect();
    sqlx::query(
        "INSERT INTO archive_trim (account, due) SELECT account, true FROM unnest($1::bigint[]) account
         ON CONFLICT (account) DO UPDATE SET due = true",
    )
    .bind(accounts.into_iter().collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(expired)
}

/// Deletes placeholders that have nothing older before them but placeholders.
async fn trim(connection: &mut PgConnection, limit: i64) -> Result<u64, StoreError> {
    let accounts: Vec<i64> = sqlx::query_scalar(
        "SELECT account FROM archive_trim WHERE due ORDER BY account LIMIT $1 FOR UPDATE SKIP LOCKED",
    )
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    let mut left = limit;
    for account in accounts {
        if left <= 0 {
            break;
        }
        left = left.saturating_sub(trim_one(connection, account, left).await?);
    }
    Ok(columns::total(limit.saturating_sub(left)))
}

async fn trim_one(connection: &mut PgConnection, account: i64, limit: i64) -> Result<i64, StoreError> {
    let (trimmed,): (i64,) = sqlx::query_as(
        "WITH oldest AS MATERIALIZED (
             SELECT sequence, body, expires_at, at FROM entry WHERE account = $1 ORDER BY sequence LIMIT $2),
         gone AS MATERIALIZED (
             SELECT sequence, expires_at, at FROM oldest
             WHERE sequence < coalesce((SELECT min(sequence) FROM oldest WHERE body IS NOT NULL), $3)),
         deleted AS (
             DELETE FROM entry e USING gone WHERE e.account = $1 AND e.sequence = gone.sequence),
         noted AS (
             UPDATE archive_trim SET due = (SELECT count(*) FROM gone) = $2,
                 expired_until = greatest(expired_until, (SELECT max(expires_at) FROM gone)),
                 sent_until = greatest(sent_until, (SELECT max(at) FROM gone))
             WHERE account = $1)
         SELECT count(*) FROM gone",
    )
    .bind(account)
    .bind(limit)
    .bind(i64::MAX)
    .fetch_one(connection)
    .await?;
    Ok(trimmed)
}

async fn delete_bodies(connection: &mut PgConnection, now: Timestamp, limit: i64) -> Result<u64, StoreError> {
    let deleted = sqlx::query(
        "WITH due AS MATERIALIZED (
             SELECT id FROM body WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)
         DELETE FROM body b USING due WHERE b.id = due.id",
    )
    .bind(now.micros())
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

/// Expired copies that are not purged yet, and since when the oldest of them.
pub(super) async fn backlog(
    connection: &mut PgConnection,
    now: Timestamp,
) -> Result<(u64, Option<Timestamp>), StoreError> {
    let (waiting, oldest): (i64, Option<i64>) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM entry WHERE expires_at <= $1 AND body IS NOT NULL),
                (SELECT expires_at FROM entry WHERE expires_at <= $1 AND body IS NOT NULL
                 ORDER BY expires_at LIMIT 1)",
    )
    .bind(now.micros())
    .fetch_one(connection)
    .await?;
    Ok((columns::total(waiting), oldest.map(Timestamp::from_micros)))
}
