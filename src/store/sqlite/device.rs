//! [`DeviceStore`] on SQLite.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::bundle::Place;
use super::{SqliteStore, account, bundle, device_list, life};
use crate::model::{Device, DeviceId, Owner, PrekeyId, Protocol, SessionJid, Timestamp};
use crate::store::list_merge::{seen_with, seen_without, with_device, without_device};
use crate::store::{DeviceRemoved, DeviceStore, ListPublished, PrekeyState, StoreError, columns};

/// Adds a device.
async fn add(
    connection: &mut SqliteConnection,
    (account, protocol): (i64, Protocol),
    resource: &str,
    (device, limit): (&Device, usize),
    now: Timestamp,
) -> Result<ListPublished, StoreError> {
    let before = device_list::in_force(connection, account, protocol).await?;
    let Some(list) = with_device(before.as_ref(), device, limit) else {
        return Ok(ListPublished::TooManyDevices);
    };
    let seen = device_list::seen(connection, account, protocol, resource).await?;
    device_list::record_seen(connection, account, protocol, &[resource], &seen_with(&seen, device.id)).await?;
    let changed = before.as_ref() != Some(&list);
    if changed {
        device_list::write_list(connection, account, protocol, Some(&list), now).await?;
    }
    Ok(ListPublished::Accepted { list, changed })
}

/// Removes a device.
async fn remove(
    connection: &mut SqliteConnection,
    place: Place,
    resource: &str,
    now: Timestamp,
) -> Result<DeviceRemoved, StoreError> {
    let Place { account, protocol, device } = place;
    let before = device_list::in_force(connection, account, protocol).await?;
    let was_listed = before.as_ref().is_some_and(|list| list.contains(device));
    let list = before.map(|list| without_device(&list, device));
    if let (true, Some(list)) = (was_listed, &list) {
        device_list::write_list(connection, account, protocol, Some(list), now).await?;
    }
    let seen = device_list::seen(connection, account, protocol, resource).await?;
    if seen.contains(&device) {
        device_list::record_seen(connection, account, protocol, &[resource], &seen_without(&seen, device)).await?;
    }
    life::forget_quarantined(connection, account, protocol, &[device]).await?;
    let had_bundle = bundle::retract(connection, place, now).await?;
    Ok(DeviceRemoved { list, was_listed, had_bundle })
}

async fn prekey_states(
    connection: &mut SqliteConnection,
    place: Place,
    others: &[PrekeyId],
) -> Result<Vec<(PrekeyId, PrekeyState)>, StoreError> {
    let mut rows: Vec<(i32, i32)> = sqlx::query_as(
        "SELECT prekey_id, 0 FROM prekey
         WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND issued_at IS NULL ORDER BY upload",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .fetch_all(&mut *connection)
    .await?;
    let issued: Vec<(i32, i32)> = sqlx::query_as(
        "SELECT prekey_id, CASE WHEN consumed_at IS NULL THEN 1 ELSE 2 END FROM prekey
         WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND issued_at IS NOT NULL AND NOT withdrawn
         ORDER BY prekey_id",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .fetch_all(&mut *connection)
    .await?;
    rows.extend(issued);
    if !others.is_empty() {
        let named: Vec<String> = others.iter().map(|id| id.to_string()).collect();
        let withdrawn: Vec<(i32, i32)> = sqlx::query_as(
            "SELECT prekey_id, CASE WHEN consumed_at IS NULL THEN 1 ELSE 2 END FROM prekey
             WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND issued_at IS NOT NULL AND withdrawn
             AND prekey_id IN (SELECT value FROM json_each('[' || ?4 || ']')) ORDER BY prekey_id, issued_at DESC",
        )
        .bind(place.account)
        .bind(place.protocol.code())
        .bind(place.device.to_sql())
        .bind(named.join(","))
        .fetch_all(connection)
        .await?;
        rows.extend(withdrawn);
    }
    columns::prekey_states(rows)
}

#[async_trait]
impl DeviceStore for SqliteStore {
    async fn add_device(
        &self,
        owner: &Owner,
        protocol: Protocol,
        session: &SessionJid,
        device: &Device,
        limit: usize,
        now: Timestamp,
    ) -> Result<ListPublished, StoreError> {
        self.transaction("add-device", |mut db| async move {
            let account = account::register(&mut db, owner.as_str(), now).await?;
            let added = add(&mut db, (account, protocol), session.resource(), (device, limit), now).await?;
            db.commit(added).await
        })
        .await
    }

    async fn remove_device(
        &self,
        owner: &Owner,
        protocol: Protocol,
        session: &SessionJid,
        device: DeviceId,
        now: Timestamp,
    ) -> Result<DeviceRemoved, StoreError> {
        self.transaction("remove-device", |mut db| async move {
            let Some(account) = account::find(&mut db, owner).await? else {
                return db.abandon(DeviceRemoved { list: None, was_listed: false, had_bundle: false }).await;
            };
            let removed = remove(&mut db, Place { account, protocol, device }, session.resource(), now).await?;
            db.commit(removed).await
        })
        .await
    }

    async fn prekey_states(
        &self,
        owner: &Owner,
        protocol: Protocol,
        device: DeviceId,
        others: &[PrekeyId],
    ) -> Result<Option<Vec<(PrekeyId, PrekeyState)>>, StoreError> {
        self.snapshot("prekey-states", |mut db| async move {
            let Some(account) = account::find(&mut db, owner).await? else { return db.abandon(None).await };
            let place = Place { account, protocol, device };
            if bundle::published(&mut db, account, protocol, Some(&[device]), 1).await?.is_empty() {
                return db.abandon(None).await;
            }
            let states = prekey_states(&mut db, place, others).await?;
            db.abandon(Some(states)).await
        })
        .await
    }

    async fn bundle_items(
        &self,
        owner: &Owner,
        protocol: Protocol,
        limit: u32,
    ) -> Result<Vec<(DeviceId, String)>, StoreError> {
        self.snapshot("bundle-items", |mut db| async move {
            let Some(account) = account::find(&mut db, owner).await? else { return db.abandon(Vec::new()).await };
            let rows: Vec<(i32, String)> = sqlx::query_as(
                "SELECT device, item_id FROM bundle WHERE account = ?1 AND protocol = ?2 AND payload IS NOT NULL
                 ORDER BY device LIMIT ?3",
            )
            .bind(account)
            .bind(protocol.code())
            .bind(i64::from(limit))
            .fetch_all(&mut *db)
            .await?;
            let items = rows.into_iter().map(|(id, item_id)| Ok((columns::device(id)?, item_id)));
            let items = items.collect::<Result<_, StoreError>>()?;
            db.abandon(items).await
        })
        .await
    }

    async fn device_sessions(
        &self,
        owner: &Owner,
        protocol: Protocol,
        device: DeviceId,
        limit: u32,
    ) -> Result<Vec<SessionJid>, StoreError> {
        self.snapshot("device-sessions", |mut db| async move {
            let Some(account) = account::find(&mut db, owner).await? else { return db.abandon(Vec::new()).await };
            let resources: Vec<String> = sqlx::query_scalar(
                "SELECT resource FROM session_device WHERE account = ?1 AND protocol = ?2 AND device = ?3
                 ORDER BY learned_at DESC LIMIT ?4",
            )
            .bind(account)
            .bind(protocol.code())
            .bind(device.to_sql())
            .bind(i64::from(limit))
            .fetch_all(&mut *db)
            .await?;
            let sessions = resources.iter().map(|resource| columns::session(owner, resource));
            let sessions = sessions.collect::<Result<_, StoreError>>()?;
            db.abandon(sessions).await
        })
        .await
    }
}
