//! Claims: one prekey to one requester (DESIGN, directory invariants 1 to 4 and 9).

use jid::DomainPart;

use super::{BundleItem, Directory};
use crate::model::{Claimant, DeviceId, Owner, Protocol, Requester, SessionJid};
use crate::store::{Claim, ClaimLimit, ClaimOutcome, StoreError};

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
    /// owner: its other devices start sessions like everybody.
    pub async fn claim_batch(&self, requester: &Requester, wanted: &[Wanted]) -> Vec<Result<BundleItem, ClaimError>> {
        let mut claims = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let claimant = match self.claimant(requester, wanted.protocol).await {
                Ok(claimant) => claimant,
                Err(error) => {
                    claims.push(Err(error.into()));
                    continue;
                }
            };
            let claim = Claim {
                owner: wanted.owner.clone(),
                protocol: wanted.protocol,
                device: wanted.device,
                claimant,
                foreign: !self.is_local(requester),
                strict: wanted.strict,
            };
            let outcome = self.store.claim(&claim, &self.settings.claims, self.clock.now()).await;
            if let Ok(outcome) = &outcome {
                self.metrics.claim(wanted.protocol, outcome);
            }
            claims.push(outcome.map_err(ClaimError::from).and_then(|outcome| item(wanted, outcome)));
        }
        claims
    }

    /// Who is asking: its own device where the session certainly is one, else its address. Only for accounts of ours do we
    /// know which session is which device.
    async fn claimant(&self, requester: &Requester, protocol: Protocol) -> Result<Claimant, StoreError> {
        let address = Claimant::Address(requester.clone());
        let Some((account, session)) = self.local_session(requester) else { return Ok(address) };
        let certain = self.store.certain_devices(&[(session, protocol)]).await?;
        Ok(certain.into_iter().flatten().next().map_or(address, |device| Claimant::Device(account, device)))
    }

    /// The account and the session behind a requester of one of our domains.
    pub(super) fn local_session(&self, requester: &Requester) -> Option<(Owner, SessionJid)> {
        let session = requester.session().filter(|_| self.is_local(requester))?;
        Some((Owner::new(requester.jid().to_bare()).ok()?, session))
    }

    fn is_local(&self, requester: &Requester) -> bool {
        self.settings.domains.iter().any(|domain: &DomainPart| domain.as_str() == requester.jid().domain().as_str())
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
