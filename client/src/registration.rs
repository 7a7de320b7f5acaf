//! The device's own place in the directory: its bundles, and its entries in the account's device lists.

use minidom::Element;

use crate::archive::{self, Page};
use crate::cipher::Cipher;
use crate::client::Inner;
use crate::connection::Kind;
use crate::device_list;
use crate::digest;
use crate::directory::{self, Node};
use crate::error::ClientError;
use crate::extension::{self, Offers};
use crate::protocol::Protocol;
use crate::stanza;

impl Inner {
    /// What has to be done on a new stream: carbons, registration at the first start, and a look at the own device lists,
    /// which others may have changed meanwhile.
    pub(crate) async fn prepare_stream(&self) -> Result<(), ClientError> {
        let own = self.account().clone().into();
        self.connection.request("carbons", &own, Kind::Set, stanza::enable_carbons(), None).await?;
        self.discover().await?;
        self.choose_id().await?;
        let protocols = self.memory.lock().await.cipher.protocols();
        for protocol in &protocols {
            self.register(*protocol).await?;
            self.subscribe_to(self.account().clone(), *protocol).await?;
            if self.memory.lock().await.offers.check {
                self.check_itself(*protocol).await?;
            } else {
                self.keep_listed_in(*protocol).await?;
            }
        }
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

    /// Asks what is offered beyond the standards. A service that does not answer offers nothing.
    async fn discover(&self) -> Result<(), ClientError> {
        let own = self.own_address();
        let offers = match self.connection.request("discovery", &own, Kind::Get, extension::discovery(), None).await {
            Ok(answer) => answer.payload.as_ref().map(extension::read_offers).unwrap_or_default(),
            Err(ClientError::Refused { .. }) => Offers::default(),
            Err(error) => return Err(error),
        };
        self.memory.lock().await.offers = offers;
        Ok(())
    }

    /// Compares what is published with what should be, and mends what differs. Costs one small request if nothing does.
    async fn check_itself(&self, protocol: Protocol) -> Result<(), ClientError> {
        const WHAT: &str = "the self-check";
        let (device, bundle) = {
            let memory = self.memory.lock().await;
            (memory.cipher.id(), memory.cipher.part(protocol)?.bundle()?)
        };
        let request = extension::check(protocol, device);
        let answer = self.connection.request(WHAT, &self.own_address(), Kind::Get, request, None).await?;
        let published = answer.payload.as_ref().and_then(extension::read_check);
        let published = published.ok_or(ClientError::Malformed(WHAT))?;
        let list_is_known = {
            let mut memory = self.memory.lock().await;
            if published.bundle != digest::of_bundle(protocol, &bundle, device) {
                memory.cipher.part_mut(protocol)?.bundle_lost();
            }
            let lists = memory.state.lists_mut(protocol);
            let known = lists.devices.contains_key(self.account()) && lists.own_digest.is_some();
            known && lists.own_digest == published.list
        };
        if published.bundle.is_some() && published.unissued == 0 {
            self.upkeep.low_stock(protocol);
        }
        self.publish_bundle(protocol).await?;
        if list_is_known && published.listed { Ok(()) } else { self.keep_listed_in(protocol).await }
    }

    /// Takes the prekeys that others were given out of the bundle, which is filled up with new ones. Their private halves
    /// stay: whoever was given one may yet use it.
    pub(crate) async fn replace_issued_prekeys(&self, protocol: Protocol) -> Result<(), ClientError> {
        const WHAT: &str = "the stock of prekeys";
        let (device, offered) = {
            let memory = self.memory.lock().await;
            (memory.cipher.id(), memory.offers.stock)
        };
        if !offered {
            return Ok(());
        }
        let request = extension::stock(protocol, device);
        let issued = match self.connection.request(WHAT, &self.own_address(), Kind::Get, request, None).await {
            Ok(answer) => answer.payload.as_ref().and_then(extension::read_issued),
            // Without a bundle there is none to be replaced.
            Err(error) if error.is_not_found() => Some(Vec::new()),
            Err(error) => return Err(error),
        };
        let issued = issued.ok_or(ClientError::Malformed(WHAT))?;
        self.memory.lock().await.cipher.part_mut(protocol)?.retire_prekeys(&issued)
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
        let (device, offers) = {
            let memory = self.memory.lock().await;
            (memory.cipher.id(), memory.offers)
        };
        let list = if offers.devices {
            Some(self.add_device(protocol, device).await?)
        } else {
            self.announce(protocol, device).await?
        };
        let ids = list.as_ref().and_then(|list| device_list::read_ids(protocol, list)).unwrap_or_default();
        let mut memory = self.memory.lock().await;
        let lists = memory.state.lists_mut(protocol);
        lists.devices.insert(self.account().clone(), ids);
        lists.own_digest = list.as_ref().and_then(|list| digest::of_list(protocol, list));
        Ok(())
    }

    /// Adds the device in one request, which changes nothing if it is there. Gives the list in force.
    async fn add_device(&self, protocol: Protocol, device: u32) -> Result<Element, ClientError> {
        const WHAT: &str = "the addition to the device list";
        let request = extension::add_device(protocol, device);
        let answer = self.connection.request(WHAT, &self.own_address(), Kind::Set, request, None).await?;
        answer.payload.as_ref().and_then(extension::read_list).cloned().ok_or(ClientError::Malformed(WHAT))
    }

    /// Publishes the list with this device in it, if it is not there. Gives the list in force.
    async fn announce(&self, protocol: Protocol, device: u32) -> Result<Option<Element>, ClientError> {
        let listed = self.fetch_list(self.account(), protocol).await?;
        match device_list::with(protocol, listed.as_ref(), device)? {
            Some(list) => {
                self.publish(Node::Devices(protocol), list.clone()).await?;
                Ok(Some(list))
            }
            None => Ok(listed),
        }
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
