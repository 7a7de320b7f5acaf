//! Claims: one prekey to one requester (DESIGN, directory invariants 1 to 4 and 9).

use jid::DomainPart;

use super::claim_queue::Asked;
use super::{BundleItem, Directory};
use crate::model::{DeviceId, Owner, Protocol, Requester, SessionJid};
use crate::store::{ClaimLimit, ClaimOutcome, StoreError};

/// A device of which a prekey is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whose.
    pub owner: Owner,
    /// In which protocol.
    pub protocol: Protocol,
    /// Which device.
    pub device: DeviceId,
    /// Whether a prekey that others have had is of no use: then there is no last resort.
    pub strict: bool,
}

/// Why there is no prekey.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The device has no bundle.
    #[error("no such bundle")]
    NoBundle,
    /// It has a bundle, but no prekey that may be given.
    #[error("the device has no prekey left to give")]
    NoPrekey,
    /// The requester asks for too many; later it may get one.
    #[error("{}", limit_text(*.0))]
    Limited(ClaimLimit),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(super) fn limit_text(limit: ClaimLimit) -> &'static str {
    match limit {
        ClaimLimit::Device => "your account has had too many prekeys of this device; try again later",
        ClaimLimit::Requester => "your account has had too many prekeys; try again later",
        ClaimLimit::Domain => "your server's accounts have had too many prekeys; try again later",
        ClaimLimit::Reserve => {
            "this device has few prekeys left and keeps them for those that it writes to; try again later"
        }
    }
}

impl Directory {
    /// Claims a prekey of each device wanted, as one requester, and answers each in its place. The requester may be the
    /// owner: its other devices start sessions like everybody. What was handed out is durable.
    pub async fn claim_batch(&self, requester: &Requester, wanted: &[Wanted]) -> Vec<Result<BundleItem, ClaimError>> {
        let local = self.local_session(requester);
        let asked = wanted.iter().map(|wanted| Asked {
            owner: wanted.owner.clone(),
            protocol: wanted.protocol,
            device: wanted.device,
            requester: requester.clone(),
            local: local.clone(),
            foreign: !self.is_local(requester),
            strict: wanted.strict,
        });
        let outcomes = self.claims.claim(asked.collect()).await;
        let mut items = Vec::with_capacity(wanted.len());
        for (wanted, outcome) in wanted.iter().zip(outcomes) {
            if let Ok(outcome) = &outcome {
                self.metrics.claim(wanted.protocol, outcome);
            }
            if matches!(outcome, Ok(ClaimOutcome::NoPrekey)) {
                self.check_empty(wanted).await;
            }
            items.push(outcome.map_err(ClaimError::from).and_then(|outcome| item(wanted, outcome)));
        }
        items
    }

    /// Invariant 4, watched: nobody is told that there is no prekey while there is one.
    async fn check_empty(&self, wanted: &Wanted) {
        let Wanted { owner, protocol, device, .. } = wanted;
        match self.store.stock(owner, *protocol, *device).await {
            Ok(stock) if stock.unissued > 0 => {
                tracing::error!(%owner, protocol = protocol.name(), %device, "no prekey was given although there are some");
                self.metrics.empty_while_stocked(*protocol);
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the stock could not be looked at"),
        }
    }

    /// The account and the session behind a requester of one of our domains.
    fn local_session(&self, requester: &Requester) -> Option<(Owner, SessionJid)> {
        let session = requester.session().filter(|_| self.is_local(requester))?;
        Some((Owner::new(requester.jid().to_bare()).ok()?, session))
    }

    fn is_local(&self, requester: &Requester) -> bool {
        let is_ours = |domain: &DomainPart| domain.as_str() == requester.jid().domain().as_str();
        self.settings.with(|settings| settings.domains.iter().any(is_ours))
    }
}

fn item(wanted: &Wanted, outcome: ClaimOutcome) -> Result<BundleItem, ClaimError> {
    match outcome {
        ClaimOutcome::Handed { identity_key, signed_prekey, prekey, item_id, kind } => {
            tracing::debug!(protocol = wanted.protocol.name(), kind = kind.name(), "prekey handed out");
            Ok(BundleItem::WithPrekey { device: wanted.device, item_id, identity_key, signed_prekey, prekey })
        }
        ClaimOutcome::NoBundle => Err(ClaimError::NoBundle),
        ClaimOutcome::NoPrekey => {
            let Wanted { owner, protocol, device, .. } = wanted;
            tracing::warn!(%owner, protocol = protocol.name(), %device, "a device has no prekey left to give");
            Err(ClaimError::NoPrekey)
        }
        ClaimOutcome::Limited(limit) => {
            tracing::debug!(protocol = wanted.protocol.name(), limit = limit.name(), "a claim is over a limit");
            Err(ClaimError::Limited(limit))
        }
    }
}
