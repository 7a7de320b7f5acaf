//! [`CensusStore`] on PostgreSQL.

use async_trait::async_trait;

use super::PostgresStore;
use crate::model::{Protocol, Timestamp};
use crate::store::census::{BACKLOG_COUNTED, Backlog, CensusRow};
use crate::store::{CensusPage, CensusPlace, CensusStore, StoreError, Waiting};

/// Devices without a bundle are read and do not count. What is void since a restore, and not yet written down as such,
/// counts: it is a matter of minutes.
const STOCK: &str = "
    SELECT b.account, b.protocol, b.device, CASE WHEN b.payload IS NOT NULL THEN (
        SELECT count(*) FROM prekey p
        WHERE p.account = b.account AND p.protocol = b.protocol AND p.device = b.device AND p.issued_at IS NULL) END AS number
    FROM bundle b WHERE (b.account, b.protocol, b.device) > ($1, $2, $3)
    ORDER BY b.account, b.protocol, b.device LIMIT $4";

const UNREAD: &str = "
    SELECT c.account, c.protocol, c.device,
        (SELECT a.next_sequence - 1 - c.sequence FROM account a WHERE a.id = c.account) AS number
    FROM read_cursor c WHERE (c.account, c.protocol, c.device) > ($1, $2, $3)
    ORDER BY c.account, c.protocol, c.device LIMIT $4";

const NOTICES: &str =
    "SELECT count(*), min(at) FROM (SELECT at FROM notice ORDER BY leased_until, at LIMIT $1) AS waiting";

const DEAD_LETTERS: &str =
    "SELECT count(*), min(at) FROM (SELECT at FROM dead_letter ORDER BY at, id LIMIT $1) AS waiting";

// A block holds messages that expire within a minute of each other; the copies of all of them are counted.
const EXPIRED: &str = "
    SELECT least(coalesce(sum(copies), 0), $1)::bigint, min(expires_at) FROM (
        SELECT expires_at, (SELECT sum(held) FROM unnest(holders) AS held) AS copies
        FROM body_block WHERE expires_at <= $2 ORDER BY expires_at LIMIT $1) AS waiting";

const BYTES: &str = "SELECT pg_database_size(current_database())";

#[async_trait]
impl CensusStore for PostgresStore {
    async fn stock_page(
        &self,
        after: Option<CensusPlace>,
        limit: u32,
    ) -> Result<CensusPage<(Protocol, u64)>, StoreError> {
        let rows = self.walk("census-stock", STOCK, after, limit).await?;
        CensusRow::page(rows, limit, |protocol, unissued| (protocol, unissued))
    }

    async fn unread_page(&self, after: Option<CensusPlace>, limit: u32) -> Result<CensusPage<u64>, StoreError> {
        let rows = self.walk("census-cursors", UNREAD, after, limit).await?;
        CensusRow::page(rows, limit, |_, unread| unread)
    }

    async fn waiting(&self, now: Timestamp) -> Result<Waiting, StoreError> {
        self.each("waiting", |mut db| async move {
            let counted = i64::from(BACKLOG_COUNTED);
            let notices = sqlx::query_as(NOTICES).bind(counted).fetch_one(&mut *db).await?;
            let dead_letters = sqlx::query_as(DEAD_LETTERS).bind(counted).fetch_one(&mut *db).await?;
            let expired = sqlx::query_as(EXPIRED).bind(counted).bind(now.micros()).fetch_one(&mut *db).await?;
            let bytes: i64 = sqlx::query_scalar(BYTES).fetch_one(&mut *db).await?;
            Ok(Waiting {
                notices: Backlog::of_row(notices),
                dead_letters: Backlog::of_row(dead_letters),
                expired: Backlog::of_row(expired),
                database_bytes: u64::try_from(bytes).unwrap_or(0),
            })
        })
        .await
    }
}

impl PostgresStore {
    async fn walk(
        &self,
        operation: &'static str,
        statement: &'static str,
        after: Option<CensusPlace>,
        limit: u32,
    ) -> Result<Vec<CensusRow>, StoreError> {
        let after = after.unwrap_or(CensusPlace::START);
        self.each(operation, |mut db| async move {
            let rows = sqlx::query_as(statement)
                .bind(after.account)
                .bind(after.protocol)
                .bind(after.device)
                .bind(i64::from(limit));
            Ok(rows.fetch_all(&mut *db).await?)
        })
        .await
    }
}
