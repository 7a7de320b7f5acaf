//! Which device a session of the owner has been seen to be.

use std::time::Duration;

use sqlx::PgConnection;

use crate::model::{DeviceId, Protocol, Timestamp};
use crate::store::{SESSIONS_REMEMBERED, StoreError, columns};

use super::bundle::Place;

/// What is known already is written again only after this long: sessions are learned with every message sent.
const REFRESH: Duration = Duration::from_secs(24 * 3600);

/// Records that a session is a device, and forgets the sessions longest unseen.
pub(super) async fn learn(
    connection: &mut PgConnection,
    place: Place,
    resource: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let written = sqlx::query(
        "INSERT INTO session_device (account, protocol, resource, device, learned_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (account, protocol, resource, device) DO UPDATE SET learned_at = excluded.learned_at
         WHERE session_device.learned_at < $6",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(resource)
    .bind(place.device.to_sql())
    .bind(now.micros())
    .bind(now.minus(REFRESH).micros())
    .execute(&mut *connection)
    .await?;
    if written.rows_affected() > 0 {
        sqlx::query(
            "DELETE FROM session_device WHERE account = $1 AND protocol = $2 AND learned_at <
             (SELECT learned_at FROM session_device WHERE account = $1 AND protocol = $2
              ORDER BY learned_at DESC OFFSET $3 LIMIT 1)",
        )
        .bind(place.account)
        .bind(place.protocol.code())
        .bind(SESSIONS_REMEMBERED.saturating_sub(1))
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Every device that a session has been seen to be.
pub(super) async fn devices(
    connection: &mut PgConnection,
    account: i64,
    protocol: Protocol,
    resource: &str,
) -> Result<Vec<DeviceId>, StoreError> {
    let devices: Vec<i32> = sqlx::query_scalar(
        "SELECT device FROM session_device WHERE account = $1 AND protocol = $2 AND resource = $3 ORDER BY device",
    )
    .bind(account)
    .bind(protocol.code())
    .bind(resource)
    .fetch_all(connection)
    .await?;
    columns::devices(devices)
}
