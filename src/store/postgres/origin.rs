//! By which copy a message is found when its author takes it back (XEP-0424): of the archives that share a message, one has
//! its origin, since an entry in that index for each would cost 26 bytes. When that copy goes before the others, another of
//! them gets the origin.

use std::time::Duration;

use sqlx::PgConnection;

use super::block::Place;
use super::conversation::conversation;
use super::page;
use crate::model::Timestamp;
use crate::store::StoreError;

/// How far apart the times of two copies of one message may be: that of each is no less than that of the copy before it,
/// which may have come by an instance whose clock is ahead.
const APART: Duration = Duration::from_secs(10 * 60);

/// A copy with an origin that has gone out of its archive.
pub(super) struct Gone {
    /// What its message is found by.
    pub(super) origin: i64,
    /// Where its message is.
    pub(super) place: Place,
    /// The number of the other side's address.
    pub(super) peer: i32,
    /// Its time.
    pub(super) at: i64,
}

/// Another archive's copy of a message, as far as it is known.
#[derive(sqlx::FromRow)]
struct Other {
    origin: i64,
    block: i32,
    position: i16,
    at: i64,
    account: i64,
    peer: i32,
}

/// Gives the origins of copies of an account to those whom they were with, where these have the messages still. The blocks
/// are locked, and no longer count these copies.
pub(super) async fn hand_over(connection: &mut PgConnection, account: i64, gone: &[Gone]) -> Result<(), StoreError> {
    if gone.is_empty() {
        return Ok(());
    }
    let others: Vec<Other> = sqlx::query_as(
        "SELECT gone.origin, gone.block, gone.position, gone.at, other.id AS account, own.number AS peer
         FROM unnest($2::bigint[], $3::integer[], $4::smallint[], $5::integer[], $6::bigint[])
             AS gone (origin, block, position, peer, at)
         CROSS JOIN LATERAL (SELECT FROM body_block WHERE id = gone.block AND holders[gone.position] > 0 LIMIT 1) held
         CROSS JOIN LATERAL (SELECT jid FROM address WHERE account = $1 AND number = gone.peer LIMIT 1) peer
         CROSS JOIN LATERAL (SELECT id FROM account WHERE jid = peer.jid AND id <> $1 LIMIT 1) other
         CROSS JOIN LATERAL (SELECT number FROM address
             WHERE account = other.id AND jid = (SELECT jid FROM account WHERE id = $1) LIMIT 1) own",
    )
    .bind(account)
    .bind(gone.iter().map(|copy| copy.origin).collect::<Vec<_>>())
    .bind(gone.iter().map(|copy| copy.place.0).collect::<Vec<_>>())
    .bind(gone.iter().map(|copy| copy.place.1).collect::<Vec<_>>())
    .bind(gone.iter().map(|copy| copy.peer).collect::<Vec<_>>())
    .bind(gone.iter().map(|copy| copy.at).collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await?;
    for other in others {
        let earliest = Timestamp::from_micros(other.at).minus(APART).micros();
        let from = page::first_at_or_after(connection, other.account, earliest).await?;
        sqlx::query(concat!(
            "UPDATE entry SET origin = $1 WHERE account = $2 AND sequence = (
                 SELECT sequence FROM entry WHERE ",
            conversation!("account", "peer"),
            " = ",
            conversation!("$2", "$3"),
            " AND account + 0 = $2 AND peer = $3 AND sequence >= $4 AND block = $5 AND position = $6
                 ORDER BY sequence LIMIT 1)",
        ))
        .bind(other.origin)
        .bind(other.account)
        .bind(other.peer)
        .bind(from)
        .bind(other.block)
        .bind(other.position)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
