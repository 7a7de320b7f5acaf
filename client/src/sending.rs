//! Sending: encrypt, save, send, and send again until the archive has it.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use minidom::Element;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use xmpp_parsers::jid::BareJid;
use xmpp_parsers::message::Message;

use crate::client::{Acknowledgement, Inner};
use crate::error::ClientError;
use crate::memory::Memory;
use crate::protocol::RemoteDevice;
use crate::stanza::{self, Wrapping};
use crate::state::Outgoing;

/// How a message is to be treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SendOptions {
    /// The archive hides the message this long after it came (XEP-0466), in whole seconds, at least one; by default only
    /// the archive's own policy holds.
    pub expire_after: Option<Duration>,
}

/// A message that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The stanza's id.
    pub id: String,
    /// The message's id in the own archive, where the door acknowledges messages.
    pub archive_id: Option<String>,
    /// How many devices can read it.
    pub devices: usize,
}

impl Inner {
    /// See [`crate::Client::send`].
    pub(crate) async fn send(
        self: &Arc<Self>,
        peer: &BareJid,
        body: &str,
        options: SendOptions,
    ) -> Result<Sent, ClientError> {
        let (outgoing, devices) = {
            let _order = self.starting_sessions.lock().await;
            let accounts = if peer == self.account() { vec![peer] } else { vec![peer, self.account()] };
            let devices = self.reachable_devices(&accounts).await?;
            if !devices.iter().any(|remote| remote.account == *peer) {
                return Err(ClientError::NoDevice(peer.clone()));
            }
            let mut memory = self.memory.lock().await;
            let encrypted = memory.cipher.encrypt(body, &devices)?;
            (self.post(&mut memory, peer, encrypted, options.expire_after).await?, devices.len())
        };
        let archive_id = self.deliver(&outgoing).await?;
        Ok(Sent { id: outgoing.id, archive_id, devices })
    }

    /// Sends a message without content, which moves the session with a device.
    pub(crate) async fn send_empty(self: &Arc<Self>, remote: &RemoteDevice) -> Result<(), ClientError> {
        let outgoing = {
            let mut memory = self.memory.lock().await;
            let encrypted = memory.cipher.part_mut(remote.protocol)?.encrypt_empty(&remote.account, remote.device)?;
            self.post(&mut memory, &remote.account, vec![encrypted], None).await?
        };
        self.deliver_in_background(outgoing);
        Ok(())
    }

    /// Puts an encrypted message into the outbox and saves: from here on it is never encrypted again, only sent again.
    async fn post(
        &self,
        memory: &mut Memory,
        peer: &BareJid,
        encrypted: Vec<Element>,
        expire_after: Option<Duration>,
    ) -> Result<Outgoing, ClientError> {
        let id = crate::random::id();
        let wrapping = Wrapping { acknowledge: self.settings.door.acknowledges(), expire_after };
        let stanza = stanza::wrap(&id, &self.settings.door.address_of(peer), encrypted, wrapping);
        let outgoing = Outgoing { id, peer: peer.clone(), stanza: String::from(&stanza) };
        memory.state.outbox.push(outgoing.clone());
        self.save(memory).await?;
        Ok(outgoing)
    }

    /// Sends everything that was not acknowledged before the last restart.
    pub(crate) async fn resend_outbox(self: &Arc<Self>) {
        let outbox = self.memory.lock().await.state.outbox.clone();
        outbox.into_iter().for_each(|outgoing| self.deliver_in_background(outgoing));
    }

    fn deliver_in_background(self: &Arc<Self>, outgoing: Outgoing) {
        let inner = Arc::clone(self);
        let delivery = tokio::spawn(async move {
            if let Err(error) = inner.deliver(&outgoing).await {
                tracing::debug!(%error, "a message in the background was not delivered");
            }
        });
        // Stopped with the client, which they would otherwise keep connected.
        let mut deliveries = self.deliveries.lock().unwrap_or_else(PoisonError::into_inner);
        deliveries.retain(|delivery| !delivery.is_finished());
        deliveries.push(delivery.abort_handle());
    }

    /// Sends a message until it is acknowledged, refused, or too much time has passed.
    async fn deliver(&self, outgoing: &Outgoing) -> Result<Option<String>, ClientError> {
        let stanza: Element = outgoing.stanza.parse().map_err(|_| ClientError::Malformed("a message in the outbox"))?;
        let stanza = Message::try_from(stanza).map_err(|_| ClientError::Malformed("a message in the outbox"))?;
        let patience = self.settings.patience;
        let start = Instant::now();
        let mut pause = Duration::from_millis(100);
        while start.elapsed() < patience.overall {
            self.connection.online().await?;
            let (acknowledge, acknowledged) = oneshot::channel();
            self.waiting().insert(outgoing.id.clone(), acknowledge);
            let sent = self.connection.send(stanza.clone().into()).await?;
            let outcome = match (sent, self.settings.door.acknowledges()) {
                (false, _) => None,
                (true, false) => Some(Ok(None)),
                (true, true) => timeout(patience.answer, acknowledged).await.ok().and_then(Result::ok),
            };
            self.waiting().remove(&outgoing.id);
            match outcome {
                Some(Ok(archive_id)) => {
                    self.delivered(outgoing).await;
                    return Ok(archive_id);
                }
                Some(Err(refusal)) if !refusal.temporary => {
                    self.delivered(outgoing).await;
                    return Err(ClientError::Refused { what: "the message", refusal });
                }
                Some(Err(_)) | None => {
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2).min(patience.answer);
                }
            }
        }
        Err(ClientError::Timeout("the message"))
    }

    /// The message needs no more sending. Saved with whatever is saved next: sending it once more would do no harm.
    async fn delivered(&self, outgoing: &Outgoing) {
        self.memory.lock().await.state.outbox.retain(|other| other.id != outgoing.id);
    }

    /// Tells whoever waits what became of a message.
    pub(crate) fn acknowledge(&self, id: &str, acknowledgement: Acknowledgement) {
        if let Some(waiting) = self.waiting().remove(id) {
            let _ = waiting.send(acknowledgement);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Acknowledgement>>> {
        self.unacknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
