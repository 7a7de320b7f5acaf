//! Reading an archive: pages, counts and its two ends.
//!
//! A page is one scan of an index on (account, …, sequence) from its edge; no statement here skips rows by counting them.

use std::collections::HashMap;

use bytes::Bytes;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use crate::model::{Owner, StoredCopy, Timestamp};
use crate::store::columns::EntryRow;
use crate::store::paging::{self, Places, Range, Trimmed};
use crate::store::{Edge, Filter, Page, PageQuery, StoreError, columns, compact};

use super::account;

/// Reads a page. All statements see one state of the database.
pub(super) async fn page(
    connection: &mut SqliteConnection,
    query: &PageQuery,
    now: Timestamp,
) -> Result<Page, StoreError> {
    let PageQuery { owner, filter, edge, max, max_bytes } = query;
    let Some(account) = account::find(connection, owner).await? else {
        return Ok(match paging::named(filter, Some(edge)).first() {
            Some(id) => Page::UnknownId((*id).clone()),
            None => Page::Copies { copies: Vec::new(), complete: true, expired_before: None },
        });
    };
    let range = match range(connection, account, filter, Some(edge)).await? {
        Ok(range) => range,
        Err(unknown) => return Ok(Page::UnknownId(unknown)),
    };
    let mut scan = QueryBuilder::new("SELECT ");
    scan.push(EntryRow::COLUMNS);
    restrict(&mut scan, account, filter, &range);
    scan.push(if range.backwards { " ORDER BY sequence DESC LIMIT " } else { " ORDER BY sequence LIMIT " });
    scan.push_bind(paging::one_more(*max));
    let rows: Vec<EntryRow> = scan.build_query_as().fetch_all(&mut *connection).await?;
    let (rows, complete) = paging::cut(rows, &range, *max, *max_bytes, now);
    let copies = with_bodies(connection, rows, now).await?;
    let expired_before = trimmed(connection, account).await?.and_then(|trimmed| trimmed.concerning(filter, &range));
    Ok(Page::Copies { copies, complete, expired_before })
}

/// Counts what matches. An id that is not there matches nothing.
pub(super) async fn count(
    connection: &mut SqliteConnection,
    owner: &Owner,
    filter: &Filter,
) -> Result<u64, StoreError> {
    let Some(account) = account::find(connection, owner).await? else { return Ok(0) };
    let Ok(range) = range(connection, account, filter, None).await? else { return Ok(0) };
    let mut count = QueryBuilder::new("SELECT count(*)");
    restrict(&mut count, account, filter, &range);
    let count: i64 = count.build_query_scalar().fetch_one(connection).await?;
    Ok(columns::total(count))
}

/// The oldest and the newest copy.
pub(super) async fn ends(
    connection: &mut SqliteConnection,
    owner: &Owner,
    now: Timestamp,
) -> Result<Option<(StoredCopy, StoredCopy)>, StoreError> {
    let mut read = async |edge| {
        let query = PageQuery { owner: owner.clone(), filter: Filter::default(), edge, max: 1, max_bytes: usize::MAX };
        match page(connection, &query, now).await? {
            Page::Copies { mut copies, .. } => Ok::<_, StoreError>(copies.pop()),
            Page::UnknownId(_) => Ok(None),
        }
    };
    Ok(read(Edge::First).await?.zip(read(Edge::Last).await?))
}

/// The range of the sequence that a query is about; `Err` carries a named id that is not in the archive.
async fn range(
    connection: &mut SqliteConnection,
    account: i64,
    filter: &Filter,
    edge: Option<&Edge>,
) -> Result<Result<Range, crate::model::ArchiveId>, StoreError> {
    let named: Vec<&str> = paging::named(filter, edge).into_iter().map(|id| id.as_str()).collect();
    let places: Places = if named.is_empty() {
        HashMap::new()
    } else {
        let mut places = Places::new();
        for id in named {
            let row: Option<(String, i64)> =
                sqlx::query_as("SELECT archive_id, sequence FROM entry WHERE account = ?1 AND archive_id = ?2")
                    .bind(account)
                    .bind(id)
                    .fetch_optional(&mut *connection)
                    .await?;
            places.extend(row);
        }
        places
    };
    let times = if filter.start.is_some() || filter.end.is_some() {
        // Time never decreases with the sequence: one look at the index turns each into a place.
        sqlx::query_as(
            "SELECT (SELECT sequence FROM entry WHERE account = ?1 AND at >= ?2 ORDER BY at, sequence LIMIT 1),
                    (SELECT sequence FROM entry WHERE account = ?1 AND at <= ?3 ORDER BY at DESC, sequence DESC LIMIT 1)",
        )
        .bind(account)
        .bind(filter.start.map(Timestamp::micros))
        .bind(filter.end.map(Timestamp::micros))
        .fetch_one(connection)
        .await?
    } else {
        (None, None)
    };
    Ok(Range::new(filter, edge, &places, times))
}

/// The source and the conditions of a query. SQLite knows nothing of how many rows a condition leaves, so it is told which
/// index to take: of several that fit it would follow the archive rather than the conversation.
fn restrict(scan: &mut QueryBuilder<Sqlite>, account: i64, filter: &Filter, range: &Range) {
    let resource = filter.with.as_ref().and_then(|with| with.resource());
    match (&range.among, &filter.with, resource) {
        // Of a CROSS JOIN the left side is always the outer loop.
        (Some(places), _, _) => scan
            .push(" FROM json_each(")
            .push_bind(json(places))
            .push(") AS chosen CROSS JOIN entry WHERE sequence = chosen.value AND account = "),
        (None, None, _) => scan.push(" FROM entry WHERE account = "),
        (None, Some(_), None) => scan.push(" FROM entry INDEXED BY entry_peer WHERE account = "),
        (None, Some(_), Some(_)) => scan.push(" FROM entry INDEXED BY entry_peer_resource WHERE account = "),
    };
    scan.push_bind(account);
    scan.push(" AND sequence > ").push_bind(range.after);
    scan.push(" AND sequence < ").push_bind(range.before);
    if let Some(with) = &filter.with {
        scan.push(" AND peer = ").push_bind(with.to_bare().to_string());
    }
    if let Some(resource) = resource {
        scan.push(" AND peer_resource = ").push_bind(resource.to_string());
    }
}

/// Reads the bodies of what has not expired.
pub(super) async fn with_bodies(
    connection: &mut SqliteConnection,
    rows: Vec<EntryRow>,
    now: Timestamp,
) -> Result<Vec<StoredCopy>, StoreError> {
    let ids: Vec<i64> = rows.iter().filter_map(|row| row.live_body(now)).collect();
    let bodies: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT id, bytes FROM body WHERE id IN (SELECT value FROM json_each(?1))")
            .bind(json(&ids))
            .fetch_all(connection)
            .await?;
    let unpack = |(id, bytes)| Ok::<_, StoreError>((id, Bytes::from(compact::unpack(bytes)?)));
    let bodies: HashMap<i64, Bytes> = bodies.into_iter().map(unpack).collect::<Result<_, _>>()?;
    rows.into_iter()
        .map(|row| {
            let body = row.live_body(now).and_then(|id| bodies.get(&id)).cloned();
            row.into_copy(body)
        })
        .collect()
}

async fn trimmed(connection: &mut SqliteConnection, account: i64) -> Result<Option<Trimmed>, StoreError> {
    let trimmed = sqlx::query_as("SELECT expired_until, sent_until FROM archive_trim WHERE account = ?1").bind(account);
    Ok(trimmed.fetch_optional(connection).await?)
}

/// Numbers as the JSON array that `json_each` takes: SQLite has no arrays to bind.
fn json(numbers: &[i64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
    format!("[{}]", numbers.join(","))
}
