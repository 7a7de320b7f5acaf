//! The rules of the directory: who may read and write device lists and bundles, what is accepted, and what is handed out
//! (DESIGN: "Directory: what must always hold").
//!
//! Knows no XML and no SQL. What must be atomic is asked of the store as one operation; this layer never reads, decides and
//! writes in separate steps.

mod batch_claim;
mod bundle;
mod bundle_refusal;
mod claim;
mod claim_queue;
mod device;
mod device_list;
pub mod digest;
mod history;
mod life;
mod life_metrics;
mod life_signs;
mod metrics;
mod node;
mod notice;
mod session;
mod subscription;

use std::collections::BTreeSet;
use std::sync::Arc;

use jid::DomainPart;

pub use batch_claim::{OwnerClaimed, WantedDevices};
pub use bundle::BundleItem;
pub use bundle_refusal::BundleRefusal;
pub use claim::{ClaimError, Wanted};

pub use device::Published;
pub use device_list::ListChange;
pub use history::HistoryPage;
pub use life::{LifeRun, LifeSettings, Mode};
pub use metrics::DirectoryMetrics;
pub use node::Contents;
pub use notice::{Due, Told};
pub use session::SentWith;

use crate::model::{Clock, Owner, Requester, SessionJid, Setting};
use crate::store::{ClaimLimit, ClaimRules, SharedStore, StoreError};

/// Claims that may wait to be answered together; when there are more, who asks waits.
pub const CLAIMS_WAITING: usize = claim_queue::WAITING;

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Most devices that an owner may list per protocol.
    pub max_devices: usize,
    /// How prekeys are handed out.
    pub claims: ClaimRules,
    /// Whose users are served: only of their sessions is it known which device they are.
    pub domains: BTreeSet<DomainPart>,
    /// Most subscriptions to one node.
    pub max_subscriptions: u32,
    /// When a device's life is over.
    pub life: LifeSettings,
}

/// Why the directory refuses.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Only a session of the owner may do this.
    #[error("only the account itself may change its devices and bundles")]
    NotTheOwner,
    /// No device list, no bundle, or no prekey that may be given.
    #[error("{0}")]
    NotFound(&'static str),
    /// The requester asks for too many prekeys; later it may get some.
    #[error("{}", claim::limit_text(*.0))]
    Limited(ClaimLimit),
    /// The signed prekey is not signed by the identity key.
    #[error("the signature of the signed prekey is wrong: {0}")]
    Signature(#[from] multiend_crypto::signature::SignatureError),
    /// The list would be too long.
    #[error("an account may list at most {0} devices per protocol; remove one first")]
    TooManyDevices(usize),
    /// The node has as many subscribers as it may have.
    #[error("this node has as many subscribers as it may have")]
    TooManySubscribers,
    /// The head that the requester knows was never that of this history.
    #[error("what you know of this history is not a part of it")]
    NotOnChain,
    /// One account has subscribed as many of its sessions as it may.
    #[error("too many of your sessions are subscribed; subscribe your bare JID instead")]
    TooManySessions,
    /// There was no such subscription.
    #[error("not subscribed")]
    NotSubscribed,
    /// The database; or one of the rules that it holds, as [`StoreError::TooManyBundles`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The directory of every owner.
pub struct Directory {
    store: SharedStore,
    clock: Arc<dyn Clock>,
    settings: Setting<Settings>,
    metrics: DirectoryMetrics,
    known_sessions: session::KnownSessions,
    claims: claim_queue::ClaimQueue,
    life: life_signs::LifeSigns,
}

impl Directory {
    /// A directory on a store. To be called within a runtime, where its claims are answered.
    pub fn new(
        store: SharedStore,
        clock: Arc<dyn Clock>,
        settings: impl Into<Setting<Settings>>,
        metrics: DirectoryMetrics,
    ) -> Self {
        let settings = settings.into();
        let claims = claim_queue::ClaimQueue::start(store.clone(), clock.clone(), settings.clone(), metrics.clone());
        Self {
            store,
            clock,
            settings,
            metrics,
            known_sessions: session::KnownSessions::default(),
            claims,
            life: life_signs::LifeSigns::default(),
        }
    }

    /// The session that writes, which must be one of the owner's.
    fn writer(owner: &Owner, requester: &Requester) -> Result<SessionJid, DirectoryError> {
        requester.session().filter(|_| requester.is(owner)).ok_or(DirectoryError::NotTheOwner)
    }
}
