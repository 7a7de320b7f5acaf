//! Who wants to be told about changes of an owner's nodes.

use jid::Jid;
use sqlx::SqliteConnection;

use crate::model::Protocol;
use crate::store::{NodeKind, StoreError, columns};

/// One node of an account, as the tables name it.
#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) account: i64,
    pub(super) protocol: Protocol,
    pub(super) kind: NodeKind,
}

/// Subscribes, if there is room.
pub(super) async fn add(
    connection: &mut SqliteConnection,
    node: Node,
    subscriber: &Jid,
    limit: u32,
) -> Result<bool, StoreError> {
    let (there, others): (i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE subscriber = ?4), count(*) FILTER (WHERE subscriber <> ?4)
         FROM subscription WHERE account = ?1 AND protocol = ?2 AND node = ?3",
    )
    .bind(node.account)
    .bind(node.protocol.code())
    .bind(columns::node_code(node.kind))
    .bind(subscriber.as_str())
    .fetch_one(&mut *connection)
    .await?;
    if there > 0 {
        return Ok(true);
    }
    if others >= i64::from(limit) {
        return Ok(false);
    }
    sqlx::query("INSERT INTO subscription (account, protocol, node, subscriber) VALUES (?1, ?2, ?3, ?4)")
        .bind(node.account)
        .bind(node.protocol.code())
        .bind(columns::node_code(node.kind))
        .bind(subscriber.as_str())
        .execute(connection)
        .await?;
    Ok(true)
}

/// Ends a subscription, if it was there.
pub(super) async fn remove(
    connection: &mut SqliteConnection,
    node: Node,
    subscriber: &Jid,
) -> Result<bool, StoreError> {
    let removed =
        sqlx::query("DELETE FROM subscription WHERE account = ?1 AND protocol = ?2 AND node = ?3 AND subscriber = ?4")
            .bind(node.account)
            .bind(node.protocol.code())
            .bind(columns::node_code(node.kind))
            .bind(subscriber.as_str())
            .execute(connection)
            .await?;
    Ok(removed.rows_affected() > 0)
}

/// Everybody subscribed, in a fixed order.
pub(super) async fn all(connection: &mut SqliteConnection, node: Node) -> Result<Vec<Jid>, StoreError> {
    let subscribers: Vec<String> = sqlx::query_scalar(
        "SELECT subscriber FROM subscription WHERE account = ?1 AND protocol = ?2 AND node = ?3 ORDER BY subscriber",
    )
    .bind(node.account)
    .bind(node.protocol.code())
    .bind(columns::node_code(node.kind))
    .fetch_all(connection)
    .await?;
    subscribers.iter().map(|subscriber| columns::jid(subscriber)).collect()
}
