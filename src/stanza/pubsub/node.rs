//! The nodes of an owner's directory, by the names that OMEMO gives them (XEP-0384 §5.3; legacy: XEP-0384 0.3 §4).

use crate::model::{DeviceId, Protocol};
use crate::stanza::namespace::{OMEMO_2, OMEMO_LEGACY};

/// A node of an owner's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Node {
    /// The device list of a protocol.
    DeviceList(Protocol),
    /// `urn:xmpp:omemo:2:bundles`: one item per device.
    Bundles,
    /// `eu.siacs.conversations.axolotl.bundles:ID`: one node per device.
    LegacyBundle(DeviceId),
}

const LEGACY_BUNDLE_PREFIX: &str = "eu.siacs.conversations.axolotl.bundles:";

impl Node {
    /// The node of this name, if it is one of OMEMO's.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "urn:xmpp:omemo:2:devices" => Some(Self::DeviceList(Protocol::Omemo2)),
            "urn:xmpp:omemo:2:bundles" => Some(Self::Bundles),
            "eu.siacs.conversations.axolotl.devicelist" => Some(Self::DeviceList(Protocol::Legacy)),
            other => DeviceId::parse(other.strip_prefix(LEGACY_BUNDLE_PREFIX)?).ok().map(Self::LegacyBundle),
        }
    }

    /// Its name.
    pub fn name(self) -> String {
        match self {
            Self::DeviceList(Protocol::Omemo2) => format!("{OMEMO_2}:devices"),
            Self::DeviceList(Protocol::Legacy) => format!("{OMEMO_LEGACY}.devicelist"),
            Self::Bundles => format!("{OMEMO_2}:bundles"),
            Self::LegacyBundle(device) => format!("{LEGACY_BUNDLE_PREFIX}{device}"),
        }
    }

    /// The protocol that it belongs to.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::DeviceList(protocol) => protocol,
            Self::Bundles => Protocol::Omemo2,
            Self::LegacyBundle(_) => Protocol::Legacy,
        }
    }

    /// The namespace of its payloads.
    pub fn payload_namespace(self) -> &'static str {
        match self.protocol() {
            Protocol::Omemo2 => OMEMO_2,
            Protocol::Legacy => OMEMO_LEGACY,
        }
    }

    /// What it holds, for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::DeviceList(_) => "OMEMO devices",
            Self::Bundles | Self::LegacyBundle(_) => "OMEMO bundles",
        }
    }
}
