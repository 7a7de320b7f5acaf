//! What the directory asks of a database about one-time prekeys: who gets which, how fast, and which were used (DESIGN,
//! directory invariants 1 to 4 and 9).

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::model::{Claimant, DeviceId, Owner, Prekey, PrekeyId, Protocol, SessionJid, SignedPrekey, Timestamp};

/// Who wants a prekey of which device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose device.
    pub owner: Owner,
    /// In which protocol.
    pub protocol: Protocol,
    /// Which device.
    pub device: DeviceId,
    /// For whom. The owner's own devices are under no limit.
    pub claimant: Claimant,
    /// Whether the claimant's domain is none of ours: then what its domain may get is limited, too.
    pub foreign: bool,
    /// If set, no last resort: [`ClaimOutcome::NoPrekey`] instead.
    pub strict: bool,
}

/// The rules by which claims are answered: the same for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimRules {
    /// Within this window the same claimant gets the same prekey again, unless it was withdrawn or consumed.
    pub repeat_window: Duration,
    /// Prekeys of one device that one account gets in 24 hours, over all its sessions and devices. Repeats never count.
    pub per_device: u32,
    /// Prekeys that one account gets in 24 hours, of all owners.
    pub per_requester: u32,
    /// Prekeys that the accounts of one foreign domain get in 24 hours, all together.
    pub per_domain: u32,
    /// The last so many unissued prekeys of a device, but at most a fifth of its bundle, are kept for its owner's own
    /// devices and for those to whom the owner has written. Others get them only slowly, at `reserve_per_hour`.
    pub reserve: u32,
    /// How many of a device's reserve strangers get in an hour.
    pub reserve_per_hour: u32,
    /// A device is told once when it has this many unissued prekeys or fewer, and once more when it has none.
    pub low_stock: u32,
}

impl Default for ClaimRules {
    /// No client with 32 devices on either side comes near any of these.
    fn default() -> Self {
        Self {
            repeat_window: Duration::from_secs(24 * 60 * 60),
            per_device: 64,
            per_requester: 20_000,
            per_domain: 200_000,
            reserve: 20,
            reserve_per_hour: 12,
            low_stock: 20,
        }
    }
}

/// How a prekey came to be handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClaimKind {
    /// It had never been issued.
    Fresh,
    /// The same claimant got the same one again within the window.
    Repeat,
    /// No unissued one was left: the least recently issued one again.
    LastResort,
}

impl ClaimKind {
    /// All, in a fixed order.
    pub const ALL: [Self; 3] = [Self::Fresh, Self::Repeat, Self::LastResort];

    /// The name used in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Repeat => "repeat",
            Self::LastResort => "last-resort",
        }
    }
}

/// Why a claimant gets no prekey although there may be some: it may try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClaimLimit {
    /// Its account has had as many of this device as it may.
    Device,
    /// Its account has had as many as it may.
    Requester,
    /// Its domain has had as many as it may.
    Domain,
    /// The device's reserve is not for strangers, beyond a few an hour.
    Reserve,
}

impl ClaimLimit {
    /// All, in a fixed order.
    pub const ALL: [Self; 4] = [Self::Device, Self::Requester, Self::Domain, Self::Reserve];

    /// The name used in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Requester => "requester",
            Self::Domain => "domain",
            Self::Reserve => "reserve",
        }
    }
}

/// The answer to a claim. Durable when it is returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// Keys to start a session with.
    Handed {
        /// The device's identity key, in wire form.
        identity_key: Vec<u8>,
        /// Its signed prekey.
        signed_prekey: SignedPrekey,
        /// The one-time prekey.
        prekey: Prekey,
        /// The pubsub item id that the bundle was published under.
        item_id: String,
        /// How it came to be handed out.
        kind: ClaimKind,
    },
    /// The device has no bundle.
    NoBundle,
    /// A bundle, but no prekey that may be given: all consumed or withdrawn, or a strict claim found none unissued.
    NoPrekey,
    /// The claimant asks for too many. Nothing was stored.
    Limited(ClaimLimit),
}

/// Durable state of one-time prekeys.
#[async_trait]
pub trait ClaimStore: Send + Sync {
    /// Hands out one prekey (invariants 1 to 4), durably before it returns. The repeat window runs from the hand-out and is
    /// not prolonged by repeats. A strict claim does not repeat a last resort either.
    async fn claim(&self, claim: &Claim, rules: &ClaimRules, now: Timestamp) -> Result<ClaimOutcome, StoreError>;

    /// Answers many claims, in as few transactions as that takes: the answer to each in its place, as if they had come one
    /// after the other. One that fails does not fail the others.
    async fn claim_many(
        &self,
        claims: &[Claim],
        rules: &ClaimRules,
        now: Timestamp,
    ) -> Vec<Result<ClaimOutcome, StoreError>>;

    /// Which device each of these sessions certainly is in its protocol: has been seen to be that one and no other.
    async fn certain_devices(&self, sessions: &[(SessionJid, Protocol)]) -> Result<Vec<Option<DeviceId>>, StoreError>;

    /// Which of a device's prekeys were seen consumed, the latest first, at most `limit`: the device needs their private
    /// halves no more once it has read its archive.
    async fn consumed_prekeys(
        &self,
        owner: &Owner,
        protocol: Protocol,
        device: DeviceId,
        limit: u32,
    ) -> Result<Vec<PrekeyId>, StoreError>;

    /// Deletes at most `limit` of what is remembered of claims made before `before`: how many. Tombstones, and who they were
    /// issued to, stay. To be called now and then with a moment further back than any window.
    async fn forget_claims(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
}
