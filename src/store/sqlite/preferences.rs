//! [`PreferencesStore`] on SQLite, and what an append needs of it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::{SqliteStore, account};
use crate::model::{ArchivePreferences, ArchivedMessage, Owner, Timestamp};
use crate::store::append_plan::{ArchiveEnd, Listed};
use crate::store::{PreferencesStore, StoreError, preferences};

/// Which JIDs that a batch names stand in its owners' lists. Only owners with preferences are looked up: most have none.
pub(super) async fn listed(
    connection: &mut SqliteConnection,
    batch: &[ArchivedMessage],
    ends: &BTreeMap<String, ArchiveEnd>,
) -> Result<Listed, StoreError> {
    let mut rows = Vec::new();
    for copy in batch.iter().flat_map(|message| &message.copies) {
        let Some(end) = ends.get(copy.owner.as_str()).filter(|end| end.has_preferences()) else { continue };
        let found: Vec<(i64, String, bool)> =
            sqlx::query_as("SELECT account, jid, keep FROM archive_preference WHERE account = ?1 AND jid IN (?2, ?3)")
                .bind(end.account)
                .bind(copy.peer.as_str())
                .bind(copy.peer.to_bare().to_string())
                .fetch_all(&mut *connection)
                .await?;
        rows.extend(found);
    }
    Ok(Listed::new(rows))
}

async fn read(connection: &mut SqliteConnection, owner: &Owner) -> Result<ArchivePreferences, StoreError> {
    let row: Option<(i64, Option<i16>)> = sqlx::query_as("SELECT id, archive_default FROM account WHERE jid = ?1")
        .bind(owner.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let Some((account, Some(default))) = row else { return Ok(ArchivePreferences::default()) };
    let listed = sqlx::query_as("SELECT jid, keep FROM archive_preference WHERE account = ?1 ORDER BY jid")
        .bind(account)
        .fetch_all(connection)
        .await?;
    preferences::from_columns(default, listed)
}

async fn write(
    connection: &mut SqliteConnection,
    account: i64,
    preferences: &ArchivePreferences,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE account SET archive_default = ?2 WHERE id = ?1")
        .bind(account)
        .bind(preferences.otherwise().code())
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM archive_preference WHERE account = ?1").bind(account).execute(&mut *connection).await?;
    for (jids, keep) in [(preferences.always(), true), (preferences.never(), false)] {
        for jid in jids {
            sqlx::query("INSERT INTO archive_preference (account, jid, keep) VALUES (?1, ?2, ?3)")
                .bind(account)
                .bind(jid.as_str())
                .bind(keep)
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(())
}

#[async_trait]
impl PreferencesStore for SqliteStore {
    async fn preferences(&self, owner: &Owner) -> Result<ArchivePreferences, StoreError> {
        self.snapshot("preferences", |mut db| async move {
            let preferences = read(&mut db, owner).await?;
            db.abandon(preferences).await
        })
        .await
    }

    async fn set_preferences(
        &self,
        owner: &Owner,
        preferences: &ArchivePreferences,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.transaction("set-preferences", |mut db| async move {
            let account = account::register(&mut db, owner.as_str(), now).await?;
            write(&mut db, account, preferences).await?;
            db.commit(()).await
        })
        .await
    }

    async fn adopt_preferences(
        &self,
        owner: &Owner,
        preferences: &ArchivePreferences,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.transaction("adopt-preferences", |mut db| async move {
            let account = account::register(&mut db, owner.as_str(), now).await?;
            let has_set: bool = sqlx::query_scalar("SELECT archive_default IS NOT NULL FROM account WHERE id = ?1")
                .bind(account)
                .fetch_one(&mut *db)
                .await?;
            if has_set {
                return db.abandon(false).await;
            }
            write(&mut db, account, preferences).await?;
            db.commit(true).await
        })
        .await
    }
}
