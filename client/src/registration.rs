//! The device's own place in the directory: its bundle, and its entry in the account's device list.

use minidom::Element;

use crate::archive::{self, Page};
use crate::cipher::{self, Cipher};
use crate::client::Inner;
use crate::connection::Kind;
use crate::directory::{self, Node};
use crate::error::ClientError;
use crate::stanza;

impl Inner {
    /// What has to be done on a new stream: carbons, registration at the first start, and a look at the own device list,
    /// which others may have changed meanwhile.
    pub(crate) async fn prepare_stream(&self) -> Result<(), ClientError> {
        let own = self.account().clone().into();
        self.connection.request("carbons", &own, Kind::Set, stanza::enable_carbons(), None).await?;
        if !self.memory.lock().await.state.registered {
            self.register().await?;
        }
        self.subscribe_to(self.account().clone()).await?;
        self.keep_listed().await?;
        let known: Vec<_> = {
            let mut memory = self.memory.lock().await;
            memory.unreachable.clear();
            let own = self.account();
            // Lists may have changed unseen: they are fetched again before the next message.
            memory.state.devices.retain(|account, _| account == own);
            memory.state.subscribed.iter().filter(|account| *account != own).cloned().collect()
        };
        for account in known {
            // A peer that is gone, or does not allow it, does not concern the own registration.
            if let Err(error) = self.subscribe_to(account).await {
                tracing::debug!(%error, "could not subscribe to a peer's device list");
            }
        }
        Ok(())
    }

    /// The first start. The bundle goes first: a listed device without one would be an error for everybody.
    async fn register(&self) -> Result<(), ClientError> {
        let listed = self.fetch_list(self.account()).await?;
        let ids = listed.as_ref().and_then(cipher::read_device_ids).unwrap_or_default();
        // What the archive holds already was not encrypted for this device.
        let end = self.end_of_archive().await?;
        {
            let mut memory = self.memory.lock().await;
            while ids.contains(&memory.cipher.id()) {
                memory.cipher = Cipher::generate(self.account())?;
            }
            if memory.state.cursor.is_none() {
                memory.state.cursor = end;
            }
            self.save(&mut memory).await?;
        }
        self.publish_bundle().await?;
        self.keep_listed().await?;
        let mut memory = self.memory.lock().await;
        memory.state.registered = true;
        self.save(&mut memory).await
    }

    /// Publishes the bundle, filled up, if it differs from the published one.
    pub(crate) async fn publish_bundle(&self) -> Result<(), ClientError> {
        let (device, bundle) = {
            let mut memory = self.memory.lock().await;
            if !memory.cipher.refresh_bundle()? {
                return Ok(());
            }
            // The private keys are on disk before anybody can use the public ones.
            self.save(&mut memory).await?;
            (memory.cipher.id(), memory.cipher.bundle()?)
        };
        self.publish(Node::Bundles, &device.to_string(), bundle.clone()).await?;
        let mut memory = self.memory.lock().await;
        // A key may have been used in the meantime.
        if memory.cipher.bundle()? == bundle {
            memory.cipher.bundle_published();
            self.save(&mut memory).await?;
        }
        Ok(())
    }

    /// Puts this device into the account's list if it is not in it, leaving everything else in the list as it is.
    pub(crate) async fn keep_listed(&self) -> Result<(), ClientError> {
        let listed = self.fetch_list(self.account()).await?;
        let device = self.memory.lock().await.cipher.id();
        let list = match cipher::list_with(listed.as_ref(), device)? {
            Some(list) => {
                self.publish(Node::Devices, "current", list.clone()).await?;
                Some(list)
            }
            None => listed,
        };
        let ids = list.as_ref().and_then(cipher::read_device_ids).unwrap_or_default();
        self.memory.lock().await.state.devices.insert(self.account().clone(), ids);
        Ok(())
    }

    /// Publishes an item of the own directory; a node that exists with unsuitable settings gets suitable ones first.
    async fn publish(&self, node: Node, item: &str, payload: Element) -> Result<(), ClientError> {
        let own = self.own_address();
        let publication = directory::publish(node, item, payload);
        let what = match node {
            Node::Devices => "the publication of the device list",
            Node::Bundles => "the publication of the bundle",
        };
        match self.connection.request(what, &own, Kind::Set, publication.clone(), None).await {
            // precondition-not-met (XEP-0060 §7.1.5)
            Err(ClientError::Refused { refusal, .. }) if refusal.condition == "conflict" => {
                let configuration = directory::configure(node);
                self.connection.request("the configuration of a node", &own, Kind::Set, configuration, None).await?;
                self.connection.request(what, &own, Kind::Set, publication, None).await?;
            }
            outcome => drop(outcome?),
        }
        Ok(())
    }

    /// The id of the newest message in the archive; `None` if that is empty.
    async fn end_of_archive(&self) -> Result<Option<String>, ClientError> {
        let id = crate::random::id();
        let query = archive::query(&id, Page::Newest);
        let answer = self.connection.request("the archive", &self.own_address(), Kind::Set, query, Some(&id)).await?;
        Ok(answer.collected.iter().filter_map(archive::read_result).next_back().map(|newest| newest.id))
    }
}
