//! Device lists of others, and sessions with the devices in them.

use std::collections::BTreeSet;

use minidom::Element;
use xmpp_parsers::jid::BareJid;

use crate::client::Inner;
use crate::connection::Kind;
use crate::device_list;
use crate::digest;
use crate::directory::{self, Node};
use crate::error::ClientError;
use crate::event::Event;
use crate::extension;
use crate::history::HandedOut;
use crate::protocol::{Protocol, RemoteDevice};

/// A bundle, or why there is none.
type Given = Result<Element, String>;

impl Inner {
    /// The devices of `accounts` with which there is a session now, this device left out, each in the first of the own
    /// protocols in which it can be reached. Fetches the lists that are not known, and keys of each device without a
    /// session; a device without usable ones is skipped with an event.
    ///
    /// To be called with [`Inner::starting_sessions`] held, right before a message is encrypted (XEP-0384, "Business
    /// Rules": not as soon as a device appears).
    pub(crate) async fn reachable_devices(&self, accounts: &[&BareJid]) -> Result<Vec<RemoteDevice>, ClientError> {
        let mut reachable: Vec<RemoteDevice> = Vec::new();
        // A device has the same number in both protocols.
        let mut reached = BTreeSet::from([(self.account().clone(), self.memory.lock().await.cipher.id())]);
        for protocol in self.settings.protocols.iter() {
            let mut wanted = Vec::new();
            for account in accounts {
                for device in self.devices(account, protocol).await? {
                    if !reached.contains(&((*account).clone(), device)) {
                        wanted.push(RemoteDevice { account: (*account).clone(), protocol, device });
                    }
                }
            }
            self.start_sessions(protocol, &wanted).await?;
            let memory = self.memory.lock().await;
            for remote in wanted.into_iter().filter(|remote| memory.cipher.has_session(remote)) {
                reached.insert((remote.account.clone(), remote.device));
                reachable.push(remote);
            }
        }
        Ok(reachable)
    }

    /// Starts the sessions that there are not yet, as far as that is possible at present: by one claim for all of them
    /// where the service offers that, else bundle by bundle.
    pub(crate) async fn start_sessions(&self, protocol: Protocol, devices: &[RemoteDevice]) -> Result<(), ClientError> {
        let (missing, offers) = {
            let memory = self.memory.lock().await;
            let missing =
                |remote: &&RemoteDevice| !memory.cipher.has_session(remote) && !memory.unreachable.contains(*remote);
            (devices.iter().filter(missing).cloned().collect::<Vec<_>>(), memory.offers)
        };
        let mut rest: &[RemoteDevice] = &missing;
        if offers.claim {
            rest = &[];
            for part in missing.chunks(extension::MAX_CLAIMED) {
                match self.claim(protocol, part).await {
                    Ok(claimed) => {
                        for (remote, given) in claimed {
                            self.start_session(remote, given).await?;
                        }
                    }
                    // Refused as a whole: what concerns a single device is said there.
                    Err(ClientError::Refused { refusal, .. }) => {
                        tracing::debug!(%refusal, "a claim was refused; the bundles are fetched");
                        rest = &missing;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        for remote in rest {
            let given = match self.fetch_bundle(remote).await {
                Ok(bundle) => bundle.ok_or_else(|| "it has no bundle".to_owned()),
                Err(error @ ClientError::Refused { .. }) => Err(error.to_string()),
                Err(error) => return Err(error),
            };
            self.start_session(remote.clone(), given).await?;
        }
        Ok(())
    }

    /// Claims keys of several devices.
    async fn claim(
        &self,
        protocol: Protocol,
        devices: &[RemoteDevice],
    ) -> Result<Vec<(RemoteDevice, Given)>, ClientError> {
        const WHAT: &str = "the claim of keys";
        let mut wanted: Vec<(BareJid, Vec<u32>)> = Vec::new();
        for remote in devices {
            match wanted.iter_mut().find(|(account, _)| *account == remote.account) {
                Some((_, ids)) => ids.push(remote.device),
                None => wanted.push((remote.account.clone(), vec![remote.device])),
            }
        }
        let request = extension::claim(protocol, &wanted);
        let answer = self.connection.request(WHAT, &self.own_address(), Kind::Set, request, None).await?;
        let claimed = answer.payload.as_ref().and_then(|answer| extension::read_claim(protocol, answer));
        let mut claimed = claimed.ok_or(ClientError::Malformed(WHAT))?;
        claimed.retain(|(remote, _)| devices.contains(remote));
        Ok(claimed)
    }

    /// Starts a session with a device from its keys. Without them, or if they are of no use, it is skipped from now on.
    async fn start_session(&self, remote: RemoteDevice, given: Given) -> Result<(), ClientError> {
        let mut memory = self.memory.lock().await;
        // The device may have started one while its keys were on their way.
        if memory.cipher.has_session(&remote) {
            return Ok(());
        }
        if let Some(handed) = given.as_ref().ok().and_then(|bundle| HandedOut::bundle(&remote, bundle)) {
            self.upkeep.handed_out(&remote.account, handed);
        }
        let keys = memory.cipher.part_mut(remote.protocol)?;
        let started = given.and_then(|bundle| keys.start_session(&remote.account, remote.device, &bundle));
        if let Err(reason) = started {
            memory.unreachable.insert(remote.clone());
            let RemoteDevice { account: owner, protocol, device } = remote;
            self.events.push([(None, Event::DeviceSkipped { owner, protocol, device, reason })]);
        }
        Ok(())
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
        if account == self.account() {
            memory.state.lists_mut(protocol).own_digest =
                list.as_ref().and_then(|list| digest::of_list(protocol, list));
        }
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
