//! Device lists (XEP-0384 §5.3.1): read by anybody, written by the owner's sessions, merged so that no session removes a
//! device that it never saw.

use jid::Jid;

use super::{Directory, DirectoryError};
use crate::model::{DeviceList, Owner, Protocol, Requester};
use crate::store::{ListPublished, NodeKind};

/// A list that came into force, and who is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListChange {
    /// The list in force after the merge.
    pub list: DeviceList,
    /// Subscribers to be sent it; empty if nothing changed.
    pub announce_to: Vec<Jid>,
}

impl Directory {
    /// The list in force.
    pub async fn device_list(
        &self,
        owner: &Owner,
        requester: &Requester,
        protocol: Protocol,
    ) -> Result<DeviceList, DirectoryError> {
        let own_session = requester.session().filter(|_| requester.is(owner));
        let list = self.store.device_list(owner, protocol, own_session.as_ref()).await?;
        list.ok_or(DirectoryError::NotFound("this account has no device list"))
    }

    /// Publishes a list. What is announced is what came into force, which may hold more than was published; the publisher
    /// is told as well if it is subscribed. What is announced nobody has seen yet: a session that is away never gets it.
    pub async fn publish_device_list(
        &self,
        owner: &Owner,
        requester: &Requester,
        protocol: Protocol,
        published: &DeviceList,
    ) -> Result<ListChange, DirectoryError> {
        let session = Self::writer(owner, requester)?;
        let limit = self.settings.with(|settings| settings.max_devices);
        let outcome =
            self.store.publish_device_list(owner, protocol, &session, published, limit, self.clock.now()).await?;
        let ListPublished::Accepted { list, changed } = outcome else {
            return Err(DirectoryError::TooManyDevices(limit));
        };
        let merged = list != *published;
        self.metrics.list_published(protocol, merged);
        let announce_to = if changed || merged {
            self.store.subscribers(owner, protocol, NodeKind::DeviceList).await?
        } else {
            Vec::new()
        };
        Ok(ListChange { list, announce_to })
    }

    /// Removes the list; subscribers are to be told.
    pub async fn delete_device_list(
        &self,
        owner: &Owner,
        requester: &Requester,
        protocol: Protocol,
    ) -> Result<Vec<Jid>, DirectoryError> {
        Self::writer(owner, requester)?;
        if !self.store.delete_device_list(owner, protocol, self.clock.now()).await? {
            return Err(DirectoryError::NotFound("this account has no device list"));
        }
        Ok(self.store.subscribers(owner, protocol, NodeKind::DeviceList).await?)
    }
}
