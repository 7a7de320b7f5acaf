//! The lives of devices, within the transactions of what changes them. The caller holds the lock on the account.

use sqlx::PgConnection;

use super::bundle::{self, Place};
use super::{device_list, notice};
use crate::model::{Device, DeviceId, DeviceList, Protocol, Timestamp};
use crate::store::life_rows::{QuarantinedDevice, cause_code};
use crate::store::{Due, NoticeKind, QuarantineCause, Revived, Step, StoreError};

/// Follows a list that has come into force, or the end of one: who is new in it begins a life, who was quarantined and is
/// listed again is so no longer, and who has left it is forgotten. Called by the one function that writes lists.
pub(super) async fn follow_list(
    connection: &mut PgConnection,
    account: i64,
    protocol: Protocol,
    list: Option<&DeviceList>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(list) = list else {
        sqlx::query("DELETE FROM device_life WHERE account = $1 AND protocol = $2")
            .bind(account)
            .bind(protocol.code())
            .execute(connection)
            .await?;
        return Ok(());
    };
    let ids: Vec<i32> = list.ids().map(DeviceId::to_sql).collect();
    sqlx::query(
        "DELETE FROM device_life WHERE account = $1 AND protocol = $2 AND quarantined_at IS NULL AND device <> ALL ($3)",
    )
    .bind(account)
    .bind(protocol.code())
    .bind(&ids)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO device_life AS l (account, protocol, device, listed_at, seen_at, no_bundle_since)
         SELECT $1, $2, d.device, $4, $4,
                CASE WHEN NOT EXISTS (SELECT FROM bundle b WHERE b.account = $1 AND b.protocol = $2
                                      AND b.device = d.device AND b.payload IS NOT NULL) THEN $4 END
         FROM unnest($3::integer[]) AS d (device)
         ON CONFLICT (account, protocol, device) DO UPDATE SET listed_at = excluded.listed_at,
             seen_at = greatest(excluded.seen_at, l.seen_at), no_bundle_since = excluded.no_bundle_since,
             quarantined_at = NULL, cause = NULL, label = NULL, label_signature = NULL
         WHERE l.quarantined_at IS NOT NULL",
    )
    .bind(account)
    .bind(protocol.code())
    .bind(&ids)
    .bind(now.micros())
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes quarantined devices for gone: a session that had seen them has published a list without them.
pub(super) async fn forget_quarantined(
    connection: &mut PgConnection,
    account: i64,
    protocol: Protocol,
    devices: &[DeviceId],
) -> Result<(), StoreError> {
    let ids: Vec<i32> = devices.iter().map(|device| device.to_sql()).collect();
    sqlx::query(
        "DELETE FROM device_life WHERE account = $1 AND protocol = $2 AND device = ANY ($3) AND quarantined_at IS NOT NULL",
    )
    .bind(account)
    .bind(protocol.code())
    .bind(ids)
    .execute(connection)
    .await?;
    Ok(())
}

/// A device has a bundle now.
pub(super) async fn bundle_published(connection: &mut PgConnection, place: Place) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE device_life SET no_bundle_since = NULL
         WHERE account = $1 AND protocol = $2 AND device = $3 AND no_bundle_since IS NOT NULL",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .execute(connection)
    .await?;
    Ok(())
}

/// A device has no bundle any more.
pub(super) async fn bundle_retracted(
    connection: &mut PgConnection,
    place: Place,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE device_life SET no_bundle_since = $4
         WHERE account = $1 AND protocol = $2 AND device = $3 AND no_bundle_since IS NULL",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .bind(now.micros())
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes a device out of the list in force and into quarantine. `false`: it is not listed, or not due any more.
pub(super) async fn quarantine(
    connection: &mut PgConnection,
    place: Place,
    step: Step,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let cause = match step {
        Step::Now => QuarantineCause::Operator,
        Step::IfDue(due) if !is_due(connection, place, due).await? => return Ok(false),
        Step::IfDue(Due::NoBundleSince(_)) => QuarantineCause::NoBundle,
        Step::IfDue(Due::UnseenSince(_)) => QuarantineCause::Unseen,
        Step::IfDue(Due::QuarantinedSince(_)) => return Ok(false),
    };
    let list = device_list::in_force(connection, place.account, place.protocol).await?.unwrap_or_default();
    let Some(device) = list.devices().iter().find(|device| device.id == place.device) else {
        forget_stray(connection, place).await?;
        return Ok(false);
    };
    sqlx::query(
        "INSERT INTO device_life (account, protocol, device, listed_at, seen_at, quarantined_at, cause, label, label_signature)
         VALUES ($1, $2, $3, $4, $4, $4, $5, $6, $7)
         ON CONFLICT (account, protocol, device) DO UPDATE SET quarantined_at = excluded.quarantined_at,
             cause = excluded.cause, label = excluded.label, label_signature = excluded.label_signature",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .bind(now.micros())
    .bind(cause_code(cause))
    .bind(device.label.as_deref())
    .bind(device.label_signature.as_deref())
    .execute(&mut *connection)
    .await?;
    without(connection, place, &list, now).await?;
    notice::add(connection, place.account, place.protocol, Some(place.device), NoticeKind::Quarantined, now).await?;
    Ok(true)
}

/// Puts a quarantined device back into the list in force.
pub(super) async fn revive(
    connection: &mut PgConnection,
    place: Place,
    limit: usize,
    now: Timestamp,
) -> Result<Revived, StoreError> {
    let quarantined: Option<QuarantinedDevice> = sqlx::query_as(
        "SELECT label, label_signature FROM device_life
         WHERE account = $1 AND protocol = $2 AND device = $3 AND quarantined_at IS NOT NULL",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(quarantined) = quarantined else { return Ok(Revived::NotQuarantined) };
    let list = device_list::in_force(connection, place.account, place.protocol).await?.unwrap_or_default();
    if list.devices().len() >= limit {
        return Ok(Revived::NoRoom);
    }
    let devices: Vec<Device> = list.devices().iter().cloned().chain([quarantined.into_device(place.device)]).collect();
    let list = DeviceList::new(devices).map_err(|_| StoreError::Corrupt("a quarantined device in a list"))?;
    device_list::write_list(connection, place.account, place.protocol, Some(&list), now).await?;
    notice::add(connection, place.account, place.protocol, None, NoticeKind::ListChanged, now).await?;
    Ok(Revived::Listed)
}

/// Removes a device for good. `false`: there is no such device, or it is not due any more.
pub(super) async fn remove(
    connection: &mut PgConnection,
    place: Place,
    step: Step,
    now: Timestamp,
) -> Result<bool, StoreError> {
    if let Step::IfDue(due) = step
        && !is_due(connection, place, due).await?
    {
        return Ok(false);
    }
    let was_known = forget(connection, place).await?;
    let list = device_list::in_force(connection, place.account, place.protocol).await?.unwrap_or_default();
    let was_listed = list.contains(place.device);
    if was_listed {
        without(connection, place, &list, now).await?;
    }
    let had_bundle = bundle::retract(connection, place, now).await?;
    if !(was_known || was_listed || had_bundle) {
        return Ok(false);
    }
    notice::add(connection, place.account, place.protocol, Some(place.device), NoticeKind::Removed, now).await?;
    Ok(true)
}

/// Puts the list in force without one device, and has it announced.
async fn without(
    connection: &mut PgConnection,
    place: Place,
    list: &DeviceList,
    now: Timestamp,
) -> Result<(), StoreError> {
    let rest: Vec<Device> = list.devices().iter().filter(|device| device.id != place.device).cloned().collect();
    let rest = DeviceList::new(rest).map_err(|_| StoreError::Corrupt("device list"))?;
    device_list::write_list(connection, place.account, place.protocol, Some(&rest), now).await?;
    notice::add(connection, place.account, place.protocol, None, NoticeKind::ListChanged, now).await
}

/// Forgets a device that is neither listed nor quarantined: a program that knows nothing of lives took it out of the list.
async fn forget_stray(connection: &mut PgConnection, place: Place) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM device_life WHERE account = $1 AND protocol = $2 AND device = $3 AND quarantined_at IS NULL",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .execute(connection)
    .await?;
    Ok(())
}

async fn forget(connection: &mut PgConnection, place: Place) -> Result<bool, StoreError> {
    let forgotten = sqlx::query("DELETE FROM device_life WHERE account = $1 AND protocol = $2 AND device = $3")
        .bind(place.account)
        .bind(place.protocol.code())
        .bind(place.device.to_sql())
        .execute(connection)
        .await?;
    Ok(forgotten.rows_affected() > 0)
}

/// Whether a device is still due: the page that named it is older than this transaction. Its signs of life are written
/// without the lock on the account, but under that on its row: the next one comes after what is done about it now.
async fn is_due(connection: &mut PgConnection, place: Place, due: Due) -> Result<bool, StoreError> {
    sqlx::query("SELECT FROM device_life WHERE account = $1 AND protocol = $2 AND device = $3 FOR NO KEY UPDATE")
        .bind(place.account)
        .bind(place.protocol.code())
        .bind(place.device.to_sql())
        .execute(&mut *connection)
        .await?;
    let (statement, before) = match due {
        Due::NoBundleSince(before) => (
            "SELECT EXISTS (SELECT FROM device_life WHERE account = $1 AND protocol = $2 AND device = $3
                 AND quarantined_at IS NULL AND no_bundle_since <= $4)",
            before,
        ),
        Due::UnseenSince(before) => (
            "SELECT EXISTS (SELECT FROM device_life WHERE account = $1 AND protocol = $2 AND device = $3
                 AND quarantined_at IS NULL AND seen_at <= $4)
                AND EXISTS (SELECT FROM device_life WHERE account = $1 AND protocol = $2
                 AND quarantined_at IS NULL AND seen_at > $4)",
            before,
        ),
        Due::QuarantinedSince(before) => (
            "SELECT EXISTS (SELECT FROM device_life WHERE account = $1 AND protocol = $2 AND device = $3
                 AND quarantined_at <= $4)",
            before,
        ),
    };
    let due = sqlx::query_scalar(statement)
        .bind(place.account)
        .bind(place.protocol.code())
        .bind(place.device.to_sql())
        .bind(before.micros());
    Ok(due.fetch_one(connection).await?)
}
