//! [`EpochStore`] on PostgreSQL, and what a claim and a publish ask of it.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::bundle::Place;
use super::{PostgresStore, account, bundle, notice};
use crate::model::{DeviceId, Owner, Protocol, Timestamp};
use crate::store::epoch::{DeploymentRow, UNKNOWN_DEVICES};
use crate::store::{Deployment, EpochStore, NoticeKind, StoreError, Voided, columns};

/// How a device stands to the restores that there were.
#[derive(Clone, Copy, Default)]
pub(super) struct Standing {
    /// Its bundle is from before the last one, or there is none and the last one was not long ago.
    first_publish_is_void: bool,
    epoch: i64,
}

/// Looks before a bundle is published, and makes older stock void. The caller holds the lock on the account.
pub(super) async fn before_publish(
    connection: &mut PgConnection,
    place: Place,
    now: Timestamp,
) -> Result<Standing, StoreError> {
    let (epoch, restored_at, published): (i64, Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT d.epoch, d.restored_at,
                (SELECT b.epoch FROM bundle b WHERE b.account = $1 AND b.protocol = $2 AND b.device = $3)
         FROM deployment d WHERE d.one",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .fetch_one(&mut *connection)
    .await?;
    let first_publish_is_void = match published {
        Some(published) => published < epoch,
        None => restored_at.is_some_and(|at| now.since(Timestamp::from_micros(at)) < UNKNOWN_DEVICES),
    };
    if published.is_some() && first_publish_is_void {
        void(connection, place, now).await?;
    }
    Ok(Standing { first_publish_is_void, epoch })
}

/// Writes down in which epoch a bundle was published; whether its prekeys were void.
pub(super) async fn after_publish(
    connection: &mut PgConnection,
    place: Place,
    standing: Standing,
    now: Timestamp,
) -> Result<bool, StoreError> {
    sqlx::query(
        "UPDATE bundle SET epoch = $4, void_epoch = $4
         WHERE account = $1 AND protocol = $2 AND device = $3 AND (epoch < $4 OR void_epoch < $4)",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .bind(standing.epoch)
    .execute(&mut *connection)
    .await?;
    if standing.first_publish_is_void {
        void_stock(connection, place, now).await?;
        tell(connection, place, NoticeKind::Restored, now).await?;
    }
    Ok(standing.first_publish_is_void)
}

/// Makes the stock of a device void if it is from an older epoch: how many prekeys. The caller holds the lock on the account.
pub(super) async fn void(
    connection: &mut PgConnection,
    place: Place,
    now: Timestamp,
) -> Result<Option<u64>, StoreError> {
    let marked = sqlx::query(
        "UPDATE bundle b SET void_epoch = d.epoch FROM deployment d
         WHERE b.account = $1 AND b.protocol = $2 AND b.device = $3 AND d.one AND b.void_epoch < d.epoch",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .execute(&mut *connection)
    .await?;
    if marked.rows_affected() == 0 {
        return Ok(None);
    }
    bundle::end_repeats(connection, place).await?;
    let prekeys = void_stock(connection, place, now).await?;
    tell(connection, place, NoticeKind::Restored, now).await?;
    notice::add(connection, place.account, place.protocol, None, NoticeKind::ListChanged, now).await?;
    Ok(Some(prekeys))
}

/// Makes unissued prekeys count as issued, to nobody. Of what the last resort chooses from they come first: some of them
/// nobody may have had.
async fn void_stock(connection: &mut PgConnection, place: Place, now: Timestamp) -> Result<u64, StoreError> {
    let done = sqlx::query(
        "UPDATE prekey SET issued_at = $4, last_issued_at = 0
         WHERE account = $1 AND protocol = $2 AND device = $3 AND issued_at IS NULL",
    )
    .bind(place.account)
    .bind(place.protocol.code())
    .bind(place.device.to_sql())
    .bind(now.micros())
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

async fn tell(connection: &mut PgConnection, place: Place, kind: NoticeKind, now: Timestamp) -> Result<(), StoreError> {
    notice::add(connection, place.account, place.protocol, Some(place.device), kind, now).await
}

impl PostgresStore {
    /// Makes the stock of one device void before it is claimed from.
    pub(super) async fn void_before_claim(
        &self,
        owner: &Owner,
        protocol: Protocol,
        device: DeviceId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.transaction("void-stock", |mut db| async move {
            let Some(account) = account::lock_known(&mut db, owner).await? else { return db.abandon(()).await };
            void(&mut db, Place { account, protocol, device }, now).await?;
            db.commit(()).await
        })
        .await
    }

    async fn update_deployment(
        &self,
        operation: &'static str,
        change: &'static str,
        now: Option<Timestamp>,
    ) -> Result<Deployment, StoreError> {
        self.transaction(operation, |mut db| async move {
            let query = sqlx::query_as(change);
            let query = match now {
                Some(now) => query.bind(now.micros()),
                None => query,
            };
            let row: DeploymentRow = query.fetch_one(&mut *db).await?;
            db.commit(row.into_deployment()?).await
        })
        .await
    }
}

#[async_trait]
impl EpochStore for PostgresStore {
    async fn deployment(&self) -> Result<Deployment, StoreError> {
        self.each("read-deployment", |mut db| async move {
            let row: DeploymentRow =
                sqlx::query_as("SELECT id, progress, epoch, confirmed_at, doubted FROM deployment WHERE one")
                    .fetch_one(&mut *db)
                    .await?;
            row.into_deployment()
        })
        .await
    }

    async fn advance(&self) -> Result<Deployment, StoreError> {
        let change = "UPDATE deployment SET progress = progress + 1 WHERE one
             RETURNING id, progress, epoch, confirmed_at, doubted";
        self.update_deployment("advance", change, None).await
    }

    async fn doubt(&self) -> Result<(), StoreError> {
        let change = "UPDATE deployment SET doubted = true WHERE one
             RETURNING id, progress, epoch, confirmed_at, doubted";
        self.update_deployment("doubt", change, None).await.map(drop)
    }

    async fn confirm(&self, now: Timestamp) -> Result<Deployment, StoreError> {
        let change = "UPDATE deployment SET progress = progress + 1, confirmed_at = $1, doubted = false WHERE one
             RETURNING id, progress, epoch, confirmed_at, doubted";
        self.update_deployment("confirm", change, Some(now)).await
    }

    async fn begin_epoch(&self, now: Timestamp) -> Result<Deployment, StoreError> {
        let change = "UPDATE deployment SET progress = progress + 1, epoch = epoch + 1, restored_at = $1,
                 confirmed_at = $1, doubted = false WHERE one
             RETURNING id, progress, epoch, confirmed_at, doubted";
        self.update_deployment("begin-epoch", change, Some(now)).await
    }

    async fn void_older(&self, limit: u32, now: Timestamp) -> Result<Voided, StoreError> {
        self.transaction("void-older", |mut db| async move {
            let older: Vec<(i64, i16, i32)> = sqlx::query_as(
                "SELECT account, protocol, device FROM bundle WHERE void_epoch < (SELECT epoch FROM deployment WHERE one)
                 ORDER BY void_epoch, account LIMIT $1",
            )
            .bind(i64::from(limit))
            .fetch_all(&mut *db)
            .await?;
            let accounts: Vec<i64> = older.iter().map(|(account, ..)| *account).collect();
            sqlx::query("SELECT 1 FROM account WHERE id = ANY ($1) ORDER BY jid FOR NO KEY UPDATE")
                .bind(accounts)
                .execute(&mut *db)
                .await?;
            let mut voided = Voided::default();
            for (account, protocol, device) in older {
                let protocol = Protocol::from_code(protocol).ok_or(StoreError::Corrupt("protocol"))?;
                let place = Place { account, protocol, device: columns::device(device)? };
                let prekeys = void(&mut db, place, now).await?;
                voided.devices = voided.devices.saturating_add(1);
                voided.prekeys = voided.prekeys.saturating_add(prekeys.unwrap_or(0));
            }
            db.commit(voided).await
        })
        .await
    }

    async fn devices_to_void(&self) -> Result<u64, StoreError> {
        self.each("devices-to-void", |mut db| async move {
            let count: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM bundle WHERE void_epoch < (SELECT epoch FROM deployment WHERE one)",
            )
            .fetch_one(&mut *db)
            .await?;
            Ok(columns::total(count))
        })
        .await
    }
}
