//! The device's own place in the directory: its bundles, and its entries in the account's device lists.

use minidom::Element;

use crate::archive::{self, Page};
use crate::cipher::Cipher;
use crate::client::Inner;
use crate::connection::Kind;
use crate::device_list;
use crate::directory::{self, Node};
use crate::error::ClientError;
use crate::protocol::Protocol;
use crate::stanza;

impl Inner {
    /// What has to be done on a new stream: carbons, registration at the first start, and a look at the own device lists,
    /// which others may have changed meanwhile.
    pub(crate) async fn prepare_stream(&self) -> Result<(), ClientError> {
        let own = self.account().clone().into();
        self.connection.request("carbons", &own, Kind::Set, stanza::enable_carbons(), None).await?;
        self.choose_id().await?;
        let protocols = self.memory.lock().await.cipher.protocols();
        for protocol in &protocols {
            self.register(*protocol).await?;
            self.subscribe_to(self.account().clone(), *protocol).await?;
        }
        self.keep_listed().await?;
        self.memory.lock().await.unreachable.clear();
        for protocol in protocols {
            let known: Vec<_> = {
                let mut memory = self.memory.lock().await;
                let own = self.account();
                let lists = memory.state.lists_mut(protocol);
                // Lists may have changed unseen: they are fetched again before the next message.
                lists.devices.retain(|account, _| account == own);
                lists.subscribed.iter().filter(|account| *account != own).cloned().collect()
            };
            for account in known {
                // A peer that is gone, or does not allow it, does not concern the own registration.
                if let Err(error) = self.subscribe_to(account, protocol).await {
                    tracing::debug!(%error, "could not subscribe to a peer's device list");
                }
            }
        }
        Ok(())
    }

    /// At the first start: makes sure that no other device of the account has the same id, and notes where the archive
    /// ends, since what it holds already was not encrypted for this device.
    async fn choose_id(&self) -> Result<(), ClientError> {
        if self.memory.lock().await.state.has_id {
            return Ok(());
        }
        let mut taken = Vec::new();
        for protocol in Protocol::ALL {
            let list = self.fetch_list(self.account(), protocol).await?;
            taken.extend(list.as_ref().and_then(|list| device_list::read_ids(protocol, list)).unwrap_or_default());
        }
        let end = self.end_of_archive().await?;
        let mut memory = self.memory.lock().await;
        while taken.contains(&memory.cipher.id()) {
            memory.cipher = Cipher::generate(self.account(), self.settings.protocols)?;
        }
        if memory.state.cursor.is_none() {
            memory.state.cursor = end;
        }
        memory.state.has_id = true;
        self.save(&mut memory).await
    }

    /// The first start with a protocol. The bundle goes first: a listed device without one would be an error for everybody.
    async fn register(&self, protocol: Protocol) -> Result<(), ClientError> {
        if self.memory.lock().await.state.is_registered(protocol) {
            return Ok(());
        }
        self.publish_bundle(protocol).await?;
        self.keep_listed_in(protocol).await?;
        let mut memory = self.memory.lock().await;
        memory.state.lists_mut(protocol).registered = true;
        self.save(&mut memory).await
    }

    /// Publishes a bundle, filled up, if it differs from the published one.
    pub(crate) async fn publish_bundle(&self, protocol: Protocol) -> Result<(), ClientError> {
        let (device, bundle) = {
            let mut memory = self.memory.lock().await;
            if !memory.cipher.part_mut(protocol)?.refresh_bundle()? {
                return Ok(());
            }
            // The private keys are on disk before anybody can use the public ones.
            self.save(&mut memory).await?;
            (memory.cipher.id(), memory.cipher.part(protocol)?.bundle()?)
        };
        self.publish(Node::Bundle(protocol, device), bundle.clone()).await?;
        let mut memory = self.memory.lock().await;
        let keys = memory.cipher.part_mut(protocol)?;
        // A key may have been used in the meantime.
        if keys.bundle()? == bundle {
            keys.bundle_published();
            self.save(&mut memory).await?;
        }
        Ok(())
    }

    /// Puts this device into each of the account's lists that it is not in.
    pub(crate) async fn keep_listed(&self) -> Result<(), ClientError> {
        let protocols = self.memory.lock().await.cipher.protocols();
        for protocol in protocols {
            self.keep_listed_in(protocol).await?;
        }
        Ok(())
    }

    /// Puts this device into one list if it is not in it, leaving everything else in the list as it is.
    async fn keep_listed_in(&self, protocol: Protocol) -> Result<(), ClientError> {
        let listed = self.fetch_list(self.account(), protocol).await?;
        let device = self.memory.lock().await.cipher.id();
        let list = match device_list::with(protocol, listed.as_ref(), device)? {
            Some(list) => {
                self.publish(Node::Devices(protocol), list.clone()).await?;
                Some(list)
            }
            None => listed,
        };
        let ids = list.as_ref().and_then(|list| device_list::read_ids(protocol, list)).unwrap_or_default();
        self.memory.lock().await.state.lists_mut(protocol).devices.insert(self.account().clone(), ids);
        Ok(())
    }

    /// Publishes an item of the own directory; a node that exists with unsuitable settings gets suitable ones first.
    async fn publish(&self, node: Node, payload: Element) -> Result<(), ClientError> {
        let own = self.own_address();
        let publication = directory::publish(node, payload);
        let what = match node {
            Node::Devices(_) => "the publication of the device list",
            Node::Bundle(..) => "the publication of the bundle",
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
