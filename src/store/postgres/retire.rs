//! [`RetireStore`] on PostgreSQL.

use std::collections::BTreeSet;

use async_trait::async_trait;
use sqlx::PgConnection;

use super::block::Place;
use super::entry::EntryRow;
use super::origin::Gone;
use super::{PostgresStore, account, block, origin, page};
use crate::model::{Owner, StoredCopy, Timestamp};
use crate::store::{LiveCopy, RetireStore, Skimmed, StoreError};

async fn skim(
    connection: &mut PgConnection,
    owner: &Owner,
    before: i64,
    limit: u32,
    now: Timestamp,
) -> Result<Skimmed, StoreError> {
    let Some(account) = account::find(connection, owner).await? else { return Ok(Skimmed::default()) };
    let rows: Vec<(i32, i8, bool)> = sqlx::query_as(
        "SELECT sequence, kind, block <> 0 AND expires_at > $4 FROM entry
         WHERE account = $1 AND sequence < $2 ORDER BY sequence DESC LIMIT $3",
    )
    .bind(account)
    .bind(before)
    .bind(i64::from(limit.max(1)))
    .bind(now.micros())
    .fetch_all(connection)
    .await?;
    let whole = u32::try_from(rows.len()).is_ok_and(|count| count >= limit.max(1));
    let next = rows.last().filter(|_| whole).map(|(sequence, ..)| i64::from(*sequence));
    let live = rows.into_iter().filter(|(.., live)| *live);
    let live =
        live.map(|(sequence, kind, _)| LiveCopy { sequence: i64::from(sequence), class: super::entry::class(kind) });
    Ok(Skimmed { live: live.collect(), next })
}

async fn copies_at(
    connection: &mut PgConnection,
    owner: &Owner,
    sequences: &[i64],
    max_bytes: usize,
    now: Timestamp,
) -> Result<Vec<StoredCopy>, StoreError> {
    let Some(account) = account::find(connection, owner).await? else { return Ok(Vec::new()) };
    let rows: Vec<EntryRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT {} FROM unnest($2::bigint[]) WITH ORDINALITY AS named (place, number)
         CROSS JOIN LATERAL (SELECT * FROM entry WHERE account = $1 AND sequence = named.place LIMIT 1) e
         ORDER BY named.number",
        EntryRow::COLUMNS
    )))
    .bind(account)
    .bind(sequences)
    .fetch_all(&mut *connection)
    .await?;
    let most = rows.len();
    Ok(page::with_bodies(connection, account, rows, (most, max_bytes), now).await?.0)
}

async fn retire(
    connection: &mut PgConnection,
    owner: &Owner,
    sequences: &[i64],
    now: Timestamp,
) -> Result<u64, StoreError> {
    let Some(account) = account::find(connection, owner).await? else { return Ok(0) };
    let places: BTreeSet<i64> = sequences.iter().copied().collect();
    // The rows are locked before they are changed: nobody else retires or erases the same copy.
    let copies: Vec<(i32, i32, i16, i64, i32, i64)> = sqlx::query_as(
        "SELECT e.sequence, e.block, e.position, e.origin, e.peer, e.at FROM unnest($2::bigint[]) AS named (place)
         CROSS JOIN LATERAL (SELECT sequence, block, position, origin, peer, at FROM entry
             WHERE account = $1 AND sequence = named.place AND block <> 0 LIMIT 1 FOR UPDATE) e
         ORDER BY e.sequence",
    )
    .bind(account)
    .bind(places.into_iter().collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await?;
    if copies.is_empty() {
        return Ok(0);
    }
    sqlx::query(
        "UPDATE entry SET block = 0, origin = 0 FROM unnest($2::integer[]) AS named (place)
         WHERE account = $1 AND sequence = named.place",
    )
    .bind(account)
    .bind(copies.iter().map(|(sequence, ..)| *sequence).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await?;
    let places: Vec<Place> = copies.iter().map(|(_, block, position, ..)| (*block, *position)).collect();
    block::release(connection, &places).await?;
    let gone: Vec<Gone> = copies
        .iter()
        .filter(|(_, _, _, origin, ..)| *origin != 0)
        .map(|(_, block, position, origin, peer, at)| Gone {
            origin: *origin,
            place: (*block, *position),
            peer: *peer,
            at: *at,
        })
        .collect();
    origin::hand_over(connection, account, &gone).await?;
    sqlx::query(
        "INSERT INTO archive_trim (account, due_at) VALUES ($1, $2)
         ON CONFLICT (account) DO UPDATE SET due_at = least(archive_trim.due_at, excluded.due_at)",
    )
    .bind(account)
    .bind(now.micros())
    .execute(connection)
    .await?;
    Ok(u64::try_from(copies.len()).unwrap_or(u64::MAX))
}

#[async_trait]
impl RetireStore for PostgresStore {
    async fn skim(&self, owner: &Owner, before: i64, limit: u32, now: Timestamp) -> Result<Skimmed, StoreError> {
        self.each("skim", |mut db| async move { skim(&mut db, owner, before, limit, now).await }).await
    }

    async fn copies_at(
        &self,
        owner: &Owner,
        sequences: &[i64],
        max_bytes: usize,
        now: Timestamp,
    ) -> Result<Vec<StoredCopy>, StoreError> {
        self.snapshot("copies-at", |mut db| async move {
            let copies = copies_at(&mut db, owner, sequences, max_bytes, now).await?;
            db.abandon(copies).await
        })
        .await
    }

    async fn retire(&self, owner: &Owner, sequences: &[i64], now: Timestamp) -> Result<u64, StoreError> {
        self.transaction("retire", |mut db| async move {
            let retired = retire(&mut db, owner, sequences, now).await?;
            db.commit(retired).await
        })
        .await
    }
}
