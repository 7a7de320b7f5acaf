//! Notices on their way out: what waits in the store, with what is to be said and to whom.
//!
//! They are told at least once. A notice is taken for [`LEASE`], during which no other instance takes it, and is done with
//! only when it has been handed to the link; whoever dies in between leaves it to the next. What is told is the state at that
//! moment, not at the moment of the change: a notice that comes twice, or late, is still true. What the link had taken and
//! not yet written when the process was killed is lost with it; a device finds the same by asking when it comes back.

use std::time::Duration;

use jid::Jid;

use super::{Directory, DirectoryError};
use crate::model::{DeviceId, DeviceList, Owner, Protocol};
use crate::store::{DeviceState, NodeKind, Notice, NoticeKind};

/// How long a taken notice is the taker's.
const LEASE: Duration = Duration::from_secs(60);
/// Most sessions of one device that are told. Resources that a client drew at random and used once are many.
const MAX_SESSIONS: u32 = 4;

/// What is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// To subscribers: the list in force.
    List(DeviceList),
    /// To a device: so many prekeys are left that nobody has.
    LowStock(DeviceId, u32),
    /// To a device: it is quarantined.
    Quarantined(DeviceId),
    /// To a device: it has been removed.
    Removed(DeviceId),
    /// To a device: all its one-time prekeys are void.
    Restored(DeviceId),
}

/// A notice that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// What was taken, to be given back to [`Directory::notices_sent`].
    pub notice: Notice,
    /// What is to be said; `None` if it is of no interest any more.
    pub told: Option<Told>,
    /// To whom.
    pub to: Vec<Jid>,
}

impl Directory {
    /// Takes the oldest notices that are due, at most `limit`.
    pub async fn take_notices(&self, limit: u32) -> Result<Vec<Due>, DirectoryError> {
        let taken = self.store.take_notices(limit, LEASE, self.clock.now()).await?;
        let mut due = Vec::with_capacity(taken.len());
        for notice in taken {
            due.push(self.prepare(notice).await?);
        }
        Ok(due)
    }

    /// These have been handed to the link, or were of no interest any more.
    pub async fn notices_sent(&self, sent: &[Notice]) -> Result<(), DirectoryError> {
        Ok(self.store.settle_notices(sent).await?)
    }

    /// Where a device stands now; `None`: it is not known.
    async fn state_of(
        &self,
        owner: &Owner,
        protocol: Protocol,
        device: DeviceId,
    ) -> Result<Option<DeviceState>, DirectoryError> {
        let records = self.store.device_records(owner).await?.unwrap_or_default();
        let record = records.into_iter().find(|record| record.protocol == protocol && record.device == device);
        Ok(record.map(|record| record.state))
    }

    async fn prepare(&self, notice: Notice) -> Result<Due, DirectoryError> {
        let (owner, protocol) = (&notice.owner, notice.protocol);
        let told = match (notice.kind, notice.device) {
            (NoticeKind::ListChanged, _) => {
                // A list that is gone has been announced as gone.
                let list = self.store.device_list(owner, protocol, None).await?;
                let to = self.store.subscribers(owner, protocol, NodeKind::DeviceList).await?;
                return Ok(Due { told: list.map(Told::List), to, notice });
            }
            (NoticeKind::LowStock, Some(device)) => {
                Told::LowStock(device, self.store.stock(owner, protocol, device).await?.unissued)
            }
            (NoticeKind::Quarantined, Some(device)) => {
                // It may have come back since.
                if !matches!(self.state_of(owner, protocol, device).await?, Some(DeviceState::Quarantined(..))) {
                    return Ok(Due { told: None, to: Vec::new(), notice });
                }
                Told::Quarantined(device)
            }
            (NoticeKind::Removed, Some(device)) => {
                let state = self.state_of(owner, protocol, device).await?;
                if matches!(state, Some(DeviceState::Listed | DeviceState::Quarantined(..))) {
                    return Ok(Due { told: None, to: Vec::new(), notice });
                }
                Told::Removed(device)
            }
            (NoticeKind::Restored, Some(device)) => Told::Restored(device),
            (_, None) => return Ok(Due { told: None, to: Vec::new(), notice }),
        };
        let to = match notice.device {
            Some(device) => {
                let sessions = self.store.device_sessions(owner, protocol, device, MAX_SESSIONS).await?;
                sessions.into_iter().map(|session| session.jid().clone().into()).collect()
            }
            None => Vec::new(),
        };
        // A device whose sessions are not known is one of those that hear what the account is told.
        let to = if to.is_empty() { vec![owner.jid().clone().into()] } else { to };
        Ok(Due { told: Some(told), to, notice })
    }
}
