//! [`CursorStore`] on PostgreSQL.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::entry::StoredId;
use super::{PostgresStore, entry};
use crate::model::{ArchiveId, Owner, ProtocolDevice, Timestamp};
use crate::store::cursor::{CURSORS_REMEMBERED, CursorRow, behind};
use crate::store::{Cursor, CursorStore, StoreError};

async fn move_cursors(
    connection: &mut PgConnection,
    owner: &Owner,
    devices: &[ProtocolDevice],
    read: &ArchiveId,
    now: Timestamp,
) -> Result<Option<u64>, StoreError> {
    let archive: Option<(i64, i64)> = sqlx::query_as("SELECT id, next_sequence FROM account WHERE jid = $1")
        .bind(owner.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let Some((account, next_sequence)) = archive else { return Ok(None) };
    let found = entry::find(connection, &[(account, StoredId::of(read))]).await?;
    let Some((_, sequence)) = found.first().copied() else { return Ok(None) };
    let mut sorted = devices.to_vec();
    // Two sessions of one owner take the rows in the same order.
    sorted.sort_unstable();
    for device in sorted {
        sqlx::query(
            "INSERT INTO read_cursor (account, protocol, device, sequence, moved_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (account, protocol, device) DO UPDATE SET sequence = excluded.sequence, moved_at = excluded.moved_at
             WHERE read_cursor.sequence < excluded.sequence",
        )
        .bind(account)
        .bind(device.protocol.code())
        .bind(device.device.to_sql())
        .bind(sequence)
        .bind(now.micros())
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query(
        "DELETE FROM read_cursor WHERE account = $1 AND moved_at < (
             SELECT moved_at FROM read_cursor WHERE account = $1 ORDER BY moved_at DESC OFFSET $2 LIMIT 1)",
    )
    .bind(account)
    .bind(CURSORS_REMEMBERED.saturating_sub(1))
    .execute(connection)
    .await?;
    Ok(Some(behind(next_sequence, sequence)))
}

#[async_trait]
impl CursorStore for PostgresStore {
    async fn move_cursors(
        &self,
        owner: &Owner,
        devices: &[ProtocolDevice],
        read: &ArchiveId,
        now: Timestamp,
    ) -> Result<Option<u64>, StoreError> {
        self.transaction("move-cursors", |mut db| async move {
            let behind = move_cursors(&mut db, owner, devices, read, now).await?;
            db.commit(behind).await
        })
        .await
    }

    async fn cursors(&self, owner: &Owner) -> Result<Vec<Cursor>, StoreError> {
        self.each("cursors", |mut db| async move {
            let rows: Vec<CursorRow> =
                sqlx::query_as(CursorRow::SELECT).bind(owner.as_str()).fetch_all(&mut *db).await?;
            rows.into_iter().map(CursorRow::into_cursor).collect()
        })
        .await
    }
}
