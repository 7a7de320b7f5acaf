//! The two protocols of OMEMO, as far as a client has to tell them apart: by names of nodes and items.
//!
//! What they do differently with keys and texts is [`crate::keys`]'s part.

use serde::{Deserialize, Serialize};
use xmpp_parsers::jid::BareJid;

use crate::xml::ns;

/// One of the two protocols. Bundles, device lists and sessions are each protocol's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// OMEMO 2, `urn:xmpp:omemo:2`.
    Omemo2,
    /// Legacy OMEMO, `eu.siacs.conversations.axolotl`, which most clients still speak.
    Legacy,
}

impl Protocol {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Omemo2, Self::Legacy];

    /// The namespace of its elements.
    pub fn namespace(self) -> &'static str {
        match self {
            Self::Omemo2 => ns::OMEMO2,
            Self::Legacy => ns::LEGACY,
        }
    }

    /// The node of an account's device list.
    pub(crate) fn devices_node(self) -> &'static str {
        match self {
            Self::Omemo2 => ns::OMEMO2_DEVICES,
            Self::Legacy => ns::LEGACY_DEVICES,
        }
    }
}

/// In which protocols a device writes, and which one it prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocols {
    preferred: Protocol,
    other: Option<Protocol>,
}

impl Protocols {
    /// One protocol and not the other.
    pub const fn only(protocol: Protocol) -> Self {
        Self { preferred: protocol, other: None }
    }

    /// Both. A device that reads both is written to in this one.
    pub const fn both(preferred: Protocol) -> Self {
        let other = match preferred {
            Protocol::Omemo2 => Protocol::Legacy,
            Protocol::Legacy => Protocol::Omemo2,
        };
        Self { preferred, other: Some(other) }
    }

    /// The preferred one.
    pub const fn preferred(self) -> Protocol {
        self.preferred
    }

    /// The preferred one first.
    pub fn iter(self) -> impl Iterator<Item = Protocol> {
        [Some(self.preferred), self.other].into_iter().flatten()
    }
}

impl Default for Protocols {
    /// OMEMO 2 only.
    fn default() -> Self {
        Self::only(Protocol::Omemo2)
    }
}

/// Another device, as it is reached in one protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RemoteDevice {
    pub(crate) account: BareJid,
    pub(crate) protocol: Protocol,
    pub(crate) device: u32,
}
