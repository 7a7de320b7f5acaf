//! The writer path of the archive.

use std::collections::{BTreeMap, HashSet};

use sqlx::{QueryBuilder, SqliteConnection};

use crate::model::{ArchivedMessage, Clock, Origin, SystemClock};
use crate::store::append_plan::{ArchiveEnd, EndRow, NewBody, Plan, key_exchanges, owners, plan};
use crate::store::transaction::End;
use crate::store::{Appended, StoreError, columns, compact};

use super::consume::consume;
use super::{account, preferences};

/// Most rows of one statement. Each statement goes to another thread and back, which takes longer than a row; and each number
/// of rows makes another statement, which is kept prepared.
const ROWS: usize = 32;

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
    insert_bodies(connection, &plan).await?;
    move_ends(connection, &plan).await?;
    Ok(End::Commit(plan.appended))
}

/// Where the archives of the owners end, who are made known if they are not.
async fn ends(
    connection: &mut SqliteConnection,
    batch: &[ArchivedMessage],
) -> Result<BTreeMap<String, ArchiveEnd>, StoreError> {
    let owners = owners(batch);
    let mut ends = BTreeMap::new();
    for some in owners.chunks(ROWS) {
        let mut select = QueryBuilder::new(
            "SELECT jid, id, next_sequence, last_at, archive_default, 0 AS next_address FROM account WHERE jid IN (",
        );
        let mut jids = select.separated(", ");
        for owner in some {
            jids.push_bind(*owner);
        }
        select.push(")");
        let rows: Vec<EndRow> = select.build_query_as().fetch_all(&mut *connection).await?;
        for row in rows {
            let (owner, end) = row.into_end()?;
            ends.insert(owner, end);
        }
    }
    for owner in owners {
        if ends.contains_key(owner) {
            continue;
        }
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
async fn known_ids<'a>(
    connection: &mut SqliteConnection,
    batch: &'a [ArchivedMessage],
    ends: &BTreeMap<String, ArchiveEnd>,
) -> Result<HashSet<(i64, &'a str)>, StoreError> {
    let mut named = Vec::new();
    for copy in batch.iter().flat_map(|message| &message.copies) {
        if let Some(end) = ends.get(copy.owner.as_str()) {
            named.push((end.account, copy.archive_id.as_str()));
        }
    }
    let mut known = HashSet::new();
    for some in named.chunks(ROWS) {
        let mut select = QueryBuilder::new("WITH named (place, account, id) AS (");
        select.push_values((0_i64..).zip(some), |mut row, (place, (account, id))| {
            row.push_bind(place).push_bind(*account).push_bind(*id);
        });
        // CROSS JOIN is looked up in this order.
        select.push(
            ") SELECT named.place FROM named CROSS JOIN entry
             ON entry.account = named.account AND entry.archive_id = named.id",
        );
        let found: Vec<i64> = select.build_query_scalar().fetch_all(&mut *connection).await?;
        let found = found.into_iter().filter_map(|place| some.get(usize::try_from(place).ok()?));
        known.extend(found.copied());
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

/// Stores the bodies of a plan, and the copies that have them.
async fn insert_bodies(connection: &mut SqliteConnection, plan: &Plan<'_>) -> Result<(), StoreError> {
    // Nobody else writes: the numbers are those that SQLite would give.
    let last: Option<i64> = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'body'")
        .fetch_optional(&mut *connection)
        .await?;
    let first = last.unwrap_or_default().checked_add(1).ok_or(StoreError::Range("body"))?;
    let numbered: Vec<(i64, &NewBody<'_>)> = (first..).zip(&plan.bodies).collect();
    for some in numbered.chunks(ROWS) {
        let mut insert = QueryBuilder::new("INSERT INTO body (id, bytes, expires_at, origin) ");
        insert.push_values(some, |mut row, (id, body)| {
            row.push_bind(*id).push_bind(compact::pack(body.bytes)).push_bind(body.expires_at);
            row.push_bind(body.origin.map(Origin::to_sql));
        });
        insert.build().execute(&mut *connection).await?;
    }
    for some in plan.entries.chunks(ROWS) {
        let mut insert = QueryBuilder::new(
            "INSERT INTO entry (account, sequence, archive_id, peer, peer_resource, own_resource, direction, class, at,
                 expires_at, body, size) ",
        );
        let bodies: Vec<i64> = some
            .iter()
            .map(|entry| numbered.get(entry.body).map(|(id, _)| *id).ok_or(StoreError::Range("batch")))
            .collect::<Result<_, _>>()?;
        insert.push_values(some.iter().zip(bodies), |mut row, (entry, body)| {
            row.push_bind(entry.account)
                .push_bind(entry.sequence)
                .push_bind(entry.copy.archive_id.as_str())
                .push_bind(entry.peer.as_str())
                .push_bind(entry.copy.peer.resource().map(|resource| resource.as_str()))
                .push_bind(entry.copy.own_resource.as_deref())
                .push_bind(columns::direction_code(entry.copy.direction))
                .push_bind(entry.class.code())
                .push_bind(entry.at)
                .push_bind(entry.copy.expires_at.map(|expiry| expiry.micros()))
                .push_bind(body)
                .push_bind(entry.size);
        });
        insert.build().execute(&mut *connection).await?;
    }
    Ok(())
}

async fn move_ends(connection: &mut SqliteConnection, plan: &Plan<'_>) -> Result<(), StoreError> {
    let ends: Vec<&ArchiveEnd> = plan.ends.values().collect();
    for some in ends.chunks(ROWS) {
        let mut update = QueryBuilder::new("WITH moved (id, next_sequence, last_at) AS (");
        update.push_values(some, |mut row, end| {
            row.push_bind(end.account).push_bind(end.next_sequence).push_bind(end.last_at);
        });
        update.push(
            ") UPDATE account SET next_sequence = moved.next_sequence, last_at = moved.last_at
             FROM moved WHERE account.id = moved.id",
        );
        update.build().execute(&mut *connection).await?;
    }
    Ok(())
}
