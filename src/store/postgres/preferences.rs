//! [`PreferencesStore`] on PostgreSQL, and what an append needs of it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::PgConnection;

use super::{PostgresStore, account};
use crate::model::{ArchivePreferences, ArchivedMessage, Owner, Timestamp};
use crate::store::append_plan::{ArchiveEnd, Listed};
use crate::store::{PreferencesStore, StoreError, preferences};

/// Which JIDs that a batch names stand in its owners' lists. Only owners with preferences are looked up: most have none.
pub(super) async fn listed(
    connection: &mut PgConnection,
    batch: &[ArchivedMessage],
    ends: &BTreeMap<String, ArchiveEnd>,
) -> Result<Listed, StoreError> {
    let (mut accounts, mut jids) = (Vec::new(), Vec::new());
    for copy in batch.iter().flat_map(|message| &message.copies) {
        let Some(end) = ends.get(copy.owner.as_str()).filter(|end| end.has_preferences()) else { continue };
        for jid in [copy.peer.to_string(), copy.peer.to_bare().to_string()] {
            accounts.push(end.account);
            jids.push(jid);
        }
    }
    if accounts.is_empty() {
        return Ok(Listed::default());
    }
    let rows: Vec<(i64, String, bool)> = sqlx::query_as(
        "SELECT p.account, p.jid, p.keep FROM unnest($1::bigint[], $2::text[]) AS named (account, jid)
         CROSS JOIN LATERAL (SELECT * FROM archive_preference
                             WHERE account = named.account AND jid = named.jid LIMIT 1) AS p",
    )
    .bind(accounts)
    .bind(jids)
    .fetch_all(connection)
    .await?;
    Ok(Listed::new(rows))
}

async fn read(connection: &mut PgConnection, owner: &Owner) -> Result<ArchivePreferences, StoreError> {
    let row: Option<(i64, Option<i16>)> = sqlx::query_as("SELECT id, archive_default FROM account WHERE jid = $1")
        .bind(owner.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let Some((account, Some(default))) = row else { return Ok(ArchivePreferences::default()) };
    let listed = sqlx::query_as("SELECT jid, keep FROM archive_preference WHERE account = $1 ORDER BY jid")
        .bind(account)
        .fetch_all(connection)
        .await?;
    preferences::from_columns(default, listed)
}

async fn write(
    connection: &mut PgConnection,
    account: i64,
    preferences: &ArchivePreferences,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE account SET archive_default = $2 WHERE id = $1")
        .bind(account)
        .bind(preferences.otherwise().code())
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM archive_preference WHERE account = $1").bind(account).execute(&mut *connection).await?;
    for (jids, keep) in [(preferences.always(), true), (preferences.never(), false)] {
        sqlx::query(
            "INSERT INTO archive_preference (account, jid, keep) SELECT $1, jid, $3 FROM unnest($2::text[]) jid",
        )
        .bind(account)
        .bind(jids.iter().map(|jid| jid.as_str()).collect::<Vec<_>>())
        .bind(keep)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

#[async_trait]
impl PreferencesStore for PostgresStore {
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
            let account = account::lock(&mut db, owner, now).await?;
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
            let account = account::lock(&mut db, owner, now).await?;
            let has_set: bool = sqlx::query_scalar("SELECT archive_default IS NOT NULL FROM account WHERE id = $1")
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
