//! Device lists of others, and sessions with the devices in them.

use minidom::Element;
use xmpp_parsers::jid::BareJid;

use crate::cipher;
use crate::client::Inner;
use crate::connection::Kind;
use crate::digest;
use crate::directory::{self, Node};
use crate::error::ClientError;
use crate::event::Event;
use crate::extension;

/// A bundle, or why there is none.
type Keys = Result<Element, String>;

impl Inner {
    /// The devices of `accounts` with which there is a session now, this device left out. Fetches lists that are not known,
    /// and keys of each device without a session; a device without usable ones is skipped with an event.
    ///
    /// To be called with [`Inner::starting_sessions`] held, right before a message is encrypted (XEP-0384, "Business
    /// Rules": not as soon as a device appears).
    pub(crate) async fn reachable_devices(&self, accounts: &[&BareJid]) -> Result<Vec<(BareJid, u32)>, ClientError> {
        let mut devices = Vec::new();
        for account in accounts {
            for device in self.devices(account).await? {
                devices.push(((*account).clone(), device));
            }
        }
        let missing: Vec<_> = {
            let memory = self.memory.lock().await;
            let own = memory.cipher.id();
            devices.retain(|(account, device)| account != self.account() || *device != own);
            devices.iter().filter(|(account, device)| !memory.cipher.has_session(account, *device)).cloned().collect()
        };
        self.start_sessions(&missing).await?;
        let memory = self.memory.lock().await;
        devices.retain(|(account, device)| memory.cipher.has_session(account, *device));
        Ok(devices)
    }

    /// Starts sessions with devices, as far as that is possible at present: by one claim for all of them where the service
    /// offers that, else bundle by bundle.
    pub(crate) async fn start_sessions(&self, missing: &[(BareJid, u32)]) -> Result<(), ClientError> {
        let (missing, offers) = {
            let memory = self.memory.lock().await;
            let missing = missing.iter().filter(|device| !memory.unreachable.contains(device));
            (missing.cloned().collect::<Vec<_>>(), memory.offers)
        };
        let mut rest = missing.as_slice();
        if offers.claim {
            rest = &[];
            for part in missing.chunks(extension::MAX_CLAIMED) {
                match self.claim(part).await {
                    Ok(claimed) => {
                        for (account, device, bundle) in claimed {
                            self.start_session(&account, device, bundle).await;
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
        for (account, device) in rest {
            let bundle = match self.fetch_bundle(account, *device).await {
                Ok(bundle) => bundle.ok_or_else(|| "it has no bundle".to_owned()),
                Err(error @ ClientError::Refused { .. }) => Err(error.to_string()),
                Err(error) => return Err(error),
            };
            self.start_session(account, *device, bundle).await;
        }
        Ok(())
    }

    /// Claims keys of several devices, in the order of their accounts.
    async fn claim(&self, devices: &[(BareJid, u32)]) -> Result<Vec<(BareJid, u32, Keys)>, ClientError> {
        const WHAT: &str = "the claim of keys";
        let mut wanted: Vec<(BareJid, Vec<u32>)> = Vec::new();
        for (account, device) in devices {
            match wanted.iter_mut().find(|(jid, _)| jid == account) {
                Some((_, ids)) => ids.push(*device),
                None => wanted.push((account.clone(), vec![*device])),
            }
        }
        let answer =
            self.connection.request(WHAT, &self.own_address(), Kind::Set, extension::claim(&wanted), None).await?;
        let claimed = answer.payload.as_ref().and_then(extension::read_claim);
        let mut claimed = claimed.ok_or(ClientError::Malformed(WHAT))?;
        claimed.retain(|(account, device, _)| devices.contains(&(account.clone(), *device)));
        Ok(claimed)
    }

    /// Starts a session with a device from its keys. Without them, or if they are of no use, it is skipped from now on.
    async fn start_session(&self, account: &BareJid, device: u32, keys: Keys) {
        let mut memory = self.memory.lock().await;
        // The device may have started one while its keys were on their way.
        if memory.cipher.has_session(account, device) {
            return;
        }
        let started = keys.and_then(|bundle| memory.cipher.start_session(account, device, &bundle));
        if let Err(reason) = started {
            memory.unreachable.insert((account.clone(), device));
            self.events.push([(None, Event::DeviceSkipped { owner: account.clone(), device, reason })]);
        }
    }

    /// The device ids of `account`, from memory if they are there. Subscribes to changes at the first look.
    async fn devices(&self, account: &BareJid) -> Result<Vec<u32>, ClientError> {
        if let Some(devices) = self.memory.lock().await.state.devices.get(account) {
            return Ok(devices.clone());
        }
        // Subscribed first: a change between the two is announced.
        let subscribed = self.memory.lock().await.state.subscribed.contains(account);
        if !subscribed && let Err(error) = self.subscribe_to(account.clone()).await {
            match error {
                ClientError::Refused { .. } => tracing::debug!(%error, "could not subscribe to a device list"),
                error => return Err(error),
            }
        }
        self.refresh_devices(account).await
    }

    /// Fetches the device ids of `account` anew.
    pub(crate) async fn refresh_devices(&self, account: &BareJid) -> Result<Vec<u32>, ClientError> {
        let list = self.fetch_list(account).await?;
        let devices = list.as_ref().and_then(cipher::read_device_ids).unwrap_or_default();
        let mut memory = self.memory.lock().await;
        if account == self.account() {
            memory.state.own_list = list.as_ref().and_then(digest::of_list);
        }
        memory.state.devices.insert(account.clone(), devices.clone());
        Ok(devices)
    }

    /// Subscribes to the device list of an account. Asking again changes nothing.
    pub(crate) async fn subscribe_to(&self, account: BareJid) -> Result<(), ClientError> {
        let address = self.settings.door.address_of(&account);
        let subscription = directory::subscribe_to_devices(self.account());
        match self
            .connection
            .request("the subscription to a device list", &address, Kind::Set, subscription, None)
            .await
        {
            // Nothing is published yet; the subscription is tried again with the next stream.
            Err(error) if error.is_not_found() => return Ok(()),
            outcome => drop(outcome?),
        }
        self.memory.lock().await.state.subscribed.insert(account);
        Ok(())
    }

    /// The `<devices/>` of an account; `None` if nothing is published.
    pub(crate) async fn fetch_list(&self, account: &BareJid) -> Result<Option<Element>, ClientError> {
        self.fetch("the device list", account, Node::Devices, None).await
    }

    /// The `<bundle/>` of a device; `None` if nothing is published.
    async fn fetch_bundle(&self, account: &BareJid, device: u32) -> Result<Option<Element>, ClientError> {
        self.fetch("the bundle", account, Node::Bundles, Some(&device.to_string())).await
    }

    async fn fetch(
        &self,
        what: &'static str,
        account: &BareJid,
        node: Node,
        item: Option<&str>,
    ) -> Result<Option<Element>, ClientError> {
        let address = self.settings.door.address_of(account);
        let answer =
            match self.connection.request(what, &address, Kind::Get, directory::request(node, item), None).await {
                Err(error) if error.is_not_found() => return Ok(None),
                outcome => outcome?.payload.ok_or(ClientError::Malformed(what))?,
            };
        directory::read_item(&answer, node, item).map(Option::<&_>::cloned).map_err(|()| ClientError::Malformed(what))
    }
}
