//! Protocols, device ids and device lists (XEP-0384 §5.3).

use std::fmt;

/// The largest id that XEP-0384 allows for devices and prekeys: 2³¹−1.
const MAX_ID: u32 = 0x7fff_ffff;

/// One of the two OMEMO protocols. A device's data is kept per protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// `eu.siacs.conversations.axolotl`, what most clients speak today.
    Legacy,
    /// `urn:xmpp:omemo:2`.
    Omemo2,
}

impl Protocol {
    /// Both, in a fixed order.
    pub const ALL: [Self; 2] = [Self::Legacy, Self::Omemo2];

    /// The name used in metrics, in the database and in texts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Omemo2 => "omemo2",
        }
    }

    /// The number that stands for the protocol in the database.
    pub fn code(self) -> i16 {
        match self {
            Self::Legacy => 1,
            Self::Omemo2 => 2,
        }
    }

    /// The protocol behind a number from the database.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.code() == code)
    }
}

/// An id outside 1…2³¹−1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id must lie between 1 and 2147483647")]
pub struct IdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u32);

        impl $name {
            /// Takes a number in 1…2³¹−1.
            pub fn new(id: u32) -> Result<Self, IdError> {
                if (1..=MAX_ID).contains(&id) { Ok(Self(id)) } else { Err(IdError) }
            }

            /// Parses decimal digits; no sign, no spaces.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                if text.is_empty() || text.len() > 10 || !text.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(IdError);
                }
                text.parse().map_err(|_| IdError).and_then(Self::new)
            }

            /// The number.
            pub fn get(self) -> u32 {
                self.0
            }

            /// The number as the database keeps it: the range fits a signed 32-bit integer.
            pub fn to_sql(self) -> i32 {
                i32::try_from(self.0).unwrap_or(i32::MAX)
            }

            /// The id behind a number from the database.
            pub fn from_sql(id: i32) -> Result<Self, IdError> {
                u32::try_from(id).map_err(|_| IdError).and_then(Self::new)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

id!(
    /// The id of a device (`sid` of what it sends, `rid` of a header made for it), unique within one owner and protocol.
    DeviceId
);
id!(
    /// The id of a one-time prekey within one device.
    PrekeyId
);

/// One device as its owner's list names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// `omemo2` only: the name that the user gave it.
    pub label: Option<String>,
    /// `omemo2` only: the signature over the label, as published.
    pub label_signature: Option<String>,
}

impl Device {
    /// A device without a label.
    pub fn unlabelled(id: DeviceId) -> Self {
        Self { id, label: None, label_signature: None }
    }
}

/// An owner's devices in one protocol, in the order published; no id twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceList {
    devices: Vec<Device>,
}

impl DeviceList {
    /// Takes devices; `Err` carries an id that stands twice.
    pub fn new(devices: Vec<Device>) -> Result<Self, DeviceId> {
        let mut seen = std::collections::BTreeSet::new();
        match devices.iter().find(|device| !seen.insert(device.id)) {
            Some(twice) => Err(twice.id),
            None => Ok(Self { devices }),
        }
    }

    /// The devices in order.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The ids in order.
    pub fn ids(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.devices.iter().map(|device| device.id)
    }

    /// Whether the list names a device.
    pub fn contains(&self, id: DeviceId) -> bool {
        self.devices.iter().any(|device| device.id == id)
    }
}
