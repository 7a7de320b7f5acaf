//! The writer path of the archive.

use std::collections::{BTreeMap, HashSet};

use sqlx::SqliteConnection;

use crate::model::{ArchivedMessage, Clock, Origin, SystemClock};
use crate::store::append_plan::{ArchiveEnd, EndRow, NewBody, NewEntry, Plan, key_exchanges, owners, plan};
use crate::store::transaction::End;
use crate::store::{Appended, StoreError, columns, compact};

use super::consume::consume;
use super::{account, preferences};

/// Appends a batch.
pub(super) async fn append(
    connection: &mut SqliteConnection,
    batch: &[ArchivedMessage],
) -> Result<End<Vec<Vec<Appended>>>, StoreError> {
    let ends = ends(connection, batch).await?;
    let known = known_ids(connection, batch, &ends).await?;
    let listed = preferences::listed(connection, batch, &ends).await?;
    let plan = plan(batch, ends, known, &listed)?;
    consume(connection, &key_exchanges(batch), SystemClock.now()).await?;
    if plan.is_empty() {
        return Ok(End::Commit(plan.appended));
    }
    retract(connection, &plan).await?;
    let mut bodies = Vec::with_capacity(plan.bodies.len());
    for body in &plan.bodies {
        bodies.push(insert_body(connection, body).await?);
    }
    for entry in &plan.entries {
        let body = bodies.get(entry.body).copied().ok_or(StoreError::Range("batch"))?;
        insert_entry(connection, entry, body).await?;
    }
    move_ends(connection, &plan).await?;
    Ok(End::Commit(plan.appended))
}

async fn ends(
    connection: &mut SqliteConnection,
    batch: &[ArchivedMessage],
) -> Result<BTreeMap<String, ArchiveEnd>, StoreError> {
    let mut ends = BTreeMap::new();
    for owner in owners(batch) {
        account::register(connection, owner, SystemClock.now()).await?;
        let row: EndRow = sqlx::query_as(
            "SELECT jid, id, next_sequence, last_at, archive_default, 0 AS next_address FROM account WHERE jid = ?1",
        )
        .bind(owner)
        .fetch_one(&mut *connection)
        .await?;
        let (owner, end) = row.into_end()?;
        ends.insert(owner, end);
    }
    Ok(ends)
}

/// Which copies of the batch are stored already.
async fn known_ids(
    connection: &mut SqliteConnection,
    batch: &[ArchivedMessage],
    ends: &BTreeMap<String, ArchiveEnd>,
) -> Result<HashSet<(i64, String)>, StoreError> {
    let mut known = HashSet::new();
    for copy in batch.iter().flat_map(|message| &message.copies) {
        let Some(end) = ends.get(copy.owner.as_str()) else { continue };
        let row: Option<(i64, String)> =
            sqlx::query_as("SELECT account, archive_id FROM entry WHERE account = ?1 AND archive_id = ?2")
                .bind(end.account)
                .bind(copy.archive_id.as_str())
                .fetch_optional(&mut *connection)
                .await?;
        known.extend(row);
    }
    Ok(known)
}

/// Puts tombstones in the place of what is retracted. Both sides of a local message share its body.
async fn retract(connection: &mut SqliteConnection, plan: &Plan<'_>) -> Result<(), StoreError> {
    for retraction in &plan.retractions {
        sqlx::query("UPDATE body SET bytes = ?2, origin = NULL WHERE origin = ?1")
            .bind(retraction.origin.to_sql())
            .bind(compact::pack(&retraction.tombstone))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn insert_body(connection: &mut SqliteConnection, body: &NewBody<'_>) -> Result<i64, StoreError> {
    let inserted = sqlx::query("INSERT INTO body (bytes, expires_at, origin) VALUES (?1, ?2, ?3)")
        .bind(compact::pack(body.bytes))
        .bind(body.expires_at)
        .bind(body.origin.map(Origin::to_sql))
        .execute(connection)
        .await?;
    Ok(inserted.last_insert_rowid())
}

async fn insert_entry(connection: &mut SqliteConnection, entry: &NewEntry<'_>, body: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO entry (account, sequence, archive_id, peer, peer_resource, own_resource, direction, class, at,
             expires_at, body, size)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )
    .bind(entry.account)
    .bind(entry.sequence)
    .bind(entry.copy.archive_id.as_str())
    .bind(entry.peer.as_str())
    .bind(entry.copy.peer.resource().map(|resource| resource.as_str()))
    .bind(entry.copy.own_resource.as_deref())
    .bind(columns::direction_code(entry.copy.direction))
    .bind(entry.class.code())
    .bind(entry.at)
    .bind(entry.copy.expires_at.map(|expiry| expiry.micros()))
    .bind(body)
    .bind(entry.size)
    .execute(connection)
    .await?;
    Ok(())
}

async fn move_ends(connection: &mut SqliteConnection, plan: &Plan<'_>) -> Result<(), StoreError> {
    for end in plan.ends.values() {
        sqlx::query("UPDATE account SET next_sequence = ?2, last_at = ?3 WHERE id = ?1")
            .bind(end.account)
            .bind(end.next_sequence)
            .bind(end.last_at)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
