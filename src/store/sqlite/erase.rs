//! [`EraseStore`] on SQLite.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, SqliteConnection};

use super::SqliteStore;
use crate::model::Owner;
use crate::store::erase::{NAMED, Named, Names};
use crate::store::{EraseStore, Erased, StoreError};

/// The tables with a column `account`, but for the archive's, whose rows share bodies. Their names come from the schema.
async fn owned_tables(connection: &mut SqliteConnection) -> Result<Vec<String>, StoreError> {
    let tables = sqlx::query_scalar(
        "SELECT t.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c
         WHERE t.type = 'table' AND c.name = 'account' AND t.name <> 'entry' ORDER BY t.name",
    );
    Ok(tables.fetch_all(connection).await?)
}

/// The columns of a table's primary key, as a list.
async fn key(connection: &mut SqliteConnection, table: &str) -> Result<String, StoreError> {
    let columns: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")
        .bind(table)
        .fetch_all(connection)
        .await?;
    let quoted: Vec<String> = columns.iter().map(|column| format!("\"{column}\"")).collect();
    Ok(if quoted.is_empty() { "rowid".to_owned() } else { quoted.join(", ") })
}

/// Deletes copies, and the bodies that no other archive shares.
async fn erase_copies(connection: &mut SqliteConnection, account: i64, limit: i64) -> Result<u64, StoreError> {
    let copies: Vec<(i64, Option<i64>)> =
        sqlx::query_as("SELECT sequence, body FROM entry WHERE account = ?1 ORDER BY sequence LIMIT ?2")
            .bind(account)
            .bind(limit)
            .fetch_all(&mut *connection)
            .await?;
    let Some((last, _)) = copies.last() else { return Ok(0) };
    let deleted = sqlx::query("DELETE FROM entry WHERE account = ?1 AND sequence <= ?2")
        .bind(account)
        .bind(last)
        .execute(&mut *connection)
        .await?;
    for body in copies.iter().filter_map(|(_, body)| *body) {
        sqlx::query("DELETE FROM body WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.body = ?1)")
            .bind(body)
            .execute(&mut *connection)
            .await?;
    }
    Ok(deleted.rows_affected())
}

async fn step(connection: &mut SqliteConnection, owner: &Owner, limit: i64) -> Result<Erased, StoreError> {
    let letters = sqlx::query(
        "DELETE FROM dead_letter WHERE id IN (SELECT letter FROM dead_letter_owner WHERE owner = ?1 LIMIT ?2)",
    )
    .bind(owner.as_str())
    .bind(limit)
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if letters > 0 {
        return Ok(Erased { rows: letters, done: false });
    }
    let account: Option<i64> = sqlx::query_scalar("SELECT id FROM account WHERE jid = ?1")
        .bind(owner.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(account) = account else { return Ok(Erased { rows: 0, done: true }) };
    let copies = erase_copies(connection, account, limit).await?;
    if copies > 0 {
        return Ok(Erased { rows: copies, done: false });
    }
    for table in owned_tables(connection).await? {
        let key = key(connection, &table).await?;
        let deleted = sqlx::query(AssertSqlSafe(format!(
            "DELETE FROM \"{table}\" WHERE ({key}) IN (SELECT {key} FROM \"{table}\" WHERE account = ?1 LIMIT ?2)"
        )))
        .bind(account)
        .bind(limit)
        .execute(&mut *connection)
        .await?;
        if deleted.rows_affected() > 0 {
            return Ok(Erased { rows: deleted.rows_affected(), done: false });
        }
    }
    sqlx::query("DELETE FROM account WHERE id = ?1").bind(account).execute(connection).await?;
    Ok(Erased { rows: 1, done: true })
}

/// One whole table a step: a scan of it is the only way, and no other instance writes beside this one for long.
async fn named_step(
    connection: &mut SqliteConnection,
    owner: &Owner,
    position: u64,
) -> Result<(Erased, Option<u64>), StoreError> {
    let place = usize::try_from(position).unwrap_or(usize::MAX);
    let Some(named) = NAMED.get(place).copied() else { return Ok((Erased { rows: 0, done: true }, None)) };
    let next = Some(position.saturating_add(1));
    let names = Names::of(owner);
    let Named { table, column, fate } = named;
    let change = fate.statement(table, column);
    let changed = sqlx::query(AssertSqlSafe(format!(
        "{change} WHERE \"{column}\" = ?1 OR substr(\"{column}\", 1, ?2) IN (?3, ?4)"
    )))
    .bind(&names.account)
    .bind(names.length)
    .bind(&names.session)
    .bind(&names.device)
    .execute(connection)
    .await?;
    Ok((Erased { rows: changed.rows_affected(), done: false }, next))
}

/// From here on this connection overwrites what it deletes, rather than only forgetting where it was.
async fn overwrite(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query("PRAGMA secure_delete = ON").execute(connection).await?;
    Ok(())
}

#[async_trait]
impl EraseStore for SqliteStore {
    async fn erase_owned(&self, owner: &Owner, limit: u32) -> Result<Erased, StoreError> {
        self.transaction("erase-owned", |mut db| async move {
            overwrite(&mut db).await?;
            let erased = step(&mut db, owner, i64::from(limit.max(1))).await?;
            db.commit(erased).await
        })
        .await
    }

    async fn erase_named(&self, owner: &Owner, position: u64) -> Result<(Erased, Option<u64>), StoreError> {
        self.transaction("erase-named", |mut db| async move {
            overwrite(&mut db).await?;
            let erased = named_step(&mut db, owner, position).await?;
            db.commit(erased).await
        })
        .await
    }
}
