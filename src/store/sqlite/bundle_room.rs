//! Room for one bundle more: what an account may keep is bounded.

use std::time::Duration;

use sqlx::SqliteConnection;

use super::bundle::{self, Place};
use crate::model::Timestamp;
use crate::store::{DEVICES_REMEMBERED, StoreError, UNLISTED_BUNDLES, columns};

/// A bundle of an unlisted device that is older than this makes room for a new one.
const OLD: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Makes sure that a device may have a bundle: one that is listed or in quarantine always may, and of the others a few.
pub(super) async fn make(connection: &mut SqliteConnection, place: Place, now: Timestamp) -> Result<(), StoreError> {
    // NULL: the device is new; false: its bundle was retracted.
    let (published, listed): (Option<bool>, bool) = sqlx::query_as(
        "SELECT (SELECT payload IS NOT NULL FROM bundle WHERE account = ?1 AND protocol = ?2 AND device = ?3),
                EXISTS (SELECT 1 FROM device_life WHERE account = ?1 AND protocol = ?2 AND device = ?3)",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .fetch_one(&mut *connection)
    .await?;
    if published.is_none() {
        remember(connection, place).await?;
    }
    if published == Some(true) || listed {
        return Ok(());
    }
    let unlisted: Vec<(i32, i64)> = sqlx::query_as(
        "SELECT b.device, b.published_at FROM bundle b
         WHERE b.account = ?1 AND b.protocol = ?2 AND b.payload IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM device_life l
                         WHERE l.account = b.account AND l.protocol = b.protocol AND l.device = b.device)
         ORDER BY b.published_at",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .fetch_all(&mut *connection)
    .await?;
    if unlisted.len() < UNLISTED_BUNDLES {
        return Ok(());
    }
    match unlisted.first() {
        Some((device, published_at)) if now.since(Timestamp::from_micros(*published_at)) >= OLD => {
            let oldest = Place { device: columns::device(*device)?, ..place };
            bundle::retract(connection, oldest, now).await.map(drop)
        }
        _ => Err(StoreError::TooManyBundles),
    }
}

/// Makes sure that one device more can be remembered. Forgotten for it are those whose bundles have been retracted before
/// any prekey of them was issued: there is nothing that would have to stay issued.
async fn remember(connection: &mut SqliteConnection, place: Place) -> Result<(), StoreError> {
    let known: i64 = sqlx::query_scalar("SELECT count(*) FROM bundle WHERE account = ?1 AND protocol = ?2")
        .bind(place.account)
        .bind(place.protocol.code())
        .fetch_one(&mut *connection)
        .await?;
    if known < DEVICES_REMEMBERED {
        return Ok(());
    }
    let forgotten = sqlx::query(
        "DELETE FROM bundle AS b WHERE b.account = ?1 AND b.protocol = ?2 AND b.payload IS NULL
         AND NOT EXISTS (SELECT 1 FROM prekey p
                         WHERE p.account = b.account AND p.protocol = b.protocol AND p.device = b.device)",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .execute(connection)
    .await?;
    if forgotten.rows_affected() > 0 { Ok(()) } else { Err(StoreError::TooManyBundles) }
}
