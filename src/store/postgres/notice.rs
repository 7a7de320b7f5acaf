//! [`NoticeStore`] on PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgConnection;

use super::{PostgresStore, account};
use crate::model::{DeviceId, Protocol, Timestamp};
use crate::store::columns::{self, NoticeRow};
use crate::store::{Notice, NoticeKind, NoticeStore, StoreError};

/// Adds a notice within the transaction of the change that it tells of.
pub(super) async fn add(
    connection: &mut PgConnection,
    account: i64,
    protocol: Protocol,
    device: Option<DeviceId>,
    kind: NoticeKind,
    now: Timestamp,
) -> Result<(), StoreError> {
    // Whoever is sending the earlier one now may have read the state before this change: it is to be sent again.
    sqlx::query(
        "INSERT INTO notice (account, protocol, kind, device, at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (account, protocol, kind, device)
         DO UPDATE SET at = greatest(excluded.at, notice.at + 1), leased_until = 0",
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
    connection: &mut PgConnection,
    limit: u32,
    until: Timestamp,
    now: Timestamp,
) -> Result<Vec<NoticeRow>, StoreError> {
    let taken = sqlx::query_as(
        "WITH due AS (
             SELECT account, protocol, kind, device FROM notice WHERE leased_until <= $1
             ORDER BY leased_until, at LIMIT $2 FOR UPDATE SKIP LOCKED),
         taken AS (
             UPDATE notice n SET leased_until = $3 FROM due
             WHERE n.account = due.account AND n.protocol = due.protocol AND n.kind = due.kind AND n.device = due.device
             RETURNING n.account, n.protocol, n.kind, n.device, n.at)
         SELECT a.jid, t.account, t.protocol, t.kind, t.device, t.at FROM taken t JOIN account a ON a.id = t.account ORDER BY t.at",
    )
    .bind(now.micros())
    .bind(i64::from(limit))
    .bind(until.micros());
    Ok(taken.fetch_all(connection).await?)
}

async fn settle(connection: &mut PgConnection, notice: &Notice) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM notice WHERE account = (SELECT id FROM account WHERE jid = $1) AND protocol = $2 AND kind = $3
         AND device = $4 AND at = $5",
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
impl NoticeStore for PostgresStore {
    async fn add_notice(&self, notice: &Notice) -> Result<bool, StoreError> {
        self.each("add-notice", |mut db| async move {
            let Some(account) = account::find(&mut db, &notice.owner).await? else { return Ok(false) };
            add(&mut db, account, notice.protocol, notice.device, notice.kind, notice.at).await?;
            Ok(true)
        })
        .await
    }

    async fn take_notices(&self, limit: u32, lease: Duration, now: Timestamp) -> Result<Vec<Notice>, StoreError> {
        let rows =
            self.each("take-notices", |mut db| async move { take(&mut db, limit, now.plus(lease), now).await }).await?;
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
