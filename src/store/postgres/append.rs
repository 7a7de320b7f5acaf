//! The writer path of the archive.
//!
//! Who appends to an archive holds the lock on its account until it has committed, so that a greater sequence number is
//! never visible before a smaller one (DESIGN, archive invariant 2).

use std::collections::{BTreeMap, HashSet};

use sqlx::PgConnection;

use super::address::Numbers;
use super::block::Place;
use super::consume::consume;
use super::entry::{NEVER, StoredId};
use super::{address, block, entry, preferences};
use crate::model::{ArchiveId, ArchivedMessage, Clock, Origin, SystemClock, Timestamp};
use crate::store::append_plan::{ArchiveEnd, EndRow, NewEntry, Plan, key_exchanges, plan};
use crate::store::transaction::End;
use crate::store::{Appended, StoreError};

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
    let mut plan = plan(batch, ends, known, &listed)?;
    let exchanges = key_exchanges(batch);
    if plan.is_empty() && exchanges.is_empty() {
        return Ok(End::Abandon(Some(plan.appended)));
    }
    if !plan.is_empty() {
        retract(connection, &plan).await?;
        insert(connection, &mut plan).await?;
        move_ends(connection, &plan).await?;
    }
    consume(connection, &exchanges, SystemClock.now()).await?;
    Ok(End::Commit(Some(plan.appended)))
}

async fn lock_ends(connection: &mut PgConnection, owners: &[&str]) -> Result<BTreeMap<String, ArchiveEnd>, StoreError> {
    let rows: Vec<EndRow> = sqlx::query_as(
        "SELECT jid, id, next_sequence, last_at, archive_default, next_address::bigint FROM account WHERE jid = ANY ($1) ORDER BY jid
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
        let places: Vec<Place> =
            sqlx::query_as("UPDATE entry SET origin = 0 WHERE origin = $1 AND origin <> 0 RETURNING block, position")
                .bind(retraction.origin.to_sql())
                .fetch_all(&mut *connection)
                .await?;
        let places: Vec<Place> = places.into_iter().filter(|(block, _)| *block != 0).collect();
        block::replace(connection, &places, &retraction.tombstone).await?;
    }
    Ok(())
}

/// Which copies of the batch are stored already.
async fn known_ids<'a>(
    connection: &mut PgConnection,
    batch: &'a [ArchivedMessage],
    ends: &BTreeMap<String, ArchiveEnd>,
) -> Result<HashSet<(i64, &'a str)>, StoreError> {
    let mut named = Vec::new();
    for copy in batch.iter().flat_map(|message| &message.copies) {
        if let Some(end) = ends.get(copy.owner.as_str()) {
            named.push((end.account, &copy.archive_id));
        }
    }
    let mut ids: Vec<((i64, StoredId), &ArchiveId)> =
        named.into_iter().map(|(account, id)| ((account, StoredId::of(id)), id)).collect();
    // In the order of the index: what is looked up next stands near what was looked up last.
    ids.sort_unstable_by_key(|((account, stored), _)| (*account, stored.key));
    let (stored, ids): (Vec<(i64, StoredId)>, Vec<&ArchiveId>) = ids.into_iter().unzip();
    let found = entry::find(connection, &stored).await?;
    let known = found.into_iter().filter_map(|(place, _)| Some((stored.get(place)?.0, ids.get(place)?.as_str())));
    Ok(known.collect())
}

async fn insert(connection: &mut PgConnection, plan: &mut Plan<'_>) -> Result<(), StoreError> {
    let Plan { entries, bodies, ends, .. } = plan;
    let (numbers, packed) = tokio::join!(address::numbers(connection, entries, ends), block::packed(bodies));
    let numbers = numbers?;
    let places = block::insert(connection, entries, bodies, &packed).await?;
    let mut rows = Rows::default();
    // The first copy of a message stands for it where its author takes it back.
    let mut origins: Vec<Option<Origin>> = plan.bodies.iter().map(|body| body.origin).collect();
    let mut placed = Vec::with_capacity(plan.entries.len());
    for (entry, numbers) in plan.entries.iter().zip(numbers) {
        let origin = origins.get_mut(entry.body).and_then(Option::take);
        let place = places.get(entry.body).copied().ok_or(StoreError::Range("batch"))?;
        placed.push((entry, numbers, place, origin));
    }
    // The copies of one archive side by side: its pages are read from fewer places, and its part of an index is filled.
    placed.sort_by_key(|(entry, ..)| (entry.account, entry.sequence));
    for (entry, numbers, place, origin) in placed {
        rows.push(entry, numbers, place, origin)?;
    }
    sqlx::query(
        "INSERT INTO entry (at, expires_at, origin, account, sequence, peer, peer_full, own_full, block, id_key, position,
             kind, archive_id)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::integer[], $5::integer[], $6::integer[],
             $7::integer[], $8::integer[], $9::integer[], $10::integer[], $11::smallint[], $12::\"char\"[], $13::bytea[])",
    )
    .bind(rows.at)
    .bind(rows.expires_at)
    .bind(rows.origin)
    .bind(rows.account)
    .bind(rows.sequence)
    .bind(rows.peer)
    .bind(rows.peer_full)
    .bind(rows.own_full)
    .bind(rows.block)
    .bind(rows.id_key)
    .bind(rows.position)
    .bind(rows.kind)
    .bind(rows.archive_id)
    .execute(&mut *connection)
    .await?;
    first_expiry(connection, plan).await
}

/// The columns of new copies.
#[derive(Default)]
struct Rows {
    at: Vec<i64>,
    expires_at: Vec<i64>,
    origin: Vec<i64>,
    account: Vec<i32>,
    sequence: Vec<i32>,
    peer: Vec<i32>,
    peer_full: Vec<i32>,
    own_full: Vec<i32>,
    block: Vec<i32>,
    id_key: Vec<i32>,
    position: Vec<i16>,
    kind: Vec<i8>,
    archive_id: Vec<Vec<u8>>,
}

impl Rows {
    fn push(
        &mut self,
        entry: &NewEntry<'_>,
        numbers: Numbers,
        (block, position): Place,
        origin: Option<Origin>,
    ) -> Result<(), StoreError> {
        let id = StoredId::of(&entry.copy.archive_id);
        self.at.push(entry.at);
        self.expires_at.push(entry.copy.expires_at.map_or(NEVER, Timestamp::micros));
        self.origin.push(origin.map_or(0, Origin::to_sql));
        self.account.push(i32::try_from(entry.account).map_err(|_| StoreError::Range("account"))?);
        self.sequence.push(i32::try_from(entry.sequence).map_err(|_| StoreError::Range("sequence"))?);
        self.peer.push(numbers.peer);
        self.peer_full.push(numbers.peer_full);
        self.own_full.push(numbers.own_full);
        self.block.push(block);
        self.id_key.push(id.key);
        self.position.push(position);
        self.kind.push(entry::kind(entry.copy.direction, entry.class, &id));
        self.archive_id.push(id.bytes);
        Ok(())
    }
}

/// Lets the purge know when to look at archives that have just begun. Of others it knows.
async fn first_expiry(connection: &mut PgConnection, plan: &Plan<'_>) -> Result<(), StoreError> {
    let first = |entry: &&NewEntry<'_>| entry.sequence == 1;
    let (accounts, due): (Vec<i64>, Vec<Option<i64>>) = plan
        .entries
        .iter()
        .filter(first)
        .map(|entry| (entry.account, entry.copy.expires_at.map(Timestamp::micros)))
        .unzip();
    if accounts.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO archive_trim (account, due_at) SELECT * FROM unnest($1::bigint[], $2::bigint[]) ON CONFLICT DO NOTHING",
    )
    .bind(accounts)
    .bind(due)
    .execute(connection)
    .await?;
    Ok(())
}

async fn move_ends(connection: &mut PgConnection, plan: &Plan<'_>) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE account a SET next_sequence = n.next_sequence, last_at = n.last_at, next_address = n.next_address
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS n (id, next_sequence, last_at, next_address)
         WHERE a.id = n.id",
    )
    .bind(plan.ends.values().map(|end| end.account).collect::<Vec<_>>())
    .bind(plan.ends.values().map(|end| end.next_sequence).collect::<Vec<_>>())
    .bind(plan.ends.values().map(|end| end.last_at).collect::<Vec<_>>())
    .bind(plan.ends.values().map(|end| end.next_address).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
