//! Device lists, and what each session of the owner saw of them.

use sqlx::PgConnection;

use crate::model::{Clock, DeviceId, DeviceList, HistoryChange, Protocol, SystemClock, Timestamp};
use crate::store::columns::{self, ListedDevice};
use crate::store::list_merge::merge;
use crate::store::{ListPublished, SESSIONS_REMEMBERED, StoreError};

use super::history::Chain;
use super::life;

/// The list in force.
pub(super) async fn in_force(
    connection: &mut PgConnection,
    account: i64,
    protocol: Protocol,
) -> Result<Option<DeviceList>, StoreError> {
    let rows: Vec<ListedDevice> = sqlx::query_as(
        "SELECT d.device, d.label, d.label_signature
         FROM device_list l LEFT JOIN listed_device d ON d.account = l.account AND d.protocol = l.protocol
         WHERE l.account = $1 AND l.protocol = $2 ORDER BY d.position",
    )
    .bind(account)
    .bind(protocol.code())
    .fetch_all(connection)
    .await?;
    columns::device_list(rows)
}

/// What a session last saw; nothing, if that is not known.
pub(super) async fn seen(
    connection: &mut PgConnection,
    account: i64,
    protocol: Protocol,
    resource: &str,
) -> Result<Vec<DeviceId>, StoreError> {
    let devices: Option<Vec<i32>> =
        sqlx::query_scalar("SELECT devices FROM list_seen WHERE account = $1 AND protocol = $2 AND resource = $3")
            .bind(account)
            .bind(protocol.code())
            .bind(resource)
            .fetch_optional(connection)
            .await?;
    columns::devices(devices.unwrap_or_default())
}

/// Records what sessions saw, and forgets the sessions longest unchanged.
pub(super) async fn record_seen(
    connection: &mut PgConnection,
    account: i64,
    protocol: Protocol,
    resources: &[&str],
    list: &DeviceList,
) -> Result<(), StoreError> {
    let devices: Vec<i32> = list.ids().map(DeviceId::to_sql).collect();
    sqlx::query(
        "INSERT INTO list_seen (account, protocol, resource, devices, seen_at)
         SELECT $1, $2, resource, $4, $5 FROM (SELECT DISTINCT unnest($3::text[]) AS resource ORDER BY 1) r
         ON CONFLICT (account, protocol, resource) DO UPDATE SET devices = excluded.devices, seen_at = excluded.seen_at
         WHERE list_seen.devices <> excluded.devices",
    )
    .bind(account)
    .bind(protocol.code())
    .bind(resources)
    .bind(devices)
    .bind(SystemClock.now().micros())
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "DELETE FROM list_seen WHERE account = $1 AND protocol = $2 AND resource IN
         (SELECT resource FROM list_seen WHERE account = $1 AND protocol = $2 ORDER BY seen_at DESC OFFSET $3)",
    )
    .bind(account)
    .bind(protocol.code())
    .bind(SESSIONS_REMEMBERED)
    .execute(connection)
    .await?;
    Ok(())
}

/// Merges a published list into the one in force. The caller holds the lock on the account.
pub(super) async fn publish(
    connection: &mut PgConnection,
    account: i64,
    protocol: Protocol,
    resource: &str,
    (published, limit): (&DeviceList, usize),
    now: Timestamp,
) -> Result<ListPublished, StoreError> {
    let before = in_force(connection, account, protocol).await?;
    let seen = seen(connection, account, protocol, resource).await?;
    let Some(list) = merge(published, before.as_ref(), &seen, limit) else {
        return Ok(ListPublished::TooManyDevices);
    };
    // Not the merged list: what it kept for others, the session learns only from reading it or from an event.
    record_seen(connection, account, protocol, &[resource], published).await?;
    let changed = before.as_ref() != Some(&list);
    if changed {
        write_list(connection, account, protocol, Some(&list), now).await?;
    }
    let given_up: Vec<DeviceId> = seen.into_iter().filter(|device| !list.contains(*device)).collect();
    if !given_up.is_empty() {
        life::forget_quarantined(connection, account, protocol, &given_up).await?;
    }
    Ok(ListPublished::Accepted { list, changed })
}

/// Puts a list in force in place of another one, or ends it (`None`). Every change of a device list goes through here, so
/// that none is missing in the history, and the lives of devices follow. The caller holds the lock on the account.
pub(super) async fn write_list(
    connection: &mut PgConnection,
    account: i64,
    protocol: Protocol,
    list: Option<&DeviceList>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut history = Chain::open(connection, account, now).await?;
    match list {
        Some(list) => replace(connection, account, protocol, list, now).await?,
        None => end(connection, account, protocol).await?,
    }
    life::follow_list(connection, account, protocol, list, now).await?;
    history.append(connection, protocol, &HistoryChange::list(list), now).await
}

async fn replace(
    connection: &mut PgConnection,
    account: i64,
    protocol: Protocol,
    list: &DeviceList,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO device_list (account, protocol, updated_at) VALUES ($1, $2, $3)
         ON CONFLICT (account, protocol) DO UPDATE SET updated_at = excluded.updated_at",
    )
    .bind(account)
    .bind(protocol.code())
    .bind(now.micros())
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM listed_device WHERE account = $1 AND protocol = $2")
        .bind(account)
        .bind(protocol.code())
        .execute(&mut *connection)
        .await?;
    let devices: Vec<i32> = list.ids().map(DeviceId::to_sql).collect();
    let labels: Vec<Option<&str>> = list.devices().iter().map(|device| device.label.as_deref()).collect();
    let signatures: Vec<Option<&str>> = list.devices().iter().map(|device| device.label_signature.as_deref()).collect();
    sqlx::query(
        "INSERT INTO listed_device (account, protocol, device, position, label, label_signature)
         SELECT $1, $2, device, position, label, signature
         FROM unnest($3::integer[], $4::text[], $5::text[]) WITH ORDINALITY AS d (device, label, signature, position)",
    )
    .bind(account)
    .bind(protocol.code())
    .bind(devices)
    .bind(labels)
    .bind(signatures)
    .execute(connection)
    .await?;
    Ok(())
}

async fn end(connection: &mut PgConnection, account: i64, protocol: Protocol) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM device_list WHERE account = $1 AND protocol = $2")
        .bind(account)
        .bind(protocol.code())
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes the list, and what was seen of it: a later list is new to every session.
pub(super) async fn delete(
    connection: &mut PgConnection,
    account: i64,
    protocol: Protocol,
    now: Timestamp,
) -> Result<bool, StoreError> {
    sqlx::query("DELETE FROM list_seen WHERE account = $1 AND protocol = $2")
        .bind(account)
        .bind(protocol.code())
        .execute(&mut *connection)
        .await?;
    let was_there = in_force(connection, account, protocol).await?.is_some();
    if was_there {
        write_list(connection, account, protocol, None, now).await?;
    }
    Ok(was_there)
}
