//! Accounts: the numbers that stand for owners, and the lock that orders the writers of one owner.

use sqlx::PgConnection;

use crate::model::{Owner, Timestamp};
use crate::store::StoreError;

/// The number of an account, if it is known.
pub(super) async fn find(connection: &mut PgConnection, owner: &Owner) -> Result<Option<i64>, StoreError> {
    let id = sqlx::query_scalar("SELECT id FROM account WHERE jid = $1").bind(owner.as_str());
    Ok(id.fetch_optional(connection).await?)
}

/// Makes accounts known. In the order of their JIDs, as every lock on several accounts is taken.
pub(super) async fn register(connection: &mut PgConnection, sorted: &[&str], now: Timestamp) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO account (jid, created_at) SELECT n.jid, $2 FROM unnest($1::text[]) AS n (jid)
         WHERE NOT EXISTS (SELECT FROM account a WHERE a.jid = n.jid) ON CONFLICT DO NOTHING",
    )
    .bind(sorted)
    .bind(now.micros())
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes the account known if it is not, and locks it against other writers of its lists, bundles and subscriptions until
/// the transaction ends.
pub(super) async fn lock(connection: &mut PgConnection, owner: &Owner, now: Timestamp) -> Result<i64, StoreError> {
    if let Some(id) = lock_known(connection, owner).await? {
        return Ok(id);
    }
    register(connection, &[owner.as_str()], now).await?;
    lock_known(connection, owner).await?.ok_or(StoreError::Corrupt("an account vanished"))
}

/// Locks the account if it is known.
pub(super) async fn lock_known(connection: &mut PgConnection, owner: &Owner) -> Result<Option<i64>, StoreError> {
    let id = sqlx::query_scalar("SELECT id FROM account WHERE jid = $1 FOR NO KEY UPDATE").bind(owner.as_str());
    Ok(id.fetch_optional(connection).await?)
}
