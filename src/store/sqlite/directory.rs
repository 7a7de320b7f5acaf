//! [`DirectoryStore`] on SQLite: each operation with the transaction that it runs in.

use async_trait::async_trait;
use bytes::Bytes;
use jid::Jid;

use super::bundle::Place;
use super::subscription::Node;
use super::{SqliteStore, account, bundle, device_list, session, subscription};
use crate::model::{DeviceId, DeviceList, Owner, Protocol, PublishedBundle, SessionJid, Timestamp};
use crate::store::{
    BundlePublished, DirectoryStore, DirectoryTotals, LearnedSession, ListPublished, NodeKind, Stock, StoreError,
    columns,
};

#[async_trait]
impl DirectoryStore for SqliteStore {
    async fn register_account(&self, owner: &Owner, now: Timestamp) -> Result<(), StoreError> {
        self.transaction("register-account", |mut db| async move {
            account::register(&mut db, owner.as_str(), now).await?;
            db.commit(()).await
        })
        .await
    }

    async fn account_exists(&self, owner: &Owner) -> Result<bool, StoreError> {
        self.snapshot("find-account", |mut db| async move { Ok(account::find(&mut db, owner).await?.is_some()) }).await
    }

    async fn device_list(
        &self,
        owner: &Owner,
        protocol: Protocol,
        seen_by: Option<&SessionJid>,
    ) -> Result<Option<DeviceList>, StoreError> {
        let resource = seen_by.filter(|session| session.jid().to_bare() == *owner.jid()).map(SessionJid::resource);
        let (list, seen) = self
            .snapshot("read-list", |mut db| async move {
                let Some(account) = account::find(&mut db, owner).await? else { return Ok((None, None)) };
                let list = device_list::in_force(&mut db, account, protocol).await?;
                let Some(resource) = resource else { return Ok((list, None)) };
                let seen = device_list::seen(&mut db, account, protocol, resource).await?;
                Ok((list, Some((account, resource, seen))))
            })
            .await?;
        let (Some(in_force), Some((account, resource, seen))) = (&list, seen) else { return Ok(list) };
        if in_force.ids().eq(seen) {
            return Ok(list);
        }
        self.transaction("list-seen", |mut db| async move {
            // Once more, now that nobody changes it: of a list that has been deleted meanwhile nothing counts as seen.
            let list = device_list::in_force(&mut db, account, protocol).await?;
            let Some(in_force) = &list else { return db.abandon(None).await };
            device_list::record_seen(&mut db, account, protocol, &[resource], in_force).await?;
            db.commit(list).await
        })
        .await
    }

    async fn publish_device_list(
        &self,
        owner: &Owner,
        protocol: Protocol,
        session: &SessionJid,
        list: &DeviceList,
        limit: usize,
        now: Timestamp,
    ) -> Result<ListPublished, StoreError> {
        self.transaction("publish-list", |mut db| async move {
            let account = account::register(&mut db, owner.as_str(), now).await?;
            let published =
                device_list::publish(&mut db, account, protocol, session.resource(), (list, limit), now).await?;
            db.commit(published).await
        })
        .await
    }

    async fn delete_device_list(&self, owner: &Owner, protocol: Protocol, now: Timestamp) -> Result<bool, StoreError> {
        self.transaction("delete-list", |mut db| async move {
            let Some(account) = account::find(&mut db, owner).await? else { return db.abandon(false).await };
            let done = device_list::delete(&mut db, account, protocol, now).await?;
            db.commit(done).await
        })
        .await
    }

    async fn publish_bundle(
        &self,
        owner: &Owner,
        protocol: Protocol,
        device: DeviceId,
        session: &SessionJid,
        published: &PublishedBundle,
        now: Timestamp,
    ) -> Result<BundlePublished, StoreError> {
        self.transaction("publish-bundle", |mut db| async move {
            let place = Place { account: account::register(&mut db, owner.as_str(), now).await?, protocol, device };
            let done = bundle::publish(&mut db, place, published, now).await?;
            session::learn(&mut db, place, session.resource(), now).await?;
            db.commit(done).await
        })
        .await
    }

    async fn retract_bundle(
        &self,
        owner: &Owner,
        protocol: Protocol,
        device: DeviceId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.transaction("retract-bundle", |mut db| async move {
            let Some(account) = account::find(&mut db, owner).await? else { return db.abandon(false).await };
            let done = bundle::retract(&mut db, Place { account, protocol, device }, now).await?;
            db.commit(done).await
        })
        .await
    }

    async fn published_bundles(
        &self,
        owner: &Owner,
        protocol: Protocol,
        devices: Option<&[DeviceId]>,
        limit: u32,
    ) -> Result<Vec<(DeviceId, String, Bytes)>, StoreError> {
        self.snapshot("read-bundles", |mut db| async move {
            let Some(account) = account::find(&mut db, owner).await? else { return Ok(Vec::new()) };
            bundle::published(&mut db, account, protocol, devices, limit).await
        })
        .await
    }

    async fn stock(&self, owner: &Owner, protocol: Protocol, device: DeviceId) -> Result<Stock, StoreError> {
        self.snapshot("stock", |mut db| async move {
            let Some(account) = account::find(&mut db, owner).await? else { return Ok(Stock::default()) };
            bundle::stock(&mut db, Place { account, protocol, device }).await
        })
        .await
    }

    async fn subscribe(
        &self,
        owner: &Owner,
        protocol: Protocol,
        node: NodeKind,
        subscriber: &Jid,
        limit: u32,
    ) -> Result<bool, StoreError> {
        self.transaction("subscribe", |mut db| async move {
            let Some(account) = account::find(&mut db, owner).await? else { return db.abandon(false).await };
            let done = subscription::add(&mut db, Node { account, protocol, kind: node }, subscriber, limit).await?;
            db.commit(done).await
        })
        .await
    }

    async fn unsubscribe(
        &self,
        owner: &Owner,
        protocol: Protocol,
        node: NodeKind,
        subscriber: &Jid,
    ) -> Result<bool, StoreError> {
        self.transaction("unsubscribe", |mut db| async move {
            let Some(account) = account::find(&mut db, owner).await? else { return db.abandon(false).await };
            let removed = subscription::remove(&mut db, Node { account, protocol, kind: node }, subscriber).await?;
            db.commit(removed).await
        })
        .await
    }

    async fn subscribers(&self, owner: &Owner, protocol: Protocol, node: NodeKind) -> Result<Vec<Jid>, StoreError> {
        self.snapshot("subscribers", |mut db| async move {
            let Some(account) = account::find(&mut db, owner).await? else { return Ok(Vec::new()) };
            subscription::all(&mut db, Node { account, protocol, kind: node }).await
        })
        .await
    }

    async fn learn_sessions(&self, learned: &[LearnedSession], now: Timestamp) -> Result<(), StoreError> {
        self.transaction("learn-sessions", |mut db| async move {
            for one in learned {
                let account = account::register(&mut db, one.owner.as_str(), now).await?;
                let place = Place { account, protocol: one.protocol, device: one.device };
                session::learn(&mut db, place, one.session.resource(), now).await?;
            }
            db.commit(()).await
        })
        .await
    }

    async fn session_devices(
        &self,
        owner: &Owner,
        protocol: Protocol,
        session: &SessionJid,
    ) -> Result<Vec<DeviceId>, StoreError> {
        self.snapshot("session-devices", |mut db| async move {
            let Some(account) = account::find(&mut db, owner).await? else { return Ok(Vec::new()) };
            session::devices(&mut db, account, protocol, session.resource()).await
        })
        .await
    }

    async fn directory_totals(&self) -> Result<DirectoryTotals, StoreError> {
        let (bundles, issued, last_resort, issued_twice): (i64, i64, i64, i64) = self
            .snapshot("directory-totals", |mut db| async move {
                let totals = sqlx::query_as(
                    "SELECT (SELECT count(*) FROM bundle WHERE payload IS NOT NULL),
                            (SELECT coalesce(sum(fresh_issues), 0) FROM prekey),
                            (SELECT coalesce(sum(last_resorts), 0) FROM prekey),
                            (SELECT count(*) FROM prekey WHERE fresh_issues > 1)",
                );
                Ok(totals.fetch_one(&mut *db).await?)
            })
            .await?;
        Ok(DirectoryTotals {
            bundles: columns::total(bundles),
            issued: columns::total(issued),
            last_resort: columns::total(last_resort),
            issued_twice: columns::total(issued_twice),
        })
    }
}
