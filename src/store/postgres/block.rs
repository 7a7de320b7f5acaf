//! Blocks: messages that came together and expire together stand together in one row.
//!
//! A row of its own costs a message 60 bytes and an index entry, and up to a sixth of a page that no further message fits
//! into. Of a block, PostgreSQL reads only the parts (1,996 bytes each) that a message lies in. The last part of a block may
//! be nearly empty and still leave no room for another one in its page: that is why a block may have many parts, and ends
//! where its last one is nearly full. It has not more, since who takes a message back, or erases an account, has all of the
//! block written anew. No message is in two blocks, and no block is added to.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use crate::store::append_plan::{NewBody, NewEntry};
use crate::store::{StoreError, compact};

/// Most bytes of one block, unless it has one message only.
const BYTES: usize = 64 * 1024;
/// Bytes of one part of what PostgreSQL keeps outside of its row (TOAST_MAX_CHUNK_SIZE).
const PART: usize = 1_996;
/// Messages that are packed before the connection gets its turn.
const PACKED_AT_ONCE: usize = 8;
/// Most messages of one block.
const MESSAGES: usize = 256;
/// Messages that expire within the same so many microseconds may share a block.
const EXPIRY: i64 = 60 * 1_000_000;

/// Where a message is: its block, and the place in it from 1.
pub(super) type Place = (i32, i16);

/// What was taken out of blocks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Released {
    /// Copies that had a message in them.
    pub(super) copies: u64,
    /// Messages that went with the last of their copies.
    pub(super) messages: u64,
}

impl Released {
    /// Adds what was taken out elsewhere.
    pub(super) fn add(&mut self, other: Self) {
        self.copies = self.copies.saturating_add(other.copies);
        self.messages = self.messages.saturating_add(other.messages);
    }
}

/// A block as its row has it.
#[derive(Debug, Default, sqlx::FromRow)]
struct Block {
    id: i32,
    ends: Vec<i32>,
    holders: Vec<i16>,
    bytes: Vec<u8>,
}

impl Block {
    fn push(&mut self, message: &[u8], holders: i16) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(message);
        self.ends.push(i32::try_from(self.bytes.len()).map_err(|_| StoreError::Range("block"))?);
        self.holders.push(holders);
        Ok(())
    }

    /// Puts other bytes in the place of a message.
    fn replace(&mut self, position: i16, message: &[u8]) -> Result<(), StoreError> {
        let corrupt = || StoreError::Corrupt("place in a block");
        let index = usize::try_from(position).ok().and_then(|position| position.checked_sub(1)).ok_or_else(corrupt)?;
        let length = |end: Option<&i32>| end.and_then(|end| usize::try_from(*end).ok());
        let end = length(self.ends.get(index)).filter(|end| *end <= self.bytes.len()).ok_or_else(corrupt)?;
        let start = match index.checked_sub(1) {
            Some(before) => length(self.ends.get(before)).filter(|start| *start <= end).ok_or_else(corrupt)?,
            None => 0,
        };
        self.bytes.splice(start..end, message.iter().copied());
        let new_end = start.checked_add(message.len()).ok_or_else(corrupt)?;
        for later in self.ends.iter_mut().skip(index) {
            let moved =
                length(Some(later)).and_then(|old| old.checked_sub(end)).and_then(|past| past.checked_add(new_end));
            *later = moved.and_then(|moved| i32::try_from(moved).ok()).ok_or_else(corrupt)?;
        }
        Ok(())
    }

    /// One copy less of a message; with the last one its bytes go.
    fn release(&mut self, position: i16) -> Result<Released, StoreError> {
        let index = usize::try_from(position).ok().and_then(|position| position.checked_sub(1));
        let holders =
            index.and_then(|index| self.holders.get_mut(index)).ok_or(StoreError::Corrupt("place in a block"))?;
        if *holders <= 0 {
            return Ok(Released::default());
        }
        *holders = holders.saturating_sub(1);
        let is_last = *holders <= 0;
        if is_last {
            self.replace(position, &[])?;
        }
        Ok(Released { copies: 1, messages: u64::from(is_last) })
    }
}

/// Bodies as they are stored: work for the processor, to be done while the database looks something up.
pub(super) async fn packed(bodies: &[NewBody<'_>]) -> Vec<Vec<u8>> {
    let mut packed = Vec::with_capacity(bodies.len());
    for some in bodies.chunks(PACKED_AT_ONCE) {
        packed.extend(some.iter().map(|body| compact::pack(body.bytes)));
        tokio::task::yield_now().await;
    }
    packed
}

/// Stores messages, which are `packed`, and gives the place of each.
pub(super) async fn insert(
    connection: &mut PgConnection,
    entries: &[NewEntry<'_>],
    bodies: &[NewBody<'_>],
    packed: &[Vec<u8>],
) -> Result<Vec<Place>, StoreError> {
    let mut holders = vec![0_i16; bodies.len()];
    for entry in entries {
        if let Some(count) = holders.get_mut(entry.body) {
            *count = count.saturating_add(1);
        }
    }
    let mut expiring: BTreeMap<Option<i64>, Vec<usize>> = BTreeMap::new();
    for (number, body) in bodies.iter().enumerate() {
        expiring.entry(body.expires_at.map(|expiry| expiry.div_euclid(EXPIRY))).or_default().push(number);
    }
    let (mut blocks, mut places) = (Vec::new(), vec![None; bodies.len()]);
    for numbers in expiring.into_values() {
        let mut rest = numbers.as_slice();
        while !rest.is_empty() {
            let lengths = rest.iter().map(|number| packed.get(*number).map_or(0, Vec::len));
            let (of_block, after) = rest.split_at_checked(messages_of_next(lengths)).unwrap_or((rest, &[]));
            rest = after;
            let (mut block, mut expires_at) = (Block::default(), None);
            for number in of_block {
                let missing = || StoreError::Range("block");
                let message = packed.get(*number).ok_or_else(missing)?;
                block.push(message, holders.get(*number).copied().unwrap_or_default())?;
                expires_at = expires_at.max(bodies.get(*number).ok_or_else(missing)?.expires_at);
                let position = i16::try_from(block.ends.len()).map_err(|_| missing())?;
                *places.get_mut(*number).ok_or_else(missing)? = Some((blocks.len(), position));
            }
            blocks.push((block, expires_at));
        }
    }
    let ids = write(connection, &blocks).await?;
    let place = |(block, position): (usize, i16)| ids.get(block).map(|id| (*id, position));
    places.into_iter().map(|at| at.and_then(place).ok_or(StoreError::Range("block"))).collect()
}

/// How many of the messages of these lengths the next block takes: all of them if it can, else as many as leave the least
/// room in its last part, among the numbers that make it half full at least. One at least.
fn messages_of_next(lengths: impl ExactSizeIterator<Item = usize>) -> usize {
    let all = lengths.len();
    let (mut bytes, mut best, mut least) = (0_usize, 1, f64::INFINITY);
    for (count, length) in (1_usize..).zip(lengths) {
        bytes = bytes.saturating_add(length);
        if count > 1 && (bytes > BYTES || count > MESSAGES) {
            return best;
        }
        let room = PART.saturating_sub(bytes.checked_rem(PART).filter(|used| *used > 0).unwrap_or(PART));
        let for_each_byte = room as f64 / bytes.max(1) as f64;
        if count == all {
            return all;
        }
        if bytes < BYTES / 2 || for_each_byte <= least {
            (best, least) = (count, if bytes < BYTES / 2 { f64::INFINITY } else { for_each_byte });
        }
    }
    best
}

async fn write(connection: &mut PgConnection, blocks: &[(Block, Option<i64>)]) -> Result<Vec<i32>, StoreError> {
    let count = i32::try_from(blocks.len()).map_err(|_| StoreError::Range("batch"))?;
    let ids: Vec<i32> = sqlx::query_scalar(
        "SELECT nextval(pg_get_serial_sequence('body_block', 'id'))::integer FROM generate_series(1, $1)",
    )
    .bind(count)
    .fetch_all(&mut *connection)
    .await?;
    // An array of arrays must be a rectangle, and these have different lengths.
    sqlx::query(
        "INSERT INTO body_block (id, expires_at, ends, holders, bytes)
         SELECT id, expires_at, ends::integer[], holders::smallint[], bytes
         FROM unnest($1::integer[], $2::bigint[], $3::text[], $4::text[], $5::bytea[])
             AS b (id, expires_at, ends, holders, bytes)",
    )
    .bind(&ids)
    .bind(blocks.iter().map(|(_, expires_at)| *expires_at).collect::<Vec<_>>())
    .bind(blocks.iter().map(|(block, _)| array(&block.ends)).collect::<Vec<_>>())
    .bind(blocks.iter().map(|(block, _)| array(&block.holders)).collect::<Vec<_>>())
    .bind(blocks.iter().map(|(block, _)| block.bytes.as_slice()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(ids)
}

/// Numbers as the text of a PostgreSQL array.
fn array<T: ToString>(numbers: &[T]) -> String {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    format!("{{{}}}", numbers.join(","))
}

/// Reads the messages in these places, in order, until they have `max_bytes` together; the first is given `anyway`, or only
/// if it alone has no more. What is beyond that is left off. One whose block is gone is `None`.
pub(super) async fn read(
    connection: &mut PgConnection,
    places: &[Place],
    max_bytes: usize,
    anyway: bool,
) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
    let (blocks, positions): (Vec<i32>, Vec<i16>) = places.iter().copied().unzip();
    let rows: Vec<(i64, Option<Vec<u8>>)> = sqlx::query_as(
        "SELECT place, CASE WHEN so_far <= $3 OR place = 1 AND $4 THEN substr(bytes, start + 1, length) END FROM (
             SELECT named.place, b.bytes, b.start, b.length, sum(b.length) OVER (ORDER BY named.place) AS so_far
             FROM unnest($1::integer[], $2::smallint[]) WITH ORDINALITY AS named (block, position, place)
             CROSS JOIN LATERAL (
                 SELECT bytes, coalesce(ends[named.position - 1], 0) AS start,
                        ends[named.position] - coalesce(ends[named.position - 1], 0) AS length
                 FROM body_block WHERE id = named.block LIMIT 1) b) found
         ORDER BY place",
    )
    .bind(blocks)
    .bind(positions)
    .bind(i64::try_from(max_bytes).unwrap_or(i64::MAX))
    .bind(anyway)
    .fetch_all(connection)
    .await?;
    let mut messages: Vec<Option<Vec<u8>>> = vec![None; places.len()];
    let mut read = 0_usize;
    for (place, bytes) in rows {
        let index = usize::try_from(place.saturating_sub(1)).unwrap_or(usize::MAX);
        let message = bytes.map(compact::unpack).transpose()?;
        read = read.saturating_add(message.as_ref().map_or(0, Vec::len));
        // What is stored shorter than it is may still be too much.
        let Some(message) = message.filter(|_| read <= max_bytes || (index == 0 && anyway)) else {
            messages.truncate(index);
            break;
        };
        if let Some(slot) = messages.get_mut(index) {
            *slot = Some(message);
        }
    }
    Ok(messages)
}

/// Takes copies off their messages; a message goes with its last copy, a block with its last message.
pub(super) async fn release(connection: &mut PgConnection, places: &[Place]) -> Result<Released, StoreError> {
    let (mut gone, mut released) = (Vec::new(), Released::default());
    for (mut block, positions) in lock(connection, places).await? {
        for position in positions {
            released.add(block.release(position)?);
        }
        if block.holders.iter().all(|holders| *holders <= 0) {
            gone.push(block.id);
        } else {
            update(connection, &block).await?;
        }
    }
    sqlx::query("DELETE FROM body_block WHERE id = ANY ($1)").bind(gone).execute(connection).await?;
    Ok(released)
}

/// Puts something else in the place of messages.
pub(super) async fn replace(connection: &mut PgConnection, places: &[Place], message: &[u8]) -> Result<(), StoreError> {
    let message = compact::pack(message);
    for (mut block, positions) in lock(connection, places).await? {
        for position in positions {
            block.replace(position, &message)?;
        }
        update(connection, &block).await?;
    }
    Ok(())
}

/// The blocks of these places, which nobody else may change meanwhile, each with the positions in it.
async fn lock(connection: &mut PgConnection, places: &[Place]) -> Result<Vec<(Block, Vec<i16>)>, StoreError> {
    let mut positions: BTreeMap<i32, Vec<i16>> = BTreeMap::new();
    for (block, position) in places {
        positions.entry(*block).or_default().push(*position);
    }
    let blocks: Vec<Block> =
        sqlx::query_as("SELECT id, ends, holders, bytes FROM body_block WHERE id = ANY ($1) ORDER BY id FOR UPDATE")
            .bind(positions.keys().copied().collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
    Ok(blocks
        .into_iter()
        .map(|block| {
            let of = positions.remove(&block.id).unwrap_or_default();
            (block, of)
        })
        .collect())
}

async fn update(connection: &mut PgConnection, block: &Block) -> Result<(), StoreError> {
    sqlx::query("UPDATE body_block SET ends = $2, holders = $3, bytes = $4 WHERE id = $1")
        .bind(block.id)
        .bind(&block.ends)
        .bind(&block.holders)
        .bind(&block.bytes)
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in each place.
    fn shown(block: &Block) -> Vec<&[u8]> {
        let mut start = 0;
        let of = |end: &i32| {
            let message = &block.bytes[start..*end as usize];
            start = *end as usize;
            message
        };
        block.ends.iter().map(of).collect()
    }

    #[test]
    fn a_block_ends_where_its_last_part_is_nearly_full() {
        let of = |lengths: &[usize]| messages_of_next(lengths.iter().copied());
        assert_eq!(of(&[100; 10]), 10, "what fits is not divided");
        assert_eq!(of(&[200_000, 10]), 1, "one alone may be larger than a block");
        assert_eq!(of(&[10; 1_000]), MESSAGES);
        for length in [700, 1_119, 1_512] {
            let messages = of(&vec![length; 1_000]);
            let bytes = messages * length;
            assert!((BYTES / 2..=BYTES).contains(&bytes), "{length}");
            let room = |bytes: usize| bytes.next_multiple_of(PART) - bytes;
            assert!(room(bytes) < PART / 8, "{length}: {}", room(bytes));
        }
    }

    #[test]
    fn what_becomes_of_one_message_moves_no_other_out_of_its_place() {
        let mut block = Block::default();
        for message in ["one", "two", "three"] {
            block.push(message.as_bytes(), 2).unwrap();
        }
        block.replace(2, b"longer than it was").unwrap();
        assert_eq!(shown(&block), [&b"one"[..], b"longer than it was", b"three"]);
        assert_eq!(block.release(1).unwrap(), Released { copies: 1, messages: 0 });
        assert_eq!(shown(&block)[0], b"one");
        assert_eq!(block.release(1).unwrap(), Released { copies: 1, messages: 1 });
        assert_eq!(block.release(1).unwrap(), Released::default());
        assert_eq!(shown(&block), [&b""[..], b"longer than it was", b"three"]);
        block.replace(3, b"3").unwrap();
        block.replace(2, b"").unwrap();
        assert_eq!(shown(&block), [&b""[..], b"", b"3"]);
        for position in [0, 4, -1] {
            assert!(block.replace(position, b"x").is_err() && block.release(position).is_err());
        }
    }
}
