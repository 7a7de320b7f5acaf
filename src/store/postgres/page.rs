//! Reading an archive: pages, counts and its two ends.
//!
//! A page is one scan of an index on (account, …, sequence) from its edge; no statement here skips rows by counting them.

use bytes::Bytes;
use sqlx::{PgConnection, Postgres, QueryBuilder};

use crate::model::{Owner, StoredCopy, Timestamp};
use crate::store::paging::{self, Places, Range, Trimmed};
use crate::store::{Edge, Filter, Page, PageQuery, StoreError, columns};

use super::address::Addresses;
use super::conversation::conversation;
use super::entry::{EntryRow, StoredId};
use super::{address, block};

/// Reads a page. All statements see one state of the database. There are few of them: on a busy machine a page takes as long
/// as it waits for its turn, on one side or the other, and each statement is two turns more.
pub(super) async fn page(connection: &mut PgConnection, query: &PageQuery, now: Timestamp) -> Result<Page, StoreError> {
    let PageQuery { owner, filter, edge, max, max_bytes } = query;
    let Some(archive) = Archive::find(connection, owner, filter, Some(edge)).await? else {
        return Ok(match paging::named(filter, Some(edge)).first() {
            Some(id) => Page::UnknownId((*id).clone()),
            None => Page::Copies { copies: Vec::new(), complete: true, expired_before: None },
        });
    };
    let range = match archive.range(connection, filter, Some(edge)).await? {
        Ok(range) => range,
        Err(unknown) => return Ok(Page::UnknownId(unknown)),
    };
    let mut scan = QueryBuilder::new("SELECT ");
    scan.push(EntryRow::COLUMNS);
    restrict(&mut scan, archive.account, &archive.peer, &range);
    scan.push(if range.backwards { " ORDER BY sequence DESC" } else { " ORDER BY sequence" });
    scan.push(" LIMIT ").push_bind(paging::one_more(*max));
    let rows: Vec<EntryRow> = scan.build_query_as().fetch_all(&mut *connection).await?;
    let most = usize::try_from((*max).max(1)).unwrap_or(usize::MAX);
    let (mut copies, all) = with_bodies(connection, archive.account, rows, (most, *max_bytes), now).await?;
    if range.backwards {
        copies.reverse();
    }
    Ok(Page::Copies { copies, complete: all, expired_before: archive.trimmed.concerning(filter, &range) })
}

/// Counts what matches. An id that is not there matches nothing.
pub(super) async fn count(connection: &mut PgConnection, owner: &Owner, filter: &Filter) -> Result<u64, StoreError> {
    let Some(archive) = Archive::find(connection, owner, filter, None).await? else { return Ok(0) };
    let Ok(range) = archive.range(connection, filter, None).await? else { return Ok(0) };
    let mut count = QueryBuilder::new("SELECT count(*)");
    restrict(&mut count, archive.account, &archive.peer, &range);
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

/// What is to be known of an archive before a query can be put to it.
struct Archive {
    account: i64,
    /// What was trimmed from its oldest end.
    trimmed: Trimmed,
    /// The other side that the query asks for.
    peer: Peer,
    /// Where the ids are that the query names.
    places: Places,
}

impl Archive {
    /// The archive of an owner who has one.
    async fn find(
        connection: &mut PgConnection,
        owner: &Owner,
        filter: &Filter,
        edge: Option<&Edge>,
    ) -> Result<Option<Self>, StoreError> {
        type Found = (i64, Option<i64>, Option<i64>, Vec<Option<i32>>, Option<i32>);
        let named = paging::named(filter, edge);
        let ids: Vec<StoredId> = named.iter().map(|id| StoredId::of(id)).collect();
        // What stands in brackets is looked up one after the other, whatever the planner thinks of the archive.
        let found: Option<Found> = sqlx::query_as(
            "SELECT a.id, t.expired_until, t.sent_until,
                 ARRAY(SELECT (SELECT sequence FROM entry WHERE account = a.id AND id_key = named.key
                                   AND archive_id = named.id AND kind::integer & 8 = named.form LIMIT 1)
                       FROM unnest($2::integer[], $3::bytea[], $4::integer[]) WITH ORDINALITY
                           AS named (key, id, form, place)
                       ORDER BY place),
                 (SELECT number FROM address WHERE account = a.id AND jid = $5)
             FROM account a LEFT JOIN archive_trim t ON t.account = a.id WHERE a.jid = $1",
        )
        .bind(owner.as_str())
        .bind(ids.iter().map(|id| id.key).collect::<Vec<_>>())
        .bind(ids.iter().map(|id| id.bytes.as_slice()).collect::<Vec<_>>())
        .bind(ids.iter().map(|id| i32::from(id.form)).collect::<Vec<_>>())
        .bind(filter.with.as_ref().map(|with| with.as_str()))
        .fetch_optional(connection)
        .await?;
        let Some((account, expired_until, sent_until, places, number)) = found else { return Ok(None) };
        let places = named.iter().zip(places).filter_map(|(id, place)| Some((id.to_string(), i64::from(place?))));
        Ok(Some(Self {
            account,
            trimmed: Trimmed { expired_until, sent_until },
            peer: Peer::of(filter, number.unwrap_or(address::UNKNOWN)),
            places: places.collect(),
        }))
    }

    /// The range of the sequence that a query is about; `Err` carries a named id that is not in the archive.
    async fn range(
        &self,
        connection: &mut PgConnection,
        filter: &Filter,
        edge: Option<&Edge>,
    ) -> Result<Result<Range, crate::model::ArchiveId>, StoreError> {
        let account = self.account;
        let start = match filter.start {
            Some(start) => Some(first_at_or_after(connection, account, start.micros()).await?),
            None => None,
        };
        let end = match filter.end {
            Some(end) => first_at_or_after(connection, account, end.micros().saturating_add(1)).await?.checked_sub(1),
            None => None,
        };
        Ok(Range::new(filter, edge, &self.places, (start, end)))
    }
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
    /// The one that has this number, if the filter asks for one.
    fn of(filter: &Filter, number: i32) -> Self {
        match &filter.with {
            None => Self::Any,
            Some(with) if with.resource().is_some() => Self::Full(number),
            Some(_) => Self::Bare(number),
        }
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
