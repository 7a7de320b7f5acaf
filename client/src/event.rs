//! What a client tells its caller.

use serde::{Deserialize, Serialize};
use xmpp_parsers::jid::BareJid;

use crate::history::chain::Deceit;

use crate::protocol::Protocol;

/// How a message came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Via {
    /// Sent to this device while it was online.
    Live,
    /// As a carbon copy (XEP-0280) of what another device of the account received or sent.
    Carbon,
    /// Read from the archive (XEP-0313).
    Archive,
}

/// A decrypted message with a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// The account whose device encrypted it: the peer, or the own account for what another own device sent.
    pub from: BareJid,
    /// The id of that device.
    pub device: u32,
    /// The protocol in which it wrote.
    pub protocol: Protocol,
    /// The other side of the conversation, whichever way the message went.
    pub conversation: BareJid,
    /// The text.
    pub body: String,
    /// The stanza's id as its sender chose it.
    pub id: Option<String>,
    /// The message's id in this account's archive, where it is known.
    pub archive_id: Option<String>,
    /// How it came in.
    pub via: Via,
}

/// Something that the caller should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message. Delivered at least once: again after a crash before the next call for an event.
    Received(Received),
    /// The archive has a message at this place that has expired; this device cannot know whether it was for it.
    Expired {
        /// Its id in the archive.
        archive_id: String,
        /// When it was archived (XEP-0082).
        at: Option<String>,
    },
    /// A message came that this device cannot read.
    Undecryptable {
        /// The account that sent it.
        from: BareJid,
        /// The device that sent it; 0 where the message does not say.
        device: u32,
        /// Its id in this account's archive, where it is known.
        archive_id: Option<String>,
        /// How it came in.
        via: Via,
        /// Why not.
        reason: String,
    },
    /// An account's device list in a protocol is now this.
    DeviceListChanged {
        /// The account.
        owner: BareJid,
        /// The protocol.
        protocol: Protocol,
        /// Its devices, in the list's order.
        devices: Vec<u32>,
    },
    /// What the server hands out does not fit the history of the account's devices, or that history was rewritten: the
    /// user should be warned, and compare fingerprints. A database that was restored from a backup looks like this too;
    /// [`Client::accept_history`](crate::Client::accept_history) begins anew.
    HistoryBroken {
        /// Whose devices.
        owner: BareJid,
        /// What does not fit.
        deceit: Deceit,
    },
    /// A listed device gets no messages from this one in a protocol: it has no usable bundle there.
    DeviceSkipped {
        /// The account.
        owner: BareJid,
        /// The protocol.
        protocol: Protocol,
        /// The device.
        device: u32,
        /// Why.
        reason: String,
    },
    /// The archive does not know the place up to which this device had read; it was read from the beginning.
    ArchiveRestarted,
    /// The state can no longer be kept, so nothing is received any more. The client is of no further use.
    Failed {
        /// Why.
        reason: String,
    },
}
