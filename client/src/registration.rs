//! The device's own place in the directory: its bundle, and its entry in the account's device list.

use minidom::Element;

use crate::archive::{self, Page};
use crate::cipher::{self, Cipher};
use crate::client::Inner;
use crate::connection::Kind;
use crate::digest;
use crate::directory::{self, Node};
use crate::error::ClientError;
use crate::extension::{self, Offers};
use crate::stanza;

impl Inner {
    /// What has to be done on a new stream: carbons, registration at the first start, and a look at the own device list,
    /// which others may have changed meanwhile.
    pub(crate) async fn prepare_stream(&self) -> Result<(), ClientError> {
        let own = self.account().clone().into();
        self.connection.request("carbons", &own, Kind::Set, stanza::enable_carbons(), None).await?;
        self.discover().await?;
        let registered = self.memory.lock().await.state.registered;
        if !registered {
            self.register().await?;
        }
        self.subscribe_to(self.account().clone()).await?;
        if registered && self.memory.lock().await.offers.check {
            self.check_itself().await?;
        } else {
            self.keep_listed().await?;
        }
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
    async fn check_itself(&self) -> Result<(), ClientError> {
        const WHAT: &str = "the self-check";
        let (device, bundle) = {
            let memory = self.memory.lock().await;
            (memory.cipher.id(), memory.cipher.bundle()?)
        };
        let answer =
            self.connection.request(WHAT, &self.own_address(), Kind::Get, extension::check(device), None).await?;
        let published = answer.payload.as_ref().and_then(extension::read_check);
        let published = published.ok_or(ClientError::Malformed(WHAT))?;
        let list_known = {
            let mut memory = self.memory.lock().await;
            if published.bundle != digest::of_bundle(&bundle, device) {
                memory.cipher.bundle_lost();
            }
            let known = memory.state.devices.contains_key(self.account()) && memory.state.own_list.is_some();
            known && memory.state.own_list == published.list
        };
        if published.bundle.is_some() && published.unissued == 0 {
            self.upkeep.low_stock();
        }
        self.publish_bundle().await?;
        if list_known && published.listed { Ok(()) } else { self.keep_listed().await }
    }

    /// Takes the prekeys that others were given out of the bundle, which is filled up with new ones. Their private halves
    /// stay: whoever was given one may yet use it.
    pub(crate) async fn replace_issued_prekeys(&self) -> Result<(), ClientError> {
        const WHAT: &str = "the stock of prekeys";
        let (device, offered) = {
            let memory = self.memory.lock().await;
            (memory.cipher.id(), memory.offers.stock)
        };
        if !offered {
            return Ok(());
        }
        let request = extension::stock(device);
        let issued = match self.connection.request(WHAT, &self.own_address(), Kind::Get, request, None).await {
            Ok(answer) => answer.payload.as_ref().and_then(extension::read_issued),
            // Without a bundle there is none to be replaced.
            Err(error) if error.is_not_found() => Some(Vec::new()),
            Err(error) => return Err(error),
        };
        let issued = issued.ok_or(ClientError::Malformed(WHAT))?;
        self.memory.lock().await.cipher.retire_prekeys(&issued)
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
        let (device, offers) = {
            let memory = self.memory.lock().await;
            (memory.cipher.id(), memory.offers)
        };
        let list = if offers.devices { self.add_device(device).await? } else { self.announce(device).await? };
        let ids = list.as_ref().and_then(cipher::read_device_ids).unwrap_or_default();
        let mut memory = self.memory.lock().await;
        memory.state.devices.insert(self.account().clone(), ids);
        memory.state.own_list = list.as_ref().and_then(digest::of_list);
        Ok(())
    }

    /// Adds the device in one request, which changes nothing if it is there. Gives the list in force.
    async fn add_device(&self, device: u32) -> Result<Option<Element>, ClientError> {
        const WHAT: &str = "the addition to the device list";
        let request = extension::add_device(device);
        let answer = self.connection.request(WHAT, &self.own_address(), Kind::Set, request, None).await?;
        let list = answer.payload.as_ref().and_then(extension::read_list).cloned();
        list.map(Some).ok_or(ClientError::Malformed(WHAT))
    }

    /// Publishes the list with this device in it, if it is not there. Gives the list in force.
    async fn announce(&self, device: u32) -> Result<Option<Element>, ClientError> {
        let listed = self.fetch_list(self.account()).await?;
        match cipher::list_with(listed.as_ref(), device)? {
            Some(list) => {
                self.publish(Node::Devices, "current", list.clone()).await?;
                Ok(Some(list))
            }
            None => Ok(listed),
        }
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
