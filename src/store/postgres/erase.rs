//! [`EraseStore`] on PostgreSQL.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, PgConnection};

use super::{PostgresStore, block};
use crate::model::Owner;
use crate::store::erase::{NAMED, Named, Names};
use crate::store::{EraseStore, Erased, StoreError};

/// Blocks of a table that one step looks at: 8 MiB.
const BLOCKS: u64 = 1_024;

/// The tables with a column `account`, but for the archive's, whose rows share bodies. Their names come from the catalog.
/// Bundles go first: a claim holds the row of one while it writes into the other tables, and writes nothing without one.
async fn owned_tables(connection: &mut PgConnection) -> Result<Vec<String>, StoreError> {
    let tables = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
         WHERE a.attname = 'account' AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND NOT c.relispartition
         AND c.relnamespace = current_schema()::regnamespace AND c.relname <> 'entry'
         ORDER BY c.relname <> 'bundle', c.relname",
    );
    Ok(tables.fetch_all(connection).await?)
}

/// Deletes copies, and the bodies that no other archive shares.
async fn erase_copies(connection: &mut PgConnection, account: i64, limit: i64) -> Result<u64, StoreError> {
    let copies: Vec<(i32, i32, i16)> = sqlx::query_as(
        "SELECT sequence, block, position FROM entry WHERE account = $1 ORDER BY sequence LIMIT $2 FOR UPDATE",
    )
    .bind(account)
    .bind(limit)
    .fetch_all(&mut *connection)
    .await?;
    let Some((last, ..)) = copies.last() else { return Ok(0) };
    let deleted = sqlx::query("DELETE FROM entry WHERE account = $1 AND sequence <= $2")
        .bind(account)
        .bind(last)
        .execute(&mut *connection)
        .await?;
    let places: Vec<_> =
        copies.into_iter().filter(|(_, block, _)| *block != 0).map(|(_, block, position)| (block, position)).collect();
    block::release(connection, &places).await?;
    Ok(deleted.rows_affected())
}

async fn erase_letters(connection: &mut PgConnection, owner: &Owner, limit: i64) -> Result<u64, StoreError> {
    let deleted = sqlx::query(
        "DELETE FROM dead_letter WHERE id IN (SELECT letter FROM dead_letter_owner WHERE owner = $1 LIMIT $2)",
    )
    .bind(owner.as_str())
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

async fn step(connection: &mut PgConnection, owner: &Owner, limit: i64) -> Result<Erased, StoreError> {
    let letters = erase_letters(connection, owner, limit).await?;
    if letters > 0 {
        return Ok(Erased { rows: letters, done: false });
    }
    // Nothing is appended meanwhile.
    let account: Option<i64> = sqlx::query_scalar("SELECT id FROM account WHERE jid = $1 FOR UPDATE")
        .bind(owner.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(account) = account else { return Ok(Erased { rows: 0, done: true }) };
    let copies = erase_copies(connection, account, limit).await?;
    if copies > 0 {
        return Ok(Erased { rows: copies, done: false });
    }
    for table in owned_tables(connection).await? {
        let deleted = sqlx::query(AssertSqlSafe(format!(
            "DELETE FROM \"{table}\" WHERE ctid = ANY (ARRAY(SELECT ctid FROM \"{table}\" WHERE account = $1 LIMIT $2))"
        )))
        .bind(account)
        .bind(limit)
        .execute(&mut *connection)
        .await?;
        if deleted.rows_affected() > 0 {
            return Ok(Erased { rows: deleted.rows_affected(), done: false });
        }
    }
    sqlx::query("DELETE FROM account WHERE id = $1").bind(account).execute(connection).await?;
    Ok(Erased { rows: 1, done: true })
}

/// Looks at some blocks of one of the tables that name accounts. A position is the number of blocks of all of them before it.
async fn named_step(
    connection: &mut PgConnection,
    owner: &Owner,
    position: u64,
) -> Result<(Erased, Option<u64>), StoreError> {
    let names = Names::of(owner);
    let mut before = 0_u64;
    for named in NAMED {
        let blocks: i64 =
            sqlx::query_scalar("SELECT pg_relation_size(to_regclass($1)) / current_setting('block_size')::bigint")
                .bind(named.table)
                .fetch_one(&mut *connection)
                .await?;
        let blocks = u64::try_from(blocks).unwrap_or(0);
        let start = position.saturating_sub(before);
        before = before.saturating_add(blocks);
        if position >= before {
            continue;
        }
        let end = start.saturating_add(BLOCKS);
        let Named { table, column, fate } = named;
        let change = fate.statement(table, column);
        let changed = sqlx::query(AssertSqlSafe(format!(
            "{change} WHERE ctid >= '({start},0)'::tid AND ctid < '({end},0)'::tid
             AND (\"{column}\" = $1 OR substr(\"{column}\", 1, $2) IN ($3, $4))"
        )))
        .bind(&names.account)
        .bind(i32::try_from(names.length).unwrap_or(i32::MAX))
        .bind(&names.session)
        .bind(&names.device)
        .execute(connection)
        .await?;
        let next = position.saturating_add(BLOCKS).min(before);
        return Ok((Erased { rows: changed.rows_affected(), done: false }, Some(next)));
    }
    Ok((Erased { rows: 0, done: true }, None))
}

#[async_trait]
impl EraseStore for PostgresStore {
    async fn erase_owned(&self, owner: &Owner, limit: u32) -> Result<Erased, StoreError> {
        self.transaction("erase-owned", |mut db| async move {
            let erased = step(&mut db, owner, i64::from(limit.max(1))).await?;
            db.commit(erased).await
        })
        .await
    }

    async fn erase_named(&self, owner: &Owner, position: u64) -> Result<(Erased, Option<u64>), StoreError> {
        self.transaction("erase-named", |mut db| async move {
            let erased = named_step(&mut db, owner, position).await?;
            db.commit(erased).await
        })
        .await
    }
}
