//! Explicit subscriptions to device lists (XEP-0060 §6.1, §6.2): the alias door has no presence to go by.

use jid::Jid;

use super::{Directory, DirectoryError};
use crate::model::{Owner, Protocol, Requester};
use crate::store::NodeKind;

/// Most JIDs of one account subscribed to one node. Resources cost nothing: without this, one stranger could take all the
/// subscriptions that a node may have.
const MAX_SESSIONS: usize = 16;

impl Directory {
    /// Subscribes a JID, which the caller has checked to be the requester's own, to an owner's device list. The list need
    /// not exist yet: whoever waits for a contact's first device subscribes before it is there.
    pub async fn subscribe(&self, owner: &Owner, protocol: Protocol, jid: &Jid) -> Result<(), DirectoryError> {
        let limit = self.settings.with(|settings| settings.max_subscriptions);
        if !self.store.account_exists(owner).await? {
            if jid.to_bare() != *owner.jid() {
                return Err(DirectoryError::NotFound("no such account here"));
            }
            self.store.register_account(owner, self.clock.now()).await?;
        }
        if jid.is_full() {
            let subscribed = self.store.subscribers(owner, protocol, NodeKind::DeviceList).await?;
            let others = subscribed.iter().filter(|other| *other != jid && other.to_bare() == jid.to_bare()).count();
            if others >= MAX_SESSIONS {
                return Err(DirectoryError::TooManySessions);
            }
        }
        if self.store.subscribe(owner, protocol, NodeKind::DeviceList, jid, limit).await? {
            Ok(())
        } else {
            Err(DirectoryError::TooManySubscribers)
        }
    }

    /// Ends a subscription.
    pub async fn unsubscribe(&self, owner: &Owner, protocol: Protocol, jid: &Jid) -> Result<(), DirectoryError> {
        if self.store.unsubscribe(owner, protocol, NodeKind::DeviceList, jid).await? {
            Ok(())
        } else {
            Err(DirectoryError::NotSubscribed)
        }
    }

    /// Which of a requester's sessions, or its bare JID, are subscribed to an owner's device list. Nobody learns of others.
    pub async fn subscriptions(
        &self,
        owner: &Owner,
        requester: &Requester,
        protocol: Protocol,
    ) -> Result<Vec<Jid>, DirectoryError> {
        let account = requester.jid().to_bare();
        let mut subscribed = self.store.subscribers(owner, protocol, NodeKind::DeviceList).await?;
        subscribed.retain(|jid| jid.to_bare() == account);
        Ok(subscribed)
    }
}
