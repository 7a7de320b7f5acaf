//! What the directory asks of a database (DESIGN: "Directory: what must always hold").

use async_trait::async_trait;
use bytes::Bytes;
use jid::Jid;

use super::StoreError;
use crate::model::{DeviceId, DeviceList, Owner, Protocol, PublishedBundle, SessionJid, Timestamp};

/// The two kinds of node that an owner has per protocol, for subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeKind {
    /// The device list.
    DeviceList,
    /// The bundles.
    Bundles,
}

/// The result of publishing a device list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListPublished {
    /// The merged list, now in force: what is announced. `changed` is false if it equals the one before.
    Accepted {
        /// The list in force.
        list: DeviceList,
        /// Whether it differs from the one before.
        changed: bool,
    },
    /// The merged list would be longer than the limit; nothing was stored.
    TooManyDevices,
}

/// What publishing a bundle did to the stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundlePublished {
    /// Prekeys not known before, now in stock: new, or unissued when they were withdrawn and now back.
    pub added: u32,
    /// Prekeys in this bundle that had been issued before: they stay issued.
    pub already_issued: u32,
    /// Prekeys of earlier bundles that this one no longer has: never handed out from now on.
    pub withdrawn: u32,
    /// Whether the identity key differs from the one known for this device before. All its older prekeys are withdrawn.
    pub identity_changed: bool,
    /// Unissued prekeys now in stock.
    pub unissued: u32,
}

/// How many prekeys a device has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stock {
    /// Never issued.
    pub unissued: u32,
    /// Issued at least once and still in the published bundle.
    pub issued: u32,
}

/// Figures over the whole directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DirectoryTotals {
    /// Devices with a bundle, over both protocols.
    pub bundles: u64,
    /// Prekeys ever handed out as fresh.
    pub issued: u64,
    /// Claims answered by the last resort.
    pub last_resort: u64,
    /// Prekeys whose first hand-out is recorded for more than one requester; invariant 1 says 0.
    pub issued_twice: u64,
}

/// A session, and what it was seen to be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LearnedSession {
    /// Whose.
    pub owner: Owner,
    /// In which protocol.
    pub protocol: Protocol,
    /// The session.
    pub session: SessionJid,
    /// The device that it is.
    pub device: DeviceId,
}

/// Durable state of the directory.
#[async_trait]
pub trait DirectoryStore: Send + Sync {
    /// Makes the account known if it is not: called for an owner whose own server has authenticated it.
    async fn register_account(&self, owner: &Owner, now: Timestamp) -> Result<(), StoreError>;

    /// Whether the account is known.
    async fn account_exists(&self, owner: &Owner) -> Result<bool, StoreError>;

    /// The device list in force. When a session of the owner itself reads it, give the session: it has then seen the list,
    /// which a later [`Self::publish_device_list`] by it is merged against. A session of anybody else is not recorded.
    async fn device_list(
        &self,
        owner: &Owner,
        protocol: Protocol,
        seen_by: Option<&SessionJid>,
    ) -> Result<Option<DeviceList>, StoreError>;

    /// Publishes a device list by three-way merge (invariant 6): a device in force that `session` never saw stays, after
    /// those that were published. What stays in this way the session has still not seen, until it reads the list or is
    /// recorded as having been sent it. Registers the account. At most `limit` devices.
    async fn publish_device_list(
        &self,
        owner: &Owner,
        protocol: Protocol,
        session: &SessionJid,
        list: &DeviceList,
        limit: usize,
        now: Timestamp,
    ) -> Result<ListPublished, StoreError>;

    /// Removes the device list, and what was seen of it. `false` if there was none.
    async fn delete_device_list(&self, owner: &Owner, protocol: Protocol, now: Timestamp) -> Result<bool, StoreError>;

    /// Stores a bundle whose shape and signature were checked. A prekey is known by its key, not its id: issued ones stay
    /// issued (invariant 3), new ones join the end of the queue in the order given. Registers the account, and records that
    /// `session` is this device (for views).
    async fn publish_bundle(
        &self,
        owner: &Owner,
        protocol: Protocol,
        device: DeviceId,
        session: &SessionJid,
        published: &PublishedBundle,
        now: Timestamp,
    ) -> Result<BundlePublished, StoreError>;

    /// Removes a device's bundle; its prekeys are withdrawn, its tombstones stay. `false` if there was none.
    async fn retract_bundle(
        &self,
        owner: &Owner,
        protocol: Protocol,
        device: DeviceId,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Bundles exactly as published (device, item id, payload), by device id; of the devices given, or of all; the first
    /// `limit` of them.
    async fn published_bundles(
        &self,
        owner: &Owner,
        protocol: Protocol,
        devices: Option<&[DeviceId]>,
        limit: u32,
    ) -> Result<Vec<(DeviceId, String, Bytes)>, StoreError>;

    /// A device's stock; zero for a device without a bundle.
    async fn stock(&self, owner: &Owner, protocol: Protocol, device: DeviceId) -> Result<Stock, StoreError>;

    /// Subscribes a JID to an owner's node; again is no error. At most `limit` subscriptions a node: `false` if that many
    /// are there, or the account is not known.
    async fn subscribe(
        &self,
        owner: &Owner,
        protocol: Protocol,
        node: NodeKind,
        subscriber: &Jid,
        limit: u32,
    ) -> Result<bool, StoreError>;

    /// Ends a subscription. `false` if there was none.
    async fn unsubscribe(
        &self,
        owner: &Owner,
        protocol: Protocol,
        node: NodeKind,
        subscriber: &Jid,
    ) -> Result<bool, StoreError>;

    /// Who is subscribed to an owner's node.
    async fn subscribers(&self, owner: &Owner, protocol: Protocol, node: NodeKind) -> Result<Vec<Jid>, StoreError>;

    /// Records that sessions are devices: each published that device's bundle or sent with its id. All of them or none.
    async fn learn_sessions(&self, learned: &[LearnedSession], now: Timestamp) -> Result<(), StoreError>;

    /// Records it of one session.
    async fn learn_session(
        &self,
        owner: &Owner,
        protocol: Protocol,
        session: &SessionJid,
        device: DeviceId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let learned = LearnedSession { owner: owner.clone(), protocol, session: session.clone(), device };
        self.learn_sessions(&[learned], now).await
    }

    /// Every device that this session has been seen to be, in one protocol; empty if not known.
    async fn session_devices(
        &self,
        owner: &Owner,
        protocol: Protocol,
        session: &SessionJid,
    ) -> Result<Vec<DeviceId>, StoreError>;

    /// Figures over everything; may scan, so it is for operators and tests.
    async fn directory_totals(&self) -> Result<DirectoryTotals, StoreError>;
}
