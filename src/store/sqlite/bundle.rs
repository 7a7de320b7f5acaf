//! Bundles and the stock of one-time prekeys: publish, retract, read back.

use bytes::Bytes;
use sqlx::SqliteConnection;

use crate::model::{DeviceId, HistoryChange, Prekey, Protocol, PublishedBundle, Timestamp};
use crate::store::{BundlePublished, Stock, StoreError, columns};

use super::epoch;
use super::history::Chain;
use super::{bundle_room, life};

/// One device of an account, as the tables name it.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) account: i64,
    pub(super) protocol: Protocol,
    pub(super) device: DeviceId,
}

/// Stores a bundle.
pub(super) async fn publish(
    connection: &mut SqliteConnection,
    place: Place,
    published: &PublishedBundle,
    now: Timestamp,
) -> Result<BundlePublished, StoreError> {
    bundle_room::make(connection, place, now).await?;
    let known: Option<(Vec<u8>, i64)> = sqlx::query_as(
        "SELECT identity_key, next_upload FROM bundle WHERE account = ?1 AND protocol = ?2 AND device = ?3",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .fetch_optional(&mut *connection)
    .await?;
    let identity_changed = known.as_ref().is_some_and(|(identity, _)| *identity != published.bundle.identity_key);
    let identity_is_new = identity_changed || known.is_none();
    let next_upload = known.map_or(0, |(_, next)| next);
    let prekeys = &published.bundle.prekeys;
    let places = i64::try_from(prekeys.len()).map_err(|_| StoreError::Range("prekeys of a bundle"))?;

    let standing = epoch::before_publish(connection, place, now).await?;
    let next_after = next_upload.saturating_add(places);
    if identity_is_new {
        put_identity(connection, place, published, next_after, now).await?;
    } else {
        put(connection, place, published, next_after, now).await?;
    }
    let keys: Vec<&[u8]> = prekeys.iter().map(|prekey| prekey.key.as_slice()).collect();
    let withdrawn = withdraw_all_but(connection, place, &keys).await?;
    let already_issued = adopt_known(connection, place, prekeys).await?;
    let added = add_new(connection, place, prekeys, next_upload).await?;
    if identity_changed {
        end_repeats(connection, place).await?;
    }
    if added > 0 {
        forget_what_was_told(connection, place).await?;
    }
    life::bundle_published(connection, place).await?;
    if epoch::after_publish(connection, place, standing, now).await? {
        // Whatever it had not seen before may have been issued after the backup that was restored.
        let already_issued = already_issued.saturating_add(added);
        return Ok(BundlePublished { added: 0, already_issued, withdrawn, identity_changed, unissued: 0 });
    }
    let unissued = stock(connection, place).await?.unissued;
    Ok(BundlePublished { added, already_issued, withdrawn, identity_changed, unissued })
}

/// Writes a bundle with an identity key that is new for its device. Every change of an identity key goes through here, so
/// that none is missing in the history.
async fn put_identity(
    connection: &mut SqliteConnection,
    place: Place,
    published: &PublishedBundle,
    next_upload: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut history = Chain::open(connection, place.account, now).await?;
    put(connection, place, published, next_upload, now).await?;
    let key = published.bundle.identity_key.clone();
    history.append(connection, place.protocol, &HistoryChange::Identity { device: place.device, key }, now).await
}

async fn put(
    connection: &mut SqliteConnection,
    place: Place,
    published: &PublishedBundle,
    next_upload: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    let bundle = &published.bundle;
    sqlx::query(
        "INSERT INTO bundle (account, protocol, device, item_id, payload, identity_key, next_upload, signed_prekey_id,
             signed_prekey, signed_prekey_signature, published_at, prekeys)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT (account, protocol, device) DO UPDATE SET item_id = excluded.item_id, payload = excluded.payload,
             identity_key = excluded.identity_key, next_upload = excluded.next_upload,
             signed_prekey_id = excluded.signed_prekey_id, signed_prekey = excluded.signed_prekey,
             signed_prekey_signature = excluded.signed_prekey_signature, published_at = excluded.published_at,
             prekeys = excluded.prekeys",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .bind(&published.item_id)
    .bind(published.payload.as_ref())
    .bind(&bundle.identity_key)
    .bind(next_upload)
    .bind(i64::from(bundle.signed_prekey.id))
    .bind(&bundle.signed_prekey.key)
    .bind(&bundle.signed_prekey.signature)
    .bind(now.micros())
    .bind(i32::try_from(bundle.prekeys.len()).unwrap_or(i32::MAX))
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes every prekey out of stock that is not among `keys`; how many were still in the bundle before.
async fn withdraw_all_but(connection: &mut SqliteConnection, place: Place, keys: &[&[u8]]) -> Result<u32, StoreError> {
    let deleted = sqlx::query(
        "DELETE FROM prekey INDEXED BY prekey_stock WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND issued_at IS NULL
         AND key NOT IN (SELECT unhex(value) FROM json_each(?4))",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .bind(json(keys))
    .execute(&mut *connection)
    .await?;
    let issued = sqlx::query(
        "UPDATE prekey INDEXED BY prekey_issued SET withdrawn = true
         WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND issued_at IS NOT NULL AND NOT withdrawn
         AND key NOT IN (SELECT unhex(value) FROM json_each(?4))",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .bind(json(keys))
    .execute(connection)
    .await?;
    Ok(u32::try_from(deleted.rows_affected().saturating_add(issued.rows_affected())).unwrap_or(u32::MAX))
}

/// Gives the known ones among `keys` the ids that they have now, and brings back those that had been withdrawn. How many
/// of them have been issued.
async fn adopt_known(connection: &mut SqliteConnection, place: Place, prekeys: &[Prekey]) -> Result<u32, StoreError> {
    let mut issued = 0_u32;
    for prekey in prekeys {
        let was_issued: Option<bool> = sqlx::query_scalar(
            "UPDATE prekey SET prekey_id = ?5, withdrawn = false
             WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND key = ?4 RETURNING issued_at IS NOT NULL",
        )
        .bind(place.account)
        .bind(place.protocol.code())
        .bind(place.device.to_sql())
        .bind(&prekey.key)
        .bind(prekey.id.to_sql())
        .fetch_optional(&mut *connection)
        .await?;
        issued = issued.saturating_add(u32::from(was_issued.unwrap_or(false)));
    }
    Ok(issued)
}

/// Puts the unknown ones among `prekeys` into stock, at the end of the queue.
async fn add_new(
    connection: &mut SqliteConnection,
    place: Place,
    prekeys: &[Prekey],
    next_upload: i64,
) -> Result<u32, StoreError> {
    let mut added = 0_u64;
    for (prekey, upload) in prekeys.iter().zip(next_upload..) {
        let row = sqlx::query(
            "INSERT INTO prekey (account, protocol, device, key, prekey_id, upload) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (account, protocol, device, key) DO NOTHING",
        )
        .bind(place.account)
        .bind(place.protocol.code())
        .bind(place.device.to_sql())
        .bind(&prekey.key)
        .bind(prekey.id.to_sql())
        .bind(upload)
        .execute(&mut *connection)
        .await?;
        added = added.saturating_add(row.rows_affected());
    }
    Ok(u32::try_from(added).unwrap_or(u32::MAX))
}

/// Nobody gets again what it got under another identity key.
pub(super) async fn end_repeats(connection: &mut SqliteConnection, place: Place) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE prekey SET superseded = upload + 1
         WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND claimant IS NOT NULL AND superseded = 0",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM last_resort WHERE account = ?1 AND protocol = ?2 AND device = ?3")
        .bind(place.account)
        .bind(place.protocol.code())
        .bind(place.device.to_sql())
        .execute(connection)
        .await?;
    Ok(())
}

/// A stock that was replenished may run low again.
async fn forget_what_was_told(connection: &mut SqliteConnection, place: Place) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE bundle SET stock_told = 0 WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND stock_told > 0",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .execute(connection)
    .await?;
    Ok(())
}

/// Retracts a bundle: its prekeys are withdrawn, the tombstones stay.
pub(super) async fn retract(
    connection: &mut SqliteConnection,
    place: Place,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let retracted = sqlx::query(
        "UPDATE bundle SET payload = NULL
         WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND payload IS NOT NULL",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .execute(&mut *connection)
    .await?;
    withdraw_all_but(connection, place, &[]).await?;
    life::bundle_retracted(connection, place, now).await?;
    Ok(retracted.rows_affected() > 0)
}

/// What a device has left.
pub(super) async fn stock(connection: &mut SqliteConnection, place: Place) -> Result<Stock, StoreError> {
    // Two counts, so that each is a scan of the few rows it counts and not of all tombstones.
    let (unissued, issued, is_void): (i64, i64, bool) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM prekey INDEXED BY prekey_stock
                 WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND issued_at IS NULL),
                (SELECT count(*) FROM prekey INDEXED BY prekey_issued
                 WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND issued_at IS NOT NULL AND NOT withdrawn),
                EXISTS (SELECT 1 FROM bundle b, deployment d
                        WHERE b.account = ?1 AND b.protocol = ?2 AND b.device = ?3 AND b.void_epoch < d.epoch)",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .fetch_one(connection)
    .await?;
    let (unissued, issued) = (columns::few(unissued), columns::few(issued));
    // Void, though not yet written down as such.
    Ok(if is_void {
        Stock { unissued: 0, issued: issued.saturating_add(unissued) }
    } else {
        Stock { unissued, issued }
    })
}

/// Bundles as published, by device id; not those of before a restore, so that their devices publish them again.
pub(super) async fn published(
    connection: &mut SqliteConnection,
    account: i64,
    protocol: Protocol,
    devices: Option<&[DeviceId]>,
    limit: u32,
) -> Result<Vec<(DeviceId, String, Bytes)>, StoreError> {
    let devices: Option<String> = devices.map(|devices| {
        let ids: Vec<String> = devices.iter().map(DeviceId::to_string).collect();
        format!("[{}]", ids.join(","))
    });
    let rows: Vec<(i32, String, Vec<u8>)> = sqlx::query_as(
        "SELECT device, item_id, payload FROM bundle
         WHERE account = ?1 AND protocol = ?2 AND payload IS NOT NULL
         AND epoch = (SELECT epoch FROM deployment) AND (?3 IS NULL OR device IN (SELECT value FROM json_each(?3)))
         ORDER BY device LIMIT ?4",
    )
    .bind(account)
    .bind(protocol.code())
    .bind(devices)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(device, item_id, payload)| Ok((columns::device(device)?, item_id, Bytes::from(payload))))
        .collect()
}

/// Keys as a JSON array of hexadecimal texts: SQLite has no arrays to bind.
fn json(keys: &[&[u8]]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("\"{}\"", hex::encode(key))).collect();
    format!("[{}]", keys.join(","))
}
