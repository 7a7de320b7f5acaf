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
    // Chosen in a statement of its own: one that chooses and changes is planned without knowing that it is about few rows.
    let due: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT account, sequence FROM entry WHERE expires_at <= $1 AND body IS NOT NULL
         ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED",
    )
    .bind(now.micros())
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    if due.is_empty() {
        return Ok(0);
    }
    let (accounts, sequences): (Vec<i64>, Vec<i64>) = due.into_iter().unzip();
    let expired = sqlx::query(
        "UPDATE entry e SET body = NULL FROM unnest($1::bigint[], $2::bigint[]) AS due (account, sequence)
         WHERE e.account = due.account AND e.sequence = due.sequence",
    )
    .bind(&accounts)
    .bind(sequences)
    .execute(&mut *connection)
    .await?;
    let accounts: BTreeSet<i64> = accounts.into_iter().collect();
    sqlx::query(
        "INSERT INTO archive_trim (account, due) SELECT account, true FROM unnest($1::bigint[]) account
         ON CONFLICT (account) DO UPDATE SET due = true",
    )
    .bind(accounts.into_iter().collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(expired.rows_affected())
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
    let oldest: Vec<(i64, Option<i64>, Option<i64>, i64)> = sqlx::query_as(
        "SELECT sequence, body, expires_at, at FROM entry WHERE account = $1 ORDER BY sequence LIMIT $2",
    )
    .bind(account)
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    let gone: Vec<_> = oldest.into_iter().take_while(|(_, body, ..)| body.is_none()).collect();
    let trimmed = i64::try_from(gone.len()).unwrap_or(i64::MAX);
    if let Some((last, ..)) = gone.last() {
        sqlx::query("DELETE FROM entry WHERE account = $1 AND sequence <= $2")
            .bind(account)
            .bind(last)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query(
        "UPDATE archive_trim SET due = $2, expired_until = greatest(expired_until, $3),
             sent_until = greatest(sent_until, $4)
         WHERE account = $1",
    )
    .bind(account)
    .bind(trimmed == limit)
    .bind(gone.iter().filter_map(|(_, _, expires_at, _)| *expires_at).max())
    .bind(gone.iter().map(|(.., at)| *at).max())
    .execute(connection)
    .await?;
    Ok(trimmed)
}

async fn delete_bodies(connection: &mut PgConnection, now: Timestamp, limit: i64) -> Result<u64, StoreError> {
    let due: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM body WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED",
    )
    .bind(now.micros())
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    let deleted = sqlx::query("DELETE FROM body WHERE id = ANY ($1)").bind(due).execute(connection).await?;
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
