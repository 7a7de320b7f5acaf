//! [`RetireStore`] on SQLite.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::{SqliteStore, account, page};
use crate::model::{Class, Owner, StoredCopy, Timestamp};
use crate::store::columns::EntryRow;
use crate::store::{LiveCopy, RetireStore, Skimmed, StoreError};

async fn skim(
    connection: &mut SqliteConnection,
    owner: &Owner,
    before: i64,
    limit: u32,
    now: Timestamp,
) -> Result<Skimmed, StoreError> {
    let Some(account) = account::find(connection, owner).await? else { return Ok(Skimmed::default()) };
    let rows: Vec<(i64, i16, bool)> = sqlx::query_as(
        "SELECT sequence, class, body IS NOT NULL AND (expires_at IS NULL OR expires_at > ?4) FROM entry
         WHERE account = ?1 AND sequence < ?2 ORDER BY sequence DESC LIMIT ?3",
    )
    .bind(account)
    .bind(before)
    .bind(i64::from(limit.max(1)))
    .bind(now.micros())
    .fetch_all(connection)
    .await?;
    let whole = u32::try_from(rows.len()).is_ok_and(|count| count >= limit.max(1));
    let next = rows.last().filter(|_| whole).map(|(sequence, ..)| *sequence);
    let live = rows.into_iter().filter(|(.., live)| *live).map(|(sequence, class, _)| {
        let class = Class::from_code(class).ok_or(StoreError::Corrupt("class"))?;
        Ok(LiveCopy { sequence, class })
    });
    Ok(Skimmed { live: live.collect::<Result<_, StoreError>>()?, next })
}

async fn copies_at(
    connection: &mut SqliteConnection,
    owner: &Owner,
    sequences: &[i64],
    max_bytes: usize,
    now: Timestamp,
) -> Result<Vec<StoredCopy>, StoreError> {
    let Some(account) = account::find(connection, owner).await? else { return Ok(Vec::new()) };
    let (mut rows, mut bytes) = (Vec::new(), 0_usize);
    for sequence in sequences {
        let row: Option<EntryRow> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT {} FROM entry WHERE account = ?1 AND sequence = ?2",
            EntryRow::COLUMNS
        )))
        .bind(account)
        .bind(sequence)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(row) = row else { continue };
        bytes = bytes.saturating_add(row.live_size(now));
        if bytes > max_bytes && !rows.is_empty() {
            break;
        }
        rows.push(row);
    }
    page::with_bodies(connection, rows, now).await
}

async fn retire(connection: &mut SqliteConnection, owner: &Owner, sequences: &[i64]) -> Result<u64, StoreError> {
    let Some(account) = account::find(connection, owner).await? else { return Ok(0) };
    let mut retired = 0_u64;
    for sequence in sequences {
        let body: Option<i64> =
            sqlx::query_scalar("SELECT body FROM entry WHERE account = ?1 AND sequence = ?2 AND body IS NOT NULL")
                .bind(account)
                .bind(sequence)
                .fetch_optional(&mut *connection)
                .await?;
        let Some(body) = body else { continue };
        sqlx::query("UPDATE entry SET body = NULL WHERE account = ?1 AND sequence = ?2")
            .bind(account)
            .bind(sequence)
            .execute(&mut *connection)
            .await?;
        sqlx::query("DELETE FROM body WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.body = ?1)")
            .bind(body)
            .execute(&mut *connection)
            .await?;
        retired = retired.saturating_add(1);
    }
    if retired > 0 {
        sqlx::query(
            "INSERT INTO archive_trim (account, due) VALUES (?1, true) ON CONFLICT (account) DO UPDATE SET due = true",
        )
        .bind(account)
        .execute(connection)
        .await?;
    }
    Ok(retired)
}

#[async_trait]
impl RetireStore for SqliteStore {
    async fn skim(&self, owner: &Owner, before: i64, limit: u32, now: Timestamp) -> Result<Skimmed, StoreError> {
        self.snapshot("skim", |mut db| async move {
            let skimmed = skim(&mut db, owner, before, limit, now).await?;
            db.abandon(skimmed).await
        })
        .await
    }

    async fn copies_at(
        &self,
        owner: &Owner,
        sequences: &[i64],
        max_bytes: usize,
        now: Timestamp,
    ) -> Result<Vec<StoredCopy>, StoreError> {
        self.snapshot("copies-at", |mut db| async move {
            let copies = copies_at(&mut db, owner, sequences, max_bytes, now).await?;
            db.abandon(copies).await
        })
        .await
    }

    async fn retire(&self, owner: &Owner, sequences: &[i64], _now: Timestamp) -> Result<u64, StoreError> {
        self.transaction("retire", |mut db| async move {
            let retired = retire(&mut db, owner, sequences).await?;
            db.commit(retired).await
        })
        .await
    }
}
