//! Receiving: what arrives is decrypted, saved, and only then told.

use std::sync::Arc;

use tokio::sync::mpsc;
use xmpp_parsers::jid::{BareJid, Jid};
use xmpp_parsers::message::Message;

use crate::cipher::Cipher;
use crate::client::Inner;
use crate::connection::Incoming;
use crate::device_list;
use crate::digest;
use crate::event::{Event, Received, Via};
use crate::extension::{self, Notice};
use crate::history::HandedOut;
use crate::keys::{Addressed, Opened, Sealed, Unreadable};
use crate::memory::{Memory, Outcome};
use crate::protocol::{Protocol, RemoteDevice};
use crate::seen::Seen;
use crate::stanza::{self, Arrival};

/// How many arrivals are handled between two saves at most.
const BATCH: usize = 64;

/// A message with how it came.
pub(crate) struct Delivery {
    pub(crate) message: Message,
    pub(crate) archive_id: Option<String>,
    pub(crate) via: Via,
}

impl Inner {
    /// The receiving task. It waits for nothing but the disk and the caller, never for an answer of the server: what
    /// needs one is left to [`Inner::keep_up`].
    pub(crate) async fn receive(self: Arc<Self>, mut arrivals: mpsc::Receiver<Incoming>) {
        let mut batch = Vec::new();
        let mut streams = 0_u64;
        while arrivals.recv_many(&mut batch, BATCH).await > 0 {
            self.events.room().await;
            let mut memory = self.memory.lock().await;
            let mut outcome = Outcome::default();
            for incoming in batch.drain(..) {
                match incoming {
                    Incoming::Online => {
                        streams = streams.saturating_add(1);
                        // The first stream is prepared before the client is handed out.
                        if streams > 1 {
                            self.upkeep.stream_renewed();
                        }
                    }
                    Incoming::Message(message) => self.arrived(&mut memory, *message, &mut outcome),
                }
            }
            if memory.state.seen.is_filling() {
                self.upkeep.archive_due();
            }
            if let Err(error) = self.conclude(&mut memory, outcome).await {
                tracing::error!(%error, "the state cannot be saved");
                self.events.push([(None, Event::Failed { reason: error.to_string() })]);
                return;
            }
            self.upkeep.look();
        }
    }

    fn arrived(&self, memory: &mut Memory, message: Message, outcome: &mut Outcome) {
        let from = message.from.clone();
        match stanza::sort(message, self.account()) {
            // Only who was written to can say what became of a message.
            Some(Arrival::Archived { id, .. } | Arrival::Refused { id, .. })
                if !self.is_from_recipient(memory, &id, from.as_ref()) => {}
            Some(Arrival::Archived { id, archive_id }) => self.acknowledge(&id, Ok(archive_id)),
            Some(Arrival::Refused { id, refusal }) => self.acknowledge(&id, Err(refusal)),
            Some(Arrival::Message(message, via)) => match crate::directory::read_device_event(&message) {
                Some((protocol, devices)) => {
                    if let (Via::Live, Some(from)) = (via, from) {
                        self.devices_changed(memory, &from, protocol, devices, outcome);
                    }
                }
                None if self.noticed(&memory.cipher, &message, via, from.as_ref()) => {}
                None => {
                    let archive_id = stanza::archive_id(&message, &self.own_address());
                    self.take_in(memory, Delivery { message, archive_id, via }, outcome);
                }
            },
            None => {}
        }
    }

    /// Whether this is a notice to this device from its own directory; if so, what it asks for is noted.
    fn noticed(&self, cipher: &Cipher, message: &Message, via: Via, from: Option<&Jid>) -> bool {
        if via != Via::Live || from != Some(&self.own_address()) {
            return false;
        }
        match extension::read_notice(message, cipher.id()) {
            Some((protocol, _)) if cipher.part(protocol).is_err() => {}
            Some((protocol, Notice::LowStock)) => self.upkeep.low_stock(protocol),
            Some((protocol, Notice::Restored)) => self.upkeep.prekeys_void(protocol),
            // What else is as it should be is looked at as on a new stream.
            Some((_, Notice::Unlisted)) => self.upkeep.stream_renewed(),
            None => return false,
        }
        true
    }

    fn is_from_recipient(&self, memory: &Memory, id: &str, from: Option<&Jid>) -> bool {
        let account = from.and_then(|from| self.settings.door.account_at(from));
        memory.state.outbox.iter().any(|outgoing| outgoing.id == id && Some(&outgoing.peer) == account.as_ref())
    }

    /// An account has published a new device list.
    fn devices_changed(
        &self,
        memory: &mut Memory,
        from: &Jid,
        protocol: Protocol,
        devices: &minidom::Element,
        outcome: &mut Outcome,
    ) {
        // The list speaks for whoever has that address as the door writes it; nobody else can send from there.
        let Some(owner) = self.settings.door.account_at(from) else { return };
        if self.settings.door.address_of(&owner) != from.to_bare() {
            return;
        }
        let digest = digest::of_list(protocol, devices);
        let Some(devices) = device_list::read_ids(protocol, devices) else { return };
        if owner == *self.account() {
            memory.state.lists_mut(protocol).own_digest = digest;
        }
        if owner == *self.account() && !devices.contains(&memory.cipher.id()) && memory.state.is_registered(protocol) {
            self.upkeep.unlisted();
        }
        memory.unreachable.retain(|remote| remote.account != owner || remote.protocol != protocol);
        self.upkeep.handed_out(&owner, HandedOut::List(protocol, Some(devices.clone())));
        let before = memory.state.lists_mut(protocol).devices.insert(owner.clone(), devices.clone());
        if before.as_ref() != Some(&devices) {
            outcome.tell(Event::DeviceListChanged { owner, protocol, devices });
        }
    }

    /// Takes in a message, from wherever it comes: decrypts it if it is for this device and new.
    pub(crate) fn take_in(&self, memory: &mut Memory, delivery: Delivery, outcome: &mut Outcome) {
        let sender = match &delivery.message.from {
            Some(from) => self.settings.door.account_at(from),
            None => Some(self.account().clone()),
        };
        let Some(sender) = sender else { return };
        // One message can be there in both protocols, each for other devices. It is read once, and missed once.
        let mut missed = None;
        for protocol in memory.cipher.protocols() {
            let Some(encrypted) = stanza::encrypted(&delivery.message, protocol) else { continue };
            let remote = |device| RemoteDevice { account: sender.clone(), protocol, device };
            match memory
                .cipher
                .part(protocol)
                .map_err(|error| error.to_string())
                .and_then(|keys| keys.examine(&sender, encrypted))
            {
                Ok(Addressed::Own) => return,
                Ok(Addressed::Here(sealed)) => {
                    return self.unseal(memory, &remote(sealed.device), &sealed, &delivery, outcome);
                }
                Ok(Addressed::Elsewhere { payload: false, .. }) => {}
                Ok(Addressed::Elsewhere { sender, payload: true }) => {
                    missed = missed.or(Some((sender, "it was not encrypted for this device".to_owned())));
                }
                Err(reason) => missed = missed.or(Some((0, reason))),
            }
        }
        if let Some((device, reason)) = missed {
            outcome.tell(undecryptable(&sender, device, &delivery, &reason));
        }
    }

    fn unseal(
        &self,
        memory: &mut Memory,
        remote: &RemoteDevice,
        sealed: &Sealed,
        delivery: &Delivery,
        outcome: &mut Outcome,
    ) {
        let RemoteDevice { account: sender, protocol, device } = remote;
        let digest = Seen::digest(sender.as_str(), *device, &sealed.header);
        if memory.state.seen.contains(&digest) {
            return;
        }
        let opened = match memory.cipher.part_mut(*protocol) {
            Ok(keys) => keys.decrypt(sender, sealed),
            Err(error) => Opened::Not(Unreadable::Other(error.to_string())),
        };
        let body = match opened {
            Opened::Text(body) => Some(body),
            Opened::WithoutText | Opened::Not(Unreadable::Duplicate) => None,
            Opened::Unusable(reason) | Opened::Not(Unreadable::Other(reason)) => {
                outcome.tell(undecryptable(sender, *device, delivery, &reason));
                None
            }
            Opened::Not(Unreadable::NoSession) => {
                self.upkeep.session_missing(remote);
                outcome.tell(undecryptable(sender, *device, delivery, "there is no session with the device"));
                None
            }
        };
        // Remembered even if it gave nothing: it will not give more when it comes again.
        memory.state.seen.insert(digest);
        outcome.changed = true;
        if memory.state.is_unlisted(remote) {
            self.upkeep.list_outdated(sender, *protocol);
        }
        let Some(body) = body else { return };
        let conversation = if sender == self.account() {
            delivery.message.to.as_ref().and_then(|to| self.settings.door.account_at(to))
        } else {
            Some(sender.clone())
        };
        let received = Received {
            from: sender.clone(),
            device: *device,
            protocol: *protocol,
            conversation: conversation.unwrap_or_else(|| sender.clone()),
            body,
            id: delivery.message.id.as_ref().map(|id| id.0.clone()),
            archive_id: delivery.archive_id.clone(),
            via: delivery.via,
        };
        memory.keep(received, outcome);
    }
}

fn undecryptable(from: &BareJid, device: u32, delivery: &Delivery, reason: &str) -> Event {
    Event::Undecryptable {
        from: from.clone(),
        device,
        archive_id: delivery.archive_id.clone(),
        via: delivery.via,
        reason: reason.to_owned(),
    }
}
