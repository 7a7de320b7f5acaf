//! [`LifecycleStore`] on SQLite. Each step looks again, under the write lock, whether it is still to be done: another
//! program may have been there.

use std::time::Duration;

use async_trait::async_trait;

use super::bundle::Place;
use super::{SqliteStore, account, life};
use crate::model::{Owner, Timestamp};
use crate::store::life_rows::{self, DeviceRow, DueRow, OwnerRow};
use crate::store::{
    DevicePlace, DeviceRecord, DeviceStates, Due, DuePage, DuePlace, LifecycleStore, OwnerRecord, Revived, SignOfLife,
    Step, StoreError,
};

const NO_BUNDLE: &str = "
    SELECT l.no_bundle_since AS since, l.account, l.protocol, l.device, a.jid, true AS due
    FROM device_life l JOIN account a ON a.id = l.account
    WHERE l.quarantined_at IS NULL AND l.no_bundle_since <= ?1
    AND (l.no_bundle_since, l.account, l.protocol, l.device) > (?2, ?3, ?4, ?5)
    ORDER BY l.no_bundle_since, l.account, l.protocol, l.device LIMIT ?6";

const UNSEEN: &str = "
    SELECT l.seen_at AS since, l.account, l.protocol, l.device, a.jid,
           EXISTS (SELECT 1 FROM device_life o WHERE o.account = l.account AND o.protocol = l.protocol
                   AND o.quarantined_at IS NULL AND o.seen_at > ?1) AS due
    FROM device_life l JOIN account a ON a.id = l.account
    WHERE l.quarantined_at IS NULL AND l.seen_at <= ?1
    AND (l.seen_at, l.account, l.protocol, l.device) > (?2, ?3, ?4, ?5)
    ORDER BY l.seen_at, l.account, l.protocol, l.device LIMIT ?6";

const QUARANTINED: &str = "
    SELECT l.quarantined_at AS since, l.account, l.protocol, l.device, a.jid, true AS due
    FROM device_life l JOIN account a ON a.id = l.account
    WHERE l.quarantined_at <= ?1
    AND (l.quarantined_at, l.account, l.protocol, l.device) > (?2, ?3, ?4, ?5)
    ORDER BY l.quarantined_at, l.account, l.protocol, l.device LIMIT ?6";

#[async_trait]
impl LifecycleStore for SqliteStore {
    async fn note_signs_of_life(&self, signs: &[SignOfLife]) -> Result<Vec<DevicePlace>, StoreError> {
        let rows = self
            .transaction("signs-of-life", |mut db| async move {
                let mut rows = Vec::new();
                for sign in signs {
                    let back: Option<Option<bool>> = sqlx::query_scalar(
                        "UPDATE device_life SET seen_at = ?4
                         WHERE account = (SELECT id FROM account WHERE jid = ?1) AND protocol = ?2 AND device = ?3
                         AND seen_at < ?4
                         RETURNING (quarantined_at < ?4 OR cause = 2) AND NOT (cause = 1 AND no_bundle_since IS NOT NULL)",
                    )
                    .bind(sign.place.owner.as_str())
                    .bind(sign.place.protocol.code())
                    .bind(sign.place.device.to_sql())
                    .bind(sign.at.micros())
                    .fetch_optional(&mut *db)
                    .await?;
                    if back.flatten() == Some(true) {
                        rows.push(sign.place.clone());
                    }
                }
                db.commit(rows).await
            })
            .await?;
        Ok(rows)
    }

    async fn due_devices(&self, due: Due, after: Option<DuePlace>, limit: u32) -> Result<DuePage, StoreError> {
        let (statement, before) = match due {
            Due::NoBundleSince(before) => (NO_BUNDLE, before),
            Due::UnseenSince(before) => (UNSEEN, before),
            Due::QuarantinedSince(before) => (QUARANTINED, before),
        };
        let after = after.unwrap_or(DuePlace { since: i64::MIN, account: 0, protocol: 0, device: 0 });
        let rows: Vec<DueRow> = self
            .snapshot("due-devices", |mut db| async move {
                let rows = sqlx::query_as(statement)
                    .bind(before.micros())
                    .bind(after.since)
                    .bind(after.account)
                    .bind(after.protocol)
                    .bind(after.device)
                    .bind(i64::from(limit));
                Ok(rows.fetch_all(&mut *db).await?)
            })
            .await?;
        life_rows::due_page(rows, limit)
    }

    async fn quarantine_device(&self, place: &DevicePlace, step: Step, now: Timestamp) -> Result<bool, StoreError> {
        let (protocol, device) = (place.protocol, place.device);
        self.transaction("quarantine", |mut db| async move {
            let Some(account) = account::find(&mut db, &place.owner).await? else { return db.abandon(false).await };
            let done = life::quarantine(&mut db, Place { account, protocol, device }, step, now).await?;
            db.commit(done).await
        })
        .await
    }

    async fn revive_device(&self, place: &DevicePlace, limit: usize, now: Timestamp) -> Result<Revived, StoreError> {
        let (protocol, device) = (place.protocol, place.device);
        self.transaction("revive", |mut db| async move {
            let Some(account) = account::find(&mut db, &place.owner).await? else {
                return db.abandon(Revived::NotQuarantined).await;
            };
            let done = life::revive(&mut db, Place { account, protocol, device }, limit, now).await?;
            db.commit(done).await
        })
        .await
    }

    async fn retire_device(&self, place: &DevicePlace, step: Step, now: Timestamp) -> Result<bool, StoreError> {
        let (protocol, device) = (place.protocol, place.device);
        self.transaction("remove", |mut db| async move {
            let Some(account) = account::find(&mut db, &place.owner).await? else { return db.abandon(false).await };
            let done = life::remove(&mut db, Place { account, protocol, device }, step, now).await?;
            db.commit(done).await
        })
        .await
    }

    async fn watched_since(&self, pause: Duration, now: Timestamp) -> Result<Timestamp, StoreError> {
        let since: i64 = self
            .transaction("watch", |mut db| async move {
                let since = sqlx::query_scalar(
                    "INSERT INTO device_watch (id, since, last_at) VALUES (1, ?1, ?1)
                     ON CONFLICT (id) DO UPDATE SET last_at = max(last_at, excluded.last_at),
                         since = CASE WHEN last_at < ?2 THEN excluded.since ELSE since END
                     RETURNING since",
                )
                .bind(now.micros())
                .bind(now.minus(pause).micros())
                .fetch_one(&mut *db)
                .await?;
                db.commit(since).await
            })
            .await?;
        Ok(Timestamp::from_micros(since))
    }

    async fn device_states(&self) -> Result<DeviceStates, StoreError> {
        let rows: Vec<(i16, bool, i64)> = self
            .snapshot("device-states", |mut db| async move {
                let rows = sqlx::query_as(
                    "SELECT protocol, false, count(*) FROM device_life WHERE quarantined_at IS NULL GROUP BY protocol
                     UNION ALL
                     SELECT protocol, true, count(*) FROM device_life WHERE quarantined_at IS NOT NULL GROUP BY protocol",
                );
                Ok(rows.fetch_all(&mut *db).await?)
            })
            .await?;
        Ok(life_rows::device_states(&rows))
    }

    async fn device_records(&self, owner: &Owner) -> Result<Option<Vec<DeviceRecord>>, StoreError> {
        let rows: Option<Vec<DeviceRow>> = self
            .snapshot("device-records", |mut db| async move {
                let Some(account) = account::find(&mut db, owner).await? else { return Ok(None) };
                let rows = sqlx::query_as(
                    "SELECT k.protocol, k.device, coalesce(d.label, l.label) AS label, d.device IS NOT NULL AS listed,
                         l.quarantined_at, l.cause, l.seen_at, l.listed_at,
                         CASE WHEN b.payload IS NOT NULL THEN b.published_at END AS published_at, b.identity_key,
                         (SELECT count(*) FROM prekey p WHERE p.account = ?1 AND p.protocol = k.protocol
                          AND p.device = k.device AND p.issued_at IS NULL) AS unissued,
                         (SELECT count(*) FROM prekey p WHERE p.account = ?1 AND p.protocol = k.protocol
                          AND p.device = k.device AND p.issued_at IS NOT NULL AND NOT p.withdrawn) AS issued,
                         (SELECT count(*) FROM prekey p WHERE p.account = ?1 AND p.protocol = k.protocol
                          AND p.device = k.device AND p.issued_at IS NOT NULL AND NOT p.withdrawn
                          AND p.consumed_at IS NOT NULL) AS consumed
                     FROM (SELECT protocol, device FROM device_life WHERE account = ?1
                           UNION SELECT protocol, device FROM listed_device WHERE account = ?1
                           UNION SELECT protocol, device FROM bundle WHERE account = ?1) k
                     LEFT JOIN listed_device d ON d.account = ?1 AND d.protocol = k.protocol AND d.device = k.device
                     LEFT JOIN device_life l ON l.account = ?1 AND l.protocol = k.protocol AND l.device = k.device
                     LEFT JOIN bundle b ON b.account = ?1 AND b.protocol = k.protocol AND b.device = k.device
                     ORDER BY k.protocol, k.device",
                )
                .bind(account);
                Ok(Some(rows.fetch_all(&mut *db).await?))
            })
            .await?;
        rows.map(|rows| rows.into_iter().map(DeviceRow::into_record).collect()).transpose()
    }

    async fn owner_records(&self, after: Option<&Owner>, limit: u32) -> Result<Vec<OwnerRecord>, StoreError> {
        let rows: Vec<OwnerRow> = self
            .snapshot("owner-records", |mut db| async move {
                let rows = sqlx::query_as(
                    "SELECT a.jid,
                         (SELECT count(*) FROM listed_device d WHERE d.account = a.id AND d.protocol = 1) AS listed_legacy,
                         (SELECT count(*) FROM listed_device d WHERE d.account = a.id AND d.protocol = 2) AS listed_omemo2,
                         (SELECT count(*) FROM device_life l WHERE l.account = a.id AND l.quarantined_at IS NOT NULL)
                             AS quarantined,
                         (SELECT count(*) FROM bundle b WHERE b.account = a.id AND b.payload IS NOT NULL) AS bundles
                     FROM account a WHERE a.jid > ?1 ORDER BY a.jid LIMIT ?2",
                )
                .bind(after.map_or("", Owner::as_str))
                .bind(i64::from(limit));
                Ok(rows.fetch_all(&mut *db).await?)
            })
            .await?;
        rows.into_iter().map(OwnerRow::into_record).collect()
    }
}
