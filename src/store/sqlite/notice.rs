//! [`NoticeStore`] on SQLite.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::{SqliteStore, account};
use crate::model::{DeviceId, Protocol, Timestamp};
use crate::store::columns::{self, NoticeRow};
use crate::store::{Notice, NoticeKind, NoticeStore, StoreError};

/// Adds a notice within the transaction of the change that it tells of.
pub(super) async fn add(
    connection: &mut SqliteConnection,
    account: i64,
    protocol: Protocol,
    device: Option<DeviceId>,
    kind: NoticeKind,
    now: Timestamp,
) -> Result<(), StoreError> {
    // Whoever is sending the earlier one now may have read the state before this change: it is to be sent again.
    sqlx::query(
        "INSERT INTO notice (account, protocol, kind, device, at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (account, protocol, kind, device)
         DO UPDATE SET at = max(excluded.at, notice.at + 1), leased_until = 0",
    )
    .bind(account)
    .bind(protocol.code())
    .bind(columns::notice_code(kind))
    .bind(device.map_or(0, DeviceId::to_sql))
    .bind(now.micros())
    .execute(connection)
    .await?;
    Ok(())
}

async fn take(
    connection: &mut SqliteConnection,
    limit: u32,
    until: Timestamp,
    now: Timestamp,
) -> Result<Vec<NoticeRow>, StoreError> {
    let due: Vec<NoticeRow> = sqlx::query_as(
        "SELECT a.jid, n.account, n.protocol, n.kind, n.device, n.at FROM notice n JOIN account a ON a.id = n.account
         WHERE n.leased_until <= ?1 ORDER BY n.leased_until, n.at LIMIT ?2",
    )
    .bind(now.micros())
    .bind(i64::from(limit))
    .fetch_all(&mut *connection)
    .await?;
    for row in &due {
        sqlx::query(
            "UPDATE notice SET leased_until = ?5 WHERE account = ?1 AND protocol = ?2 AND kind = ?3 AND device = ?4",
        )
        .bind(row.account)
        .bind(row.protocol)
        .bind(row.kind)
        .bind(row.device)
        .bind(until.micros())
        .execute(&mut *connection)
        .await?;
    }
    Ok(due)
}

async fn settle(connection: &mut SqliteConnection, notice: &Notice) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM notice WHERE account = (SELECT id FROM account WHERE jid = ?1) AND protocol = ?2 AND kind = ?3
         AND device = ?4 AND at = ?5",
    )
    .bind(notice.owner.as_str())
    .bind(notice.protocol.code())
    .bind(columns::notice_code(notice.kind))
    .bind(notice.device.map_or(0, DeviceId::to_sql))
    .bind(notice.at.micros())
    .execute(connection)
    .await?;
    Ok(())
}

#[async_trait]
impl NoticeStore for SqliteStore {
    async fn add_notice(&self, notice: &Notice) -> Result<bool, StoreError> {
        self.transaction("add-notice", |mut db| async move {
            let Some(account) = account::find(&mut db, &notice.owner).await? else { return db.abandon(false).await };
            add(&mut db, account, notice.protocol, notice.device, notice.kind, notice.at).await?;
            db.commit(true).await
        })
        .await
    }

    async fn take_notices(&self, limit: u32, lease: Duration, now: Timestamp) -> Result<Vec<Notice>, StoreError> {
        let rows = self
            .transaction("take-notices", |mut db| async move {
                let taken = take(&mut db, limit, now.plus(lease), now).await?;
                db.commit(taken).await
            })
            .await?;
        rows.into_iter().map(NoticeRow::into_notice).collect()
    }

    async fn settle_notices(&self, sent: &[Notice]) -> Result<(), StoreError> {
        self.transaction("settle-notices", |mut db| async move {
            for notice in sent {
                settle(&mut db, notice).await?;
            }
            db.commit(()).await
        })
        .await
    }
}
