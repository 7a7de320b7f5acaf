//! Device lists of others, and sessions with the devices in them.

use std::collections::BTreeSet;

use minidom::Element;
use xmpp_parsers::jid::BareJid;

use crate::client::Inner;
use crate::connection::Kind;
use crate::device_list;
use crate::directory::{self, Node};
use crate::error::ClientError;
use crate::event::Event;
use crate::history::HandedOut;
use crate::protocol::{Protocol, RemoteDevice};

impl Inner {
    /// The devices of `account` with which there is a session now, this device left out, each in the first of the own
    /// protocols in which it can be reached. Fetches the lists that are not known, and a bundle for each device without a
    /// session; a device without a usable one is skipped with an event.
    ///
    /// To be called with [`Inner::starting_sessions`] held, right before a message is encrypted (XEP-0384, "Business
    /// Rules": not as soon as a device appears).
    pub(crate) async fn reachable_devices(&self, account: &BareJid) -> Result<Vec<RemoteDevice>, ClientError> {
        let mut reachable = Vec::new();
        // A device has the same number in both protocols.
        let mut reached = BTreeSet::new();
        if account == self.account() {
            reached.insert(self.memory.lock().await.cipher.id());
        }
        for protocol in self.settings.protocols.iter() {
            for device in self.devices(account, protocol).await? {
                let remote = RemoteDevice { account: account.clone(), protocol, device };
                if reached.contains(&device) {
                    continue;
                }
                let has_session = self.memory.lock().await.cipher.has_session(&remote);
                if has_session || self.start_session(&remote).await? {
                    reached.insert(device);
                    reachable.push(remote);
                }
            }
        }
        Ok(reachable)
    }

    /// Starts a session with a device; `false` if that is not possible at present.
    pub(crate) async fn start_session(&self, remote: &RemoteDevice) -> Result<bool, ClientError> {
        if self.memory.lock().await.unreachable.contains(remote) {
            return Ok(false);
        }
        let problem = match self.fetch_bundle(remote).await {
            Ok(Some(bundle)) => {
                if let Some(handed) = HandedOut::bundle(remote, &bundle) {
                    self.upkeep.handed_out(&remote.account, handed);
                }
                let mut memory = self.memory.lock().await;
                // The device may have started one while the bundle was on its way.
                if memory.cipher.has_session(remote) {
                    return Ok(true);
                }
                match memory.cipher.part_mut(remote.protocol)?.start_session(&remote.account, remote.device, &bundle) {
                    Ok(()) => return Ok(true),
                    Err(problem) => problem,
                }
            }
            Ok(None) => "it has no bundle".to_owned(),
            Err(error @ ClientError::Refused { .. }) => error.to_string(),
            Err(error) => return Err(error),
        };
        self.memory.lock().await.unreachable.insert(remote.clone());
        let RemoteDevice { account: owner, protocol, device } = remote.clone();
        self.events.push([(None, Event::DeviceSkipped { owner, protocol, device, reason: problem })]);
        Ok(false)
    }

    /// The device ids of `account`, from memory if they are there. Subscribes to changes at the first look.
    async fn devices(&self, account: &BareJid, protocol: Protocol) -> Result<Vec<u32>, ClientError> {
        let subscribed = {
            let mut memory = self.memory.lock().await;
            if let Some(devices) = memory.state.devices(protocol, account) {
                return Ok(devices.clone());
            }
            memory.state.lists_mut(protocol).subscribed.contains(account)
        };
        // Subscribed first: a change between the two is announced.
        if !subscribed && let Err(error) = self.subscribe_to(account.clone(), protocol).await {
            match error {
                ClientError::Refused { .. } => tracing::debug!(%error, "could not subscribe to a device list"),
                error => return Err(error),
            }
        }
        self.refresh_devices(account, protocol).await
    }

    /// Fetches the device ids of `account` anew.
    pub(crate) async fn refresh_devices(&self, account: &BareJid, protocol: Protocol) -> Result<Vec<u32>, ClientError> {
        let list = self.fetch_list(account, protocol).await?;
        let devices = list.as_ref().and_then(|list| device_list::read_ids(protocol, list));
        self.upkeep.handed_out(account, HandedOut::List(protocol, devices.clone()));
        let devices = devices.unwrap_or_default();
        let mut memory = self.memory.lock().await;
        memory.state.lists_mut(protocol).devices.insert(account.clone(), devices.clone());
        Ok(devices)
    }

    /// Subscribes to the device list of an account. Asking again changes nothing.
    pub(crate) async fn subscribe_to(&self, account: BareJid, protocol: Protocol) -> Result<(), ClientError> {
        let address = self.settings.door.address_of(&account);
        let subscription = directory::subscribe_to_devices(protocol, self.account());
        match self
            .connection
            .request("the subscription to a device list", &address, Kind::Set, subscription, None)
            .await
        {
            // Nothing is published yet; the subscription is tried again with the next stream.
            Err(error) if error.is_not_found() => return Ok(()),
            outcome => drop(outcome?),
        }
        self.memory.lock().await.state.lists_mut(protocol).subscribed.insert(account);
        Ok(())
    }

    /// The device list of an account, as it is published; `None` if nothing is.
    pub(crate) async fn fetch_list(
        &self,
        account: &BareJid,
        protocol: Protocol,
    ) -> Result<Option<Element>, ClientError> {
        self.fetch("the device list", account, Node::Devices(protocol)).await
    }

    /// The `<bundle/>` of a device; `None` if nothing is published.
    pub(crate) async fn fetch_bundle(&self, remote: &RemoteDevice) -> Result<Option<Element>, ClientError> {
        self.fetch("the bundle", &remote.account, Node::Bundle(remote.protocol, remote.device)).await
    }

    async fn fetch(&self, what: &'static str, account: &BareJid, node: Node) -> Result<Option<Element>, ClientError> {
        let address = self.settings.door.address_of(account);
        let answer = match self.connection.request(what, &address, Kind::Get, directory::request(node), None).await {
            Err(error) if error.is_not_found() => return Ok(None),
            outcome => outcome?.payload.ok_or(ClientError::Malformed(what))?,
        };
        directory::read_item(&answer, node).map(Option::<&_>::cloned).map_err(|()| ClientError::Malformed(what))
    }
}
