//! Purging: what has expired leaves the database in small steps. Several instances may purge at once: each takes rows that
//! no other has locked, and none waits for an append.

use std::collections::BTreeSet;

use sqlx::PgConnection;

use super::block::{Place, Released};
use super::entry::NEVER;
use super::{address, block};
use crate::model::Timestamp;
use crate::store::{Purged, StoreError, columns};

/// How long an archive that was found empty is left alone. What comes into it meanwhile is trimmed that much later.
const EMPTY: i64 = 60 * 60 * 1_000_000;

/// One step: blocks that have expired go, whereby their copies become placeholders, and so do placeholders at the oldest end
/// of an archive. At most `limit` blocks, and as many copies.
pub(super) async fn step(connection: &mut PgConnection, now: Timestamp, limit: i64) -> Result<Purged, StoreError> {
    let blocks = delete_blocks(connection, now, limit).await?;
    let (trimmed, taken) = trim(connection, now, limit).await?;
    Ok(Purged {
        expired: blocks.copies.saturating_add(taken.copies),
        trimmed,
        bodies: blocks.messages.saturating_add(taken.messages),
    })
}

/// Gives the copies and the messages that were in the blocks.
async fn delete_blocks(connection: &mut PgConnection, now: Timestamp, limit: i64) -> Result<Released, StoreError> {
    // Chosen in a statement of its own: one that chooses and changes is planned without knowing that it is about few rows.
    let due: Vec<i32> = sqlx::query_scalar(
        "SELECT id FROM body_block WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED",
    )
    .bind(now.micros())
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    if due.is_empty() {
        return Ok(Released::default());
    }
    let holders: Vec<Vec<i16>> = sqlx::query_scalar("DELETE FROM body_block WHERE id = ANY ($1) RETURNING holders")
        .bind(due)
        .fetch_all(connection)
        .await?;
    let held = || holders.iter().flatten().filter(|holders| **holders > 0);
    let copies = held().fold(0_i64, |sum, holders| sum.saturating_add(i64::from(*holders)));
    Ok(Released { copies: columns::total(copies), messages: u64::try_from(held().count()).unwrap_or(u64::MAX) })
}

/// Deletes placeholders that have nothing older before them but placeholders. Gives their number, and what was taken out of
/// blocks that stay.
async fn trim(connection: &mut PgConnection, now: Timestamp, limit: i64) -> Result<(u64, Released), StoreError> {
    let accounts: Vec<i64> = sqlx::query_scalar(
        "SELECT account FROM archive_trim WHERE due_at <= $1 ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED",
    )
    .bind(now.micros())
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    let (mut left, mut taken) = (limit, Released::default());
    for account in accounts {
        if left <= 0 {
            break;
        }
        let (trimmed, of_account) = trim_one(connection, account, now, left).await?;
        left = left.saturating_sub(trimmed);
        taken.add(of_account);
    }
    Ok((columns::total(limit.saturating_sub(left)), taken))
}

/// A copy at the oldest end.
#[derive(sqlx::FromRow)]
struct Oldest {
    sequence: i32,
    block: i32,
    expires_at: i64,
    at: i64,
}

async fn trim_one(
    connection: &mut PgConnection,
    account: i64,
    now: Timestamp,
    limit: i64,
) -> Result<(i64, Released), StoreError> {
    let oldest: Vec<Oldest> = sqlx::query_as(
        "SELECT sequence, block, expires_at, at FROM entry WHERE account = $1 ORDER BY sequence LIMIT $2",
    )
    .bind(account)
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    let is_gone = |copy: &&Oldest| copy.block == 0 || copy.expires_at <= now.micros();
    let gone: Vec<&Oldest> = oldest.iter().take_while(is_gone).collect();
    let trimmed = i64::try_from(gone.len()).unwrap_or(i64::MAX);
    let mut taken = Released::default();
    if let Some(last) = gone.last() {
        // As they are when they go: meanwhile one may have been taken out of its block.
        let deleted: Vec<(i32, i16, i32, i32)> = sqlx::query_as(
            "DELETE FROM entry WHERE account = $1 AND sequence <= $2 RETURNING block, position, peer, peer_full",
        )
        .bind(account)
        .bind(last.sequence)
        .fetch_all(&mut *connection)
        .await?;
        let places = deleted.iter().filter(|(block, ..)| *block != 0).map(|(block, position, ..)| (*block, *position));
        taken = take_out(connection, places.collect(), now).await?;
        let numbers = deleted.iter().flat_map(|(.., peer, peer_full)| [*peer, *peer_full]).collect();
        address::forget(connection, account, numbers).await?;
    }
    let due_at = match oldest.get(gone.len()) {
        Some(copy) => (copy.expires_at != NEVER).then_some(copy.expires_at),
        None if trimmed == limit => Some(now.micros()),
        None => Some(now.micros().saturating_add(EMPTY)),
    };
    sqlx::query(
        "UPDATE archive_trim SET due_at = $2, expired_until = greatest(expired_until, $3),
             sent_until = greatest(sent_until, $4)
         WHERE account = $1",
    )
    .bind(account)
    .bind(due_at)
    .bind(gone.iter().map(|copy| copy.expires_at).filter(|expiry| *expiry <= now.micros()).max())
    .bind(gone.iter().map(|copy| copy.at).max())
    .execute(connection)
    .await?;
    Ok((trimmed, taken))
}

/// Takes trimmed copies out of their blocks. Most of those have gone before, or are about to go as a whole, and need not be
/// written anew for that; what expires a little later, or another archive's copy, keeps one for longer.
async fn take_out(connection: &mut PgConnection, places: Vec<Place>, now: Timestamp) -> Result<Released, StoreError> {
    let blocks: BTreeSet<i32> = places.iter().map(|(block, _)| *block).collect();
    let staying: Vec<i32> = sqlx::query_scalar(
        "SELECT b.id FROM unnest($1::integer[]) AS named (id)
         CROSS JOIN LATERAL (SELECT id, expires_at FROM body_block WHERE id = named.id LIMIT 1) b
         WHERE b.expires_at IS NULL OR b.expires_at > $2",
    )
    .bind(blocks.into_iter().collect::<Vec<_>>())
    .bind(now.micros())
    .fetch_all(&mut *connection)
    .await?;
    let places: Vec<Place> = places.into_iter().filter(|(block, _)| staying.contains(block)).collect();
    if places.is_empty() {
        return Ok(Released::default());
    }
    block::release(connection, &places).await
}

/// Expired copies that are not purged yet, and since when the oldest of them.
pub(super) async fn backlog(
    connection: &mut PgConnection,
    now: Timestamp,
) -> Result<(u64, Option<Timestamp>), StoreError> {
    let (waiting, oldest): (i64, Option<i64>) = sqlx::query_as(
        "SELECT (SELECT coalesce(sum(held.copies), 0)::bigint FROM body_block
                 CROSS JOIN LATERAL (SELECT sum(copies) AS copies FROM unnest(holders) copies) held
                 WHERE expires_at <= $1),
                (SELECT expires_at FROM body_block WHERE expires_at <= $1 ORDER BY expires_at LIMIT 1)",
    )
    .bind(now.micros())
    .fetch_one(connection)
    .await?;
    Ok((columns::total(waiting), oldest.map(Timestamp::from_micros)))
}
