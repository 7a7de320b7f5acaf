//! [`ArchiveStore`] on PostgreSQL: each operation with the transaction that it runs in.

use async_trait::async_trait;

use super::{PostgresStore, account, append, page, purge};
use crate::model::{ArchivedMessage, Clock, Owner, StoredCopy, SystemClock, Timestamp};
use crate::store::{
    Appended, ArchiveStore, ArchiveTotals, Filter, Page, PageQuery, Purged, StoreError, append_plan, archive_id_secret,
    columns,
};

#[async_trait]
impl ArchiveStore for PostgresStore {
    async fn append(&self, batch: &[ArchivedMessage]) -> Result<Vec<Vec<Appended>>, StoreError> {
        let owners: &[&str] = &append_plan::owners(batch);
        let attempt = || {
            self.transaction("append", |mut db| async move {
                let end = append::append(&mut db, batch, owners).await?;
                db.end(end).await
            })
        };
        if let Some(appended) = attempt().await? {
            return Ok(appended);
        }
        // In a transaction of its own: the owners' locks are to be taken in one order, whether they are new or not.
        self.each(
            "register-accounts",
            |mut db| async move { account::register(&mut db, owners, SystemClock.now()).await },
        )
        .await?;
        attempt().await?.ok_or(StoreError::Corrupt("an account vanished"))
    }

    async fn page(&self, query: &PageQuery, now: Timestamp) -> Result<Page, StoreError> {
        self.snapshot("page", |mut db| async move {
            let answer = page::page(&mut db, query, now).await?;
            Ok(db.leave(answer))
        })
        .await
    }

    async fn count(&self, owner: &Owner, filter: &Filter, _now: Timestamp) -> Result<u64, StoreError> {
        self.snapshot("count", |mut db| async move {
            let answer = page::count(&mut db, owner, filter).await?;
            Ok(db.leave(answer))
        })
        .await
    }

    async fn ends(&self, owner: &Owner, now: Timestamp) -> Result<Option<(StoredCopy, StoredCopy)>, StoreError> {
        self.snapshot("ends", |mut db| async move {
            let answer = page::ends(&mut db, owner, now).await?;
            Ok(db.leave(answer))
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
        self.each("purge-backlog", |mut db| async move { purge::backlog(&mut db, now).await }).await
    }

    async fn archive_id_secret(&self) -> Result<[u8; 32], StoreError> {
        let fresh = archive_id_secret::fresh()?.to_vec();
        let stored: Vec<u8> = self
            .each("archive-id-secret", |mut db| async move {
                sqlx::query("INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                    .bind(archive_id_secret::KEY)
                    .bind(fresh)
                    .execute(&mut *db)
                    .await?;
                let secret = sqlx::query_scalar("SELECT value FROM meta WHERE key = $1").bind(archive_id_secret::KEY);
                Ok(secret.fetch_one(&mut *db).await?)
            })
            .await?;
        archive_id_secret::parse(&stored)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.each("ping", |mut db| async move {
            sqlx::query("SELECT 1").execute(&mut *db).await?;
            Ok(())
        })
        .await
    }

    async fn archive_totals(&self) -> Result<ArchiveTotals, StoreError> {
        let (copies, placeholders, bodies, body_bytes): (i64, i64, i64, i64) = self
            .each("archive-totals", |mut db| async move {
                let totals = sqlx::query_as(
                    "SELECT held.copies, (SELECT count(*) FROM entry) - held.copies, held.bodies, held.bytes
                     FROM (SELECT coalesce(sum(b.copies), 0)::bigint AS copies, coalesce(sum(b.bodies), 0)::bigint AS bodies,
                                  coalesce(sum(octet_length(bytes)), 0)::bigint AS bytes
                           FROM body_block CROSS JOIN LATERAL (
                               SELECT sum(h) AS copies, count(*) AS bodies FROM unnest(holders) h WHERE h > 0) b) held",
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
