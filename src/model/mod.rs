//! The words of the design as types, used by every layer.
//!
//! Values of these types are already checked: a [`Owner`] has been parsed as a bare JID, a [`DeviceId`] lies in the range
//! that OMEMO allows, a [`Bundle`] has keys of the right lengths. Nothing here does I/O, knows XML or SQL, or decides a
//! rule of the directory or the archive.

mod address;
mod bundle;
mod claimant;
mod device;
mod history;
mod key_exchange;
mod message;
mod preferences;
mod relation;
mod setting;
mod timestamp;
mod view;

pub use address::{AddressError, Owner, Requester, SessionJid};
pub use bundle::{Bundle, BundleShapeError, Prekey, PublishedBundle, SignedPrekey};
pub use claimant::Claimant;
pub use device::{Device, DeviceId, DeviceList, IdError, PrekeyId, Protocol};
pub use history::{Hash, HistoryChange, HistoryEntry, HistoryHead};
pub use key_exchange::KeyExchange;
pub use message::{ArchiveId, ArchiveIdError, ArchivedMessage, Class, Copy, Direction, Origin, Retraction, StoredCopy};
pub use preferences::{ArchiveDefault, ArchivePreferences, MAX_PREFERENCE_JIDS, PreferencesError};
pub use relation::Relation;
pub use setting::Setting;
pub use timestamp::{Clock, SystemClock, Timestamp};
pub use view::{ProtocolDevice, Unreadable};
