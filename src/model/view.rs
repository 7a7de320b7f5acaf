//! How an archive shows encrypted messages to a device that cannot read them.

use super::{DeviceId, Protocol};

/// What a device is given of an OMEMO message that has no header for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unreadable {
    /// The whole message, with the headers of others.
    Keep,
    /// The message without the headers of others.
    #[default]
    Trim,
    /// Nothing, where it is certain that the session is this device, and the device stands in its owner's list.
    Omit,
}

impl Unreadable {
    /// All, in a fixed order.
    pub const ALL: [Self; 3] = [Self::Keep, Self::Trim, Self::Omit];

    /// The name in the configuration and in queries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Trim => "trim",
            Self::Omit => "omit",
        }
    }

    /// The choice behind a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|choice| choice.name() == name)
    }
}

/// A device of some owner, in one protocol. Written `omemo2:27183`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProtocolDevice {
    /// In which protocol.
    pub protocol: Protocol,
    /// Its id there.
    pub device: DeviceId,
}

impl ProtocolDevice {
    /// Parses `PROTOCOL:ID`.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, id) = text.split_once(':')?;
        let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.name() == name)?;
        Some(Self { protocol, device: DeviceId::parse(id).ok()? })
    }
}

impl std::fmt::Display for ProtocolDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.protocol.name(), self.device)
    }
}
