//! [`DeadLetterStore`] on SQLite.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::SqliteStore;
use crate::model::{ArchiveId, ArchivedMessage, Timestamp};
use crate::store::dead_letter::{LetterRow, MOST, NewLetter};
use crate::store::{DeadLetter, DeadLetterStore, StoreError};

async fn insert(connection: &mut SqliteConnection, letter: &NewLetter) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO dead_letter (id, at, reason, message) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET at = excluded.at, reason = excluded.reason, message = excluded.message",
    )
    .bind(&letter.id)
    .bind(letter.at)
    .bind(&letter.reason)
    .bind(&letter.message)
    .execute(&mut *connection)
    .await?;
    for owner in &letter.owners {
        sqlx::query("INSERT INTO dead_letter_owner (owner, letter) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
            .bind(owner)
            .bind(&letter.id)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query(
        "DELETE FROM dead_letter WHERE id IN (SELECT id FROM dead_letter ORDER BY at DESC, id DESC LIMIT -1 OFFSET ?1)",
    )
    .bind(MOST)
    .execute(connection)
    .await?;
    Ok(())
}

#[async_trait]
impl DeadLetterStore for SqliteStore {
    async fn set_aside(&self, message: &ArchivedMessage, reason: &str, now: Timestamp) -> Result<(), StoreError> {
        let Some(letter) = &NewLetter::of(message, reason, now)? else { return Ok(()) };
        self.transaction("set-aside", |mut db| async move {
            insert(&mut db, letter).await?;
            db.commit(()).await
        })
        .await
    }

    async fn dead_letters(
        &self,
        after: Option<(Timestamp, ArchiveId)>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let (at, id) = after.map_or((i64::MIN, String::new()), |(at, id)| (at.micros(), id.to_string()));
        self.snapshot("dead-letters", |mut db| async move {
            let rows: Vec<LetterRow> = sqlx::query_as(
                "SELECT id, at, reason, message FROM dead_letter WHERE (at, id) > (?1, ?2) ORDER BY at, id LIMIT ?3",
            )
            .bind(at)
            .bind(id)
            .bind(i64::from(limit))
            .fetch_all(&mut *db)
            .await?;
            rows.into_iter().map(LetterRow::into_letter).collect()
        })
        .await
    }

    async fn dead_letter(&self, id: &ArchiveId) -> Result<Option<DeadLetter>, StoreError> {
        self.snapshot("dead-letter", |mut db| async move {
            let row: Option<LetterRow> =
                sqlx::query_as("SELECT id, at, reason, message FROM dead_letter WHERE id = ?1")
                    .bind(id.as_str())
                    .fetch_optional(&mut *db)
                    .await?;
            row.map(LetterRow::into_letter).transpose()
        })
        .await
    }

    async fn drop_dead_letter(&self, id: &ArchiveId) -> Result<bool, StoreError> {
        self.transaction("drop-dead-letter", |mut db| async move {
            let deleted =
                sqlx::query("DELETE FROM dead_letter WHERE id = ?1").bind(id.as_str()).execute(&mut *db).await?;
            db.commit(deleted.rows_affected() > 0).await
        })
        .await
    }
}
