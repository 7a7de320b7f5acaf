//! Accounts: the numbers that stand for owners.

use sqlx::SqliteConnection;

use crate::model::{Owner, Timestamp};
use crate::store::StoreError;

/// The number of an account, if it is known.
pub(super) async fn find(connection: &mut SqliteConnection, owner: &Owner) -> Result<Option<i64>, StoreError> {
    let id = sqlx::query_scalar("SELECT id FROM account WHERE jid = ?1").bind(owner.as_str());
    Ok(id.fetch_optional(connection).await?)
}

/// The number of an account, which is made known if it is not.
pub(super) async fn register(
    connection: &mut SqliteConnection,
    owner: &str,
    now: Timestamp,
) -> Result<i64, StoreError> {
    sqlx::query("INSERT INTO account (jid, created_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
        .bind(owner)
        .bind(now.micros())
        .execute(&mut *connection)
        .await?;
    let id = sqlx::query_scalar("SELECT id FROM account WHERE jid = ?1").bind(owner);
    Ok(id.fetch_one(connection).await?)
}
