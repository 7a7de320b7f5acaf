//! Device lists of others, and sessions with the devices in them.

use minidom::Element;
use xmpp_parsers::jid::BareJid;

use crate::cipher;
use crate::client::Inner;
use crate::connection::Kind;
use crate::directory::{self, Node};
use crate::error::ClientError;
use crate::event::Event;

impl Inner {
    /// The devices of `account` with which there is a session now, this device left out. Fetches the list if it is not
    /// known, and a bundle for each device without a session; a device without a usable one is skipped with an event.
    ///
    /// To be called with [`Inner::starting_sessions`] held, right before a message is encrypted (XEP-0384, "Business
    /// Rules": not as soon as a device appears).
    pub(crate) async fn reachable_devices(&self, account: &BareJid) -> Result<Vec<(BareJid, u32)>, ClientError> {
        let devices = self.devices(account).await?;
        let mut reachable = Vec::new();
        for device in devices {
            let address = (account.clone(), device);
            let missing = {
                let memory = self.memory.lock().await;
                if account == self.account() && device == memory.cipher.id() {
                    continue;
                }
                !memory.cipher.has_session(account, device)
            };
            if missing && !self.start_session(account, device).await? {
                continue;
            }
            reachable.push(address);
        }
        Ok(reachable)
    }

    /// Starts a session with a device; `false` if that is not possible at present.
    pub(crate) async fn start_session(&self, account: &BareJid, device: u32) -> Result<bool, ClientError> {
        if self.memory.lock().await.unreachable.contains(&(account.clone(), device)) {
            return Ok(false);
        }
        let problem = match self.fetch_bundle(account, device).await {
            Ok(Some(bundle)) => {
                let mut memory = self.memory.lock().await;
                // The device may have started one while the bundle was on its way.
                if memory.cipher.has_session(account, device) {
                    return Ok(true);
                }
                match memory.cipher.start_session(account, device, &bundle) {
                    Ok(()) => return Ok(true),
                    Err(problem) => problem,
                }
            }
            Ok(None) => "it has no bundle".to_owned(),
            Err(error @ ClientError::Refused { .. }) => error.to_string(),
            Err(error) => return Err(error),
        };
        self.memory.lock().await.unreachable.insert((account.clone(), device));
        self.events.push([(None, Event::DeviceSkipped { owner: account.clone(), device, reason: problem })]);
        Ok(false)
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
