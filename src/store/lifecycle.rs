//! What the life cycle of devices asks of a database (DESIGN, directory invariant 8).
//!
//! Every device of a list in force, and every quarantined one, has a row of its life: when it was last seen, and since when
//! it lacks a bundle. A quarantined device is not in the list in force, for nobody: what is published next is written from
//! what was read, and would otherwise bring it back. Its bundle stays until it is removed.

use async_trait::async_trait;

use super::{Stock, StoreError};
use crate::model::{DeviceId, Owner, Protocol, Timestamp};

/// One device of one owner in one protocol.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DevicePlace {
    /// Whose device.
    pub owner: Owner,
    /// In which protocol.
    pub protocol: Protocol,
    /// Which device.
    pub device: DeviceId,
}

/// Why a device is in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QuarantineCause {
    /// It was listed for too long without a bundle: nobody can start a session with it.
    NoBundle,
    /// It was not seen for too long, while another device of its list was.
    Unseen,
    /// An operator has said so.
    Operator,
}

impl QuarantineCause {
    /// All, in a fixed order.
    pub const ALL: [Self; 3] = [Self::NoBundle, Self::Unseen, Self::Operator];

    /// The name used in metrics and in texts.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoBundle => "no-bundle",
            Self::Unseen => "unseen",
            Self::Operator => "operator",
        }
    }
}

/// When a device is due for the next step of its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Quarantine: it has lacked a bundle since this moment or before.
    NoBundleSince(Timestamp),
    /// Quarantine: it was last seen at this moment or before, and another device of its list was seen after. If none was,
    /// it is the owner who is away, and an empty list would make their contacts write in clear.
    UnseenSince(Timestamp),
    /// Removal: it was quarantined at this moment or before.
    QuarantinedSince(Timestamp),
}

/// A step that an operator or the clock asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Only if it is still due: it may have been seen since.
    IfDue(Due),
    /// In any case.
    Now,
}

/// A place in the order in which due devices are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct DuePlace {
    pub(super) since: i64,
    pub(super) account: i64,
    pub(super) protocol: i16,
    pub(super) device: i32,
}

/// Some of the devices that are due.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DuePage {
    /// The devices.
    pub devices: Vec<DevicePlace>,
    /// Where to go on; `None`: there are no more.
    pub next: Option<DuePlace>,
}

/// A sign of life of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignOfLife {
    /// Which device.
    pub place: DevicePlace,
    /// When.
    pub at: Timestamp,
}

/// What came of bringing a device back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revived {
    /// It is in the list in force again, at its end.
    Listed,
    /// It was not in quarantine.
    NotQuarantined,
    /// The list is full.
    NoRoom,
}

/// How many devices are in which state, by protocol (legacy, omemo2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceStates {
    /// In a list in force.
    pub listed: [u64; 2],
    /// In quarantine.
    pub quarantined: [u64; 2],
}

/// Where a device stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceState {
    /// In the list in force.
    Listed,
    /// In quarantine, since when and why.
    Quarantined(Timestamp, QuarantineCause),
    /// It has a bundle, or had one, and is in no list.
    Unlisted,
}

/// All that is known of one device, for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRecord {
    /// In which protocol.
    pub protocol: Protocol,
    /// Which device.
    pub device: DeviceId,
    /// The name that its user gave it.
    pub label: Option<String>,
    /// Where it stands.
    pub state: DeviceState,
    /// Its last sign of life; of listed and quarantined devices.
    pub seen_at: Option<Timestamp>,
    /// Since when it is listed; of listed and quarantined devices.
    pub listed_at: Option<Timestamp>,
    /// When its bundle was published last; `None`: it has none.
    pub published_at: Option<Timestamp>,
    /// Its identity key in wire form, known even if the bundle has gone.
    pub identity_key: Option<Vec<u8>>,
    /// Its prekeys.
    pub stock: Stock,
    /// Those among the issued ones that were seen consumed.
    pub consumed: u32,
}

/// One owner, for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerRecord {
    /// Who.
    pub owner: Owner,
    /// Devices in the lists in force, by protocol (legacy, omemo2).
    pub listed: [u64; 2],
    /// Devices in quarantine, over both protocols.
    pub quarantined: u64,
    /// Bundles, over both protocols.
    pub bundles: u64,
}

/// Durable lives of devices.
#[async_trait]
pub trait LifecycleStore: Send + Sync {
    /// Writes down signs of life of devices that are listed or quarantined; others are passed over. Gives back those that
    /// are in quarantine and were seen after they came there, except those that still lack the bundle for which they did. Of
    /// one that is there because it was not seen, a sign from before that is news as well.
    async fn note_signs_of_life(&self, signs: &[SignOfLife]) -> Result<Vec<DevicePlace>, StoreError>;

    /// At most `limit` of the devices that are due, after a place. A page may hold fewer and still not be the last.
    async fn due_devices(&self, due: Due, after: Option<DuePlace>, limit: u32) -> Result<DuePage, StoreError>;

    /// Takes a listed device out of the list in force and into quarantine, with a notice to its owner and one to whoever
    /// follows the list. `false`: it is not listed, or is not due any more.
    async fn quarantine_device(&self, place: &DevicePlace, step: Step, now: Timestamp) -> Result<bool, StoreError>;

    /// Puts a quarantined device back at the end of the list in force, with its label, if that has fewer than `limit`.
    async fn revive_device(&self, place: &DevicePlace, limit: usize, now: Timestamp) -> Result<Revived, StoreError>;

    /// Removes a device for good: from quarantine, or from the list in force, and retracts its bundle. The tombstones of its
    /// prekeys stay. `false`: there is no such device, or it is not due any more.
    async fn retire_device(&self, place: &DevicePlace, step: Step, now: Timestamp) -> Result<bool, StoreError>;

    /// Since when devices have been watched without a pause longer than `pause`; to be called at least that often. While
    /// nobody watches, nobody can be seen.
    async fn watched_since(&self, pause: std::time::Duration, now: Timestamp) -> Result<Timestamp, StoreError>;

    /// How many devices are in which state. Reads an index from end to end.
    async fn device_states(&self) -> Result<DeviceStates, StoreError>;

    /// Everything about an owner's devices, by protocol and id; `None` if the account is not known.
    async fn device_records(&self, owner: &Owner) -> Result<Option<Vec<DeviceRecord>>, StoreError>;

    /// Owners in the order of their JIDs, after one, at most `limit`.
    async fn owner_records(&self, after: Option<&Owner>, limit: u32) -> Result<Vec<OwnerRecord>, StoreError>;
}
