//! The writer path of the archive.
//!
//! Who appends to an archive holds the lock on its account until it has committed, so that a greater sequence number is
//! never visible before a smaller one (DESIGN, archive invariant 2).

use std::collections::{BTreeMap, HashSet};

use sqlx::PgConnection;

use super::preferences;
use crate::model::{ArchivedMessage, Origin};
use crate::store::append_plan::{ArchiveEnd, EndRow, Plan, plan};
use crate::store::transaction::End;
use crate::store::{Appended, StoreError, columns};

/// Appends a batch, or does nothing and gives `None` if one of the `owners`, who are sorted, is unknown.
pub(super) async fn append(
    connection: &mut PgConnection,
    batch: &[ArchivedMessage],
    owners: &[&str],
) -> Result<End<Option<Vec<Vec<Appended>>>>, StoreError> {
    let ends = lock_ends(connection, owners).await?;
    if ends.len() < owners.len() {
        return Ok(End::Abandon(None));
    }
    let known = known_ids(connection, batch, &ends).await?;
    let listed = preferences::listed(connection, batch, &ends).await?;
    let plan = plan(batch, ends, known, &listed)?;
    if plan.is_empty() {
        return Ok(End::Abandon(Some(plan.appended)));
    }
    retract(connection, &plan).await?;
    insert(connection, &plan).await?;
    move_ends(connection, &plan).await?;
    Ok(End::Commit(Some(plan.appended)))
}

async fn lock_ends(connection: &mut PgConnection, owners: &[&str]) -> Result<BTreeMap<String, ArchiveEnd>, StoreError> {
    let rows: Vec<EndRow> = sqlx::query_as(
        "SELECT jid, id, next_sequence, last_at, archive_default FROM account WHERE jid = ANY ($1) ORDER BY jid
         FOR NO KEY UPDATE",
    )
    .bind(owners)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(EndRow::into_end).collect()
}

/// Puts tombstones in the place of what is retracted. Both sides of a local message share its body.
async fn retract(connection: &mut PgConnection, plan: &Plan<'_>) -> Result<(), StoreError> {
    for retraction in &plan.retractions {
        sqlx::query("UPDATE body SET bytes = $2, origin = NULL WHERE origin = $1")
            .bind(retraction.origin.to_sql())
            .bind(retraction.tombstone.as_ref())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Which copies of the batch are stored already.
async fn known_ids(
    connection: &mut PgConnection,
    batch: &[ArchivedMessage],
    ends: &BTreeMap<String, ArchiveEnd>,
) -> Result<HashSet<(i64, String)>, StoreError> {
    let copies = || batch.iter().flat_map(|message| &message.copies);
    let accounts: Vec<i64> = copies().filter_map(|copy| ends.get(copy.owner.as_str())).map(|end| end.account).collect();
    let ids: Vec<&str> = copies().map(|copy| copy.archive_id.as_str()).collect();
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "SELECT named.account, named.id FROM unnest($1::bigint[], $2::text[]) AS named (account, id)
         CROSS JOIN LATERAL (SELECT FROM entry WHERE account = named.account AND archive_id = named.id LIMIT 1) AS found",
    )
    .bind(accounts)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

async fn insert(connection: &mut PgConnection, plan: &Plan<'_>) -> Result<(), StoreError> {
    let entries = &plan.entries;
    let place = |entry: &crate::store::append_plan::NewEntry<'_>| {
        i64::try_from(entry.body).ok().and_then(|body| body.checked_add(1)).ok_or(StoreError::Range("batch"))
    };
    let bodies: Vec<i64> = entries.iter().map(place).collect::<Result<_, _>>()?;
    sqlx::query(
        "WITH fresh AS MATERIALIZED (
             SELECT place, bytes, expires_at, origin, nextval('body_id_seq') AS id
             FROM unnest($1::bytea[], $2::bigint[], $15::bigint[])
                 WITH ORDINALITY AS b (bytes, expires_at, origin, place)),
         stored AS (
             INSERT INTO body (id, bytes, expires_at, origin) SELECT id, bytes, expires_at, origin FROM fresh)
         INSERT INTO entry (account, sequence, archive_id, peer, peer_resource, own_resource, direction, class, at,
             expires_at, body, size)
         SELECT e.account, e.sequence, e.archive_id, e.peer, e.peer_resource, e.own_resource, e.direction, e.class, e.at,
             e.expires_at, fresh.id, e.size
         FROM unnest($3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::smallint[],
             $10::smallint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::integer[])
             AS e (account, sequence, archive_id, peer, peer_resource, own_resource, direction, class, at, expires_at,
                   body, size)
         JOIN fresh ON fresh.place = e.body",
    )
    .bind(plan.bodies.iter().map(|body| body.bytes).collect::<Vec<_>>())
    .bind(plan.bodies.iter().map(|body| body.expires_at).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.account).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.copy.archive_id.as_str()).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.peer.as_str()).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.copy.peer.resource().map(|resource| resource.as_str())).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.copy.own_resource.as_deref()).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| columns::direction_code(entry.copy.direction)).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.class.code()).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.at).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.copy.expires_at.map(|expiry| expiry.micros())).collect::<Vec<_>>())
    .bind(bodies)
    .bind(entries.iter().map(|entry| entry.size).collect::<Vec<_>>())
    .bind(plan.bodies.iter().map(|body| body.origin.map(Origin::to_sql)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn move_ends(connection: &mut PgConnection, plan: &Plan<'_>) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE account a SET next_sequence = n.next_sequence, last_at = n.last_at
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS n (id, next_sequence, last_at) WHERE a.id = n.id",
    )
    .bind(plan.ends.values().map(|end| end.account).collect::<Vec<_>>())
    .bind(plan.ends.values().map(|end| end.next_sequence).collect::<Vec<_>>())
    .bind(plan.ends.values().map(|end| end.last_at).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
