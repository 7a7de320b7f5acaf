//! Purging: what has expired leaves the database in small steps.

use sqlx::SqliteConnection;

use crate::model::Timestamp;
use crate::store::{Purged, StoreError, columns};

/// One step: expired copies become placeholders, placeholders at the oldest end of an archive go, and so do bodies that
/// no copy needs. At most `limit` of each.
pub(super) async fn step(connection: &mut SqliteConnection, now: Timestamp, limit: i64) -> Result<Purged, StoreError> {
    let expired = expire(connection, now, limit).await?;
    let trimmed = trim(connection, limit).await?;
    let bodies = delete_bodies(connection, now, limit).await?;
    Ok(Purged { expired, trimmed, bodies })
}

async fn expire(connection: &mut SqliteConnection, now: Timestamp, limit: i64) -> Result<u64, StoreError> {
    let due: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT account, sequence FROM entry WHERE expires_at <= ?1 AND body IS NOT NULL ORDER BY expires_at LIMIT ?2",
    )
    .bind(now.micros())
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    for (account, sequence) in &due {
        sqlx::query("UPDATE entry SET body = NULL WHERE account = ?1 AND sequence = ?2")
            .bind(account)
            .bind(sequence)
            .execute(&mut *connection)
            .await?;
        sqlx::query(
            "INSERT INTO archive_trim (account, due) VALUES (?1, true) ON CONFLICT (account) DO UPDATE SET due = true",
        )
        .bind(account)
        .execute(&mut *connection)
        .await?;
    }
    Ok(u64::try_from(due.len()).unwrap_or(u64::MAX))
}

/// Deletes placeholders that have nothing older before them but placeholders.
async fn trim(connection: &mut SqliteConnection, limit: i64) -> Result<u64, StoreError> {
    let accounts: Vec<i64> = sqlx::query_scalar("SELECT account FROM archive_trim WHERE due ORDER BY account LIMIT ?1")
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

async fn trim_one(connection: &mut SqliteConnection, account: i64, limit: i64) -> Result<i64, StoreError> {
    let oldest: Vec<(i64, Option<i64>, Option<i64>, i64)> = sqlx::query_as(
        "SELECT sequence, body, expires_at, at FROM entry WHERE account = ?1 ORDER BY sequence LIMIT ?2",
    )
    .bind(account)
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    let gone: Vec<_> = oldest.into_iter().take_while(|(_, body, ..)| body.is_none()).collect();
    let trimmed = i64::try_from(gone.len()).unwrap_or(i64::MAX);
    if let Some((last, ..)) = gone.last() {
        sqlx::query("DELETE FROM entry WHERE account = ?1 AND sequence <= ?2")
            .bind(account)
            .bind(last)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query(
        "UPDATE archive_trim SET due = ?2, expired_until = nullif(max(coalesce(expired_until, ?5), coalesce(?3, ?5)), ?5),
             sent_until = nullif(max(coalesce(sent_until, ?5), coalesce(?4, ?5)), ?5)
         WHERE account = ?1",
    )
    .bind(account)
    .bind(trimmed == limit)
    .bind(gone.iter().filter_map(|(_, _, expires_at, _)| *expires_at).max())
    .bind(gone.iter().map(|(.., at)| *at).max())
    // In place of NULL, which the scalar max() of SQLite would return.
    .bind(i64::MIN)
    .execute(connection)
    .await?;
    Ok(trimmed)
}

async fn delete_bodies(connection: &mut SqliteConnection, now: Timestamp, limit: i64) -> Result<u64, StoreError> {
    let deleted = sqlx::query(
        "DELETE FROM body WHERE id IN (SELECT id FROM body WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
    )
    .bind(now.micros())
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

/// Expired copies that are not purged yet, and since when the oldest of them.
pub(super) async fn backlog(
    connection: &mut SqliteConnection,
    now: Timestamp,
) -> Result<(u64, Option<Timestamp>), StoreError> {
    let (waiting, oldest): (i64, Option<i64>) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM entry WHERE expires_at <= ?1 AND body IS NOT NULL),
                (SELECT expires_at FROM entry WHERE expires_at <= ?1 AND body IS NOT NULL
                 ORDER BY expires_at LIMIT 1)",
    )
    .bind(now.micros())
    .fetch_one(connection)
    .await?;
    Ok((columns::total(waiting), oldest.map(Timestamp::from_micros)))
}
