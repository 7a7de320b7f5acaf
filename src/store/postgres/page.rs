//! Reading an archive: pages, counts and its two ends.
//!
//! A page is one scan of an index on (account, …, sequence) from its edge; no statement here skips rows by counting them.

use std::collections::HashMap;

use bytes::Bytes;
use sqlx::{PgConnection, Postgres, QueryBuilder};

use crate::model::{Owner, StoredCopy, Timestamp};
use crate::store::paging::{self, Places, Range, Trimmed};
use crate::store::{Edge, Filter, Page, PageQuery, StoreError, columns};

use super::address::Addresses;
use super::conversation::conversation;
use super::entry::{EntryRow, StoredId};
use super::{account, address, block, entry};

/// Reads a page. All statements see one state of the database.
pub(super) async fn page(connection: &mut PgConnection, query: &PageQuery, now: Timestamp) -> Result<Page, StoreError> {
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
    let peer = Peer::of(connection, account, filter).await?;
    let mut scan = QueryBuilder::new("SELECT ");
    scan.push(EntryRow::COLUMNS);
    restrict(&mut scan, account, &peer, &range);
    scan.push(if range.backwards { " ORDER BY sequence DESC" } else { " ORDER BY sequence" });
    scan.push(" LIMIT ").push_bind(paging::one_more(*max));
    let rows: Vec<EntryRow> = scan.build_query_as().fetch_all(&mut *connection).await?;
    let most = usize::try_from((*max).max(1)).unwrap_or(usize::MAX);
    let (mut copies, all) = with_bodies(connection, account, rows, (most, *max_bytes), now).await?;
    if range.backwards {
        copies.reverse();
    }
    let expired_before = trimmed(connection, account).await?.and_then(|trimmed| trimmed.concerning(filter, &range));
    Ok(Page::Copies { copies, complete: all, expired_before })
}

/// Counts what matches. An id that is not there matches nothing.
pub(super) async fn count(connection: &mut PgConnection, owner: &Owner, filter: &Filter) -> Result<u64, StoreError> {
    let Some(account) = account::find(connection, owner).await? else { return Ok(0) };
    let Ok(range) = range(connection, account, filter, None).await? else { return Ok(0) };
    let peer = Peer::of(connection, account, filter).await?;
    let mut count = QueryBuilder::new("SELECT count(*)");
    restrict(&mut count, account, &peer, &range);
    let count: i64 = count.build_query_scalar().fetch_one(connection).await?;
    Ok(columns::total(count))
}

/// The oldest and the newest copy.
pub(super) async fn ends(
    connection: &mut PgConnection,
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
    connection: &mut PgConnection,
    account: i64,
    filter: &Filter,
    edge: Option<&Edge>,
) -> Result<Result<Range, crate::model::ArchiveId>, StoreError> {
    let named = paging::named(filter, edge);
    let places: Places = if named.is_empty() {
        HashMap::new()
    } else {
        let ids: Vec<(i64, StoredId)> = named.iter().map(|id| (account, StoredId::of(id))).collect();
        let found = entry::find(connection, &ids).await?;
        found.into_iter().filter_map(|(place, sequence)| Some((named.get(place)?.to_string(), sequence))).collect()
    };
    let start = match filter.start {
        Some(start) => Some(first_at_or_after(connection, account, start.micros()).await?),
        None => None,
    };
    let end = match filter.end {
        Some(end) => first_at_or_after(connection, account, end.micros().saturating_add(1)).await?.checked_sub(1),
        None => None,
    };
    Ok(Range::new(filter, edge, &places, (start, end)))
}

/// Where the copies of a time and after it begin, by halving: time never decreases with the sequence. A place from which on
/// every copy is that young, and before which none is.
pub(super) async fn first_at_or_after(connection: &mut PgConnection, account: i64, at: i64) -> Result<i64, StoreError> {
    let place: Option<i64> = sqlx::query_scalar(
        "WITH RECURSIVE halved (low, high) AS (
             SELECT oldest.sequence::bigint, newest.sequence::bigint + 1
             FROM (SELECT sequence FROM entry WHERE account = $1 ORDER BY sequence LIMIT 1) oldest,
                  (SELECT sequence FROM entry WHERE account = $1 ORDER BY sequence DESC LIMIT 1) newest
             UNION ALL
             SELECT CASE WHEN probe.at < $2 THEN probe.sequence::bigint + 1 ELSE low END,
                    CASE WHEN probe.at < $2 THEN high ELSE middle END
             FROM halved CROSS JOIN LATERAL (SELECT (low + high) / 2 AS middle) half
             LEFT JOIN LATERAL (SELECT sequence, at FROM entry
                 WHERE account = $1 AND sequence >= middle AND sequence < high ORDER BY sequence LIMIT 1) probe ON true
             WHERE low < high)
         SELECT low FROM halved WHERE low >= high LIMIT 1",
    )
    .bind(account)
    .bind(at)
    .fetch_optional(connection)
    .await?;
    Ok(place.unwrap_or(1))
}

/// The other side that a query asks for, by its number.
enum Peer {
    Any,
    Bare(i32),
    Full(i32),
}

impl Peer {
    async fn of(connection: &mut PgConnection, account: i64, filter: &Filter) -> Result<Self, StoreError> {
        let Some(with) = &filter.with else { return Ok(Self::Any) };
        let number = address::number(connection, account, with.as_str()).await?;
        Ok(if with.resource().is_some() { Self::Full(number) } else { Self::Bare(number) })
    }
}

/// The source and the conditions of a query.
fn restrict(scan: &mut QueryBuilder<Postgres>, account: i64, peer: &Peer, range: &Range) {
    if let Some(places) = &range.among {
        // LIMIT in a LATERAL is what makes the planner look up one place after the other: for `= ANY`, or a join that it may
        // turn round, it walks the archive if it takes it for a small one.
        scan.push(" FROM unnest(").push_bind(places.clone()).push("::bigint[]) AS chosen (place)");
        scan.push(" CROSS JOIN LATERAL (SELECT * FROM entry WHERE sequence = place AND account = ").push_bind(account);
        match peer {
            Peer::Any => {}
            Peer::Bare(number) => {
                scan.push(" AND peer = ").push_bind(*number);
            }
            Peer::Full(number) => {
                scan.push(" AND peer_full = ").push_bind(*number);
            }
        }
    } else {
        scan.push(" FROM entry WHERE ");
        match peer {
            Peer::Any => scan.push("account = ").push_bind(account),
            Peer::Bare(number) => {
                scan.push(conversation!("account", "peer"));
                of_conversation(scan, account, *number).push(" AND peer = ").push_bind(*number)
            }
            Peer::Full(number) => {
                scan.push(conversation!("account", "peer_full"));
                of_conversation(scan, account, *number);
                // The second condition is that of the index.
                scan.push(" AND peer_full = ").push_bind(*number).push(" AND peer_full <> 0")
            }
        };
    }
    scan.push(" AND sequence > ").push_bind(range.after);
    scan.push(" AND sequence < ").push_bind(range.before);
    if range.among.is_some() {
        scan.push(" LIMIT 1) AS entry");
    }
}

/// After the number of a row's conversation: that it is this one, and in truth.
fn of_conversation(scan: &mut QueryBuilder<Postgres>, account: i64, address: i32) -> &mut QueryBuilder<Postgres> {
    // The same as the macro says, of parameters that are bound in between.
    scan.push(" = (((").push_bind(account).push("::bigint * 2654435761 + ").push_bind(address);
    scan.push(") & 4294967295) - 2147483648)::integer AND account + 0 = ").push_bind(account)
}

/// Reads the messages of what has not expired, for at most so many rows and bytes; all the same at least one. Gives the
/// copies in the order of the rows, and whether they are all of them.
pub(super) async fn with_bodies(
    connection: &mut PgConnection,
    account: i64,
    mut rows: Vec<EntryRow>,
    (most, max_bytes): (usize, usize),
    now: Timestamp,
) -> Result<(Vec<StoredCopy>, bool), StoreError> {
    let found = rows.len();
    rows.truncate(most);
    let places: Vec<_> = rows.iter().filter_map(|row| row.place(now)).collect();
    let begins_with_one = rows.first().is_some_and(|row| row.place(now).is_some());
    let mut bodies = block::read(connection, &places, max_bytes, begins_with_one).await?.into_iter();
    let mut bodied = Vec::with_capacity(rows.len());
    let mut read = 0_usize;
    for row in rows {
        // The first one alone may have been more than all may have.
        if read > max_bytes {
            break;
        }
        let body = match row.place(now) {
            None => None,
            // Those left off were beyond the bound.
            Some(_) => match bodies.next() {
                Some(body) => body,
                None => break,
            },
        };
        read = read.saturating_add(body.as_ref().map_or(0, Vec::len));
        bodied.push((row, body));
    }
    let numbers = bodied.iter().flat_map(|(row, _)| [row.peer, row.peer_full, row.own_full]);
    let numbers = numbers.filter(|number| *number != address::NONE).collect();
    let addresses = Addresses::read(connection, account, numbers).await?;
    let all = bodied.len() == found;
    let copies = bodied.into_iter().map(|(row, body)| row.into_copy(body.map(Bytes::from), &addresses));
    Ok((copies.collect::<Result<_, _>>()?, all))
}

async fn trimmed(connection: &mut PgConnection, account: i64) -> Result<Option<Trimmed>, StoreError> {
    let trimmed = sqlx::query_as("SELECT expired_until, sent_until FROM archive_trim WHERE account = $1").bind(account);
    Ok(trimmed.fetch_optional(connection).await?)
}
