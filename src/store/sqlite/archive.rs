//! [`ArchiveStore`] on SQLite: each operation with the transaction that it runs in.

use async_trait::async_trait;

use super::{SqliteStore, append, page, purge};
use crate::model::{ArchivedMessage, Owner, StoredCopy, Timestamp};
use crate::store::{
    Appended, ArchiveStore, ArchiveTotals, Filter, Page, PageQuery, Purged, StoreError, archive_id_secret, columns,
};

#[async_trait]
impl ArchiveStore for SqliteStore {
    async fn append(&self, batch: &[ArchivedMessage]) -> Result<Vec<Vec<Appended>>, StoreError> {
        self.transaction("append", |mut db| async move {
            let end = append::append(&mut db, batch).await?;
            db.end(end).await
        })
        .await
    }

    async fn page(&self, query: &PageQuery, now: Timestamp) -> Result<Page, StoreError> {
        self.snapshot("page", |mut db| async move {
            let answer = page::page(&mut db, query, now).await?;
            db.abandon(answer).await
        })
        .await
    }

    async fn count(&self, owner: &Owner, filter: &Filter, _now: Timestamp) -> Result<u64, StoreError> {
        self.snapshot("count", |mut db| async move {
            let answer = page::count(&mut db, owner, filter).await?;
            db.abandon(answer).await
        })
        .await
    }

    async fn ends(&self, owner: &Owner, now: Timestamp) -> Result<Option<(StoredCopy, StoredCopy)>, StoreError> {
        self.snapshot("ends", |mut db| async move {
            let answer = page::ends(&mut db, owner, now).await?;
            db.abandon(answer).await
        })
        .await
    }

    async fn purge(&self, now: Timestamp, limit: u32) -> Result<Purged, StoreError> {
        self.transaction("purge", |mut db| async move {
            let done = purge::step(&mut db, now, i64::from(limit)).await?;
            db.commit(done).await
        })
        .await
    }

    async fn purge_backlog(&self, now: Timestamp) -> Result<(u64, Option<Timestamp>), StoreError> {
        self.snapshot("purge-backlog", |mut db| async move { purge::backlog(&mut db, now).await }).await
    }

    async fn archive_id_secret(&self) -> Result<[u8; 32], StoreError> {
        let fresh = archive_id_secret::fresh()?.to_vec();
        let stored: Vec<u8> = self
            .transaction("archive-id-secret", |mut db| async move {
                sqlx::query("INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
                    .bind(archive_id_secret::KEY)
                    .bind(&fresh[..])
                    .execute(&mut *db)
                    .await?;
                let secret = sqlx::query_scalar("SELECT value FROM meta WHERE key = ?1").bind(archive_id_secret::KEY);
                let secret = secret.fetch_one(&mut *db).await?;
                db.commit(secret).await
            })
            .await?;
        archive_id_secret::parse(&stored)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.snapshot("ping", |mut db| async move {
            sqlx::query("SELECT 1").execute(&mut *db).await?;
            Ok(())
        })
        .await
    }

    async fn archive_totals(&self) -> Result<ArchiveTotals, StoreError> {
        let (copies, placeholders, bodies, body_bytes): (i64, i64, i64, i64) = self
            .snapshot("archive-totals", |mut db| async move {
                let totals = sqlx::query_as(
                    "SELECT (SELECT count(*) FROM entry WHERE body IS NOT NULL),
                            (SELECT count(*) FROM entry WHERE body IS NULL),
                            (SELECT count(*) FROM body),
                            (SELECT coalesce(sum(octet_length(bytes)), 0) FROM body)",
                );
                Ok(totals.fetch_one(&mut *db).await?)
            })
            .await?;
        Ok(ArchiveTotals {
            copies: columns::total(copies),
            placeholders: columns::total(placeholders),
            bodies: columns::total(bodies),
            body_bytes: columns::total(body_bytes),
        })
    }
}
