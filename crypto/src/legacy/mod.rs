//! Legacy OMEMO: `eu.siacs.conversations.axolotl` (XEP-0384, version 0.3.0), which most clients still speak.
//!
//! The XEP leaves key agreement, ratchet and wire format to libsignal's protocol version 3, as of 2016. Everything is
//! used as in [`omemo2`](crate::omemo2), whose rules for clients hold here too, with two differences:
//!
//! - What is encrypted is the text of the message alone. Nothing in it says who meant it for whom; the session does.
//! - Headers name devices by number only.
//!
//! # Example
//!
//! ```
//! use multiend_crypto::legacy::{Address, Bundle, Device, DeviceId, EncryptedMessage};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let now = 1_800_000_000;
//! let mut romeo = Device::generate("romeo@montague.lit", DeviceId::random()?, now)?;
//! let mut juliet = Device::generate("juliet@capulet.lit", DeviceId::random()?, now)?;
//!
//! let published = juliet.bundle().to_xml();
//! let to_juliet = Address::of_device("juliet@capulet.lit", juliet.id())?;
//! romeo.start_session(&to_juliet, &Bundle::from_xml(&published)?)?;
//! let sent = romeo.encrypt("Wherefore?".as_bytes(), &[to_juliet])?.to_xml();
//!
//! let decrypted = juliet.decrypt("romeo@montague.lit", &EncryptedMessage::from_xml(&sent)?)?;
//! assert_eq!(decrypted.plaintext.ok_or("an empty message")?.as_slice(), b"Wherefore?");
//! # Ok(())
//! # }
//! ```

mod bundle;
mod device_list;
mod identity;
mod message;
mod payload;
mod protocol;
mod wire;

use crate::generation::Legacy;
pub use crate::{
    address::{Address, AddressError, DeviceId, InvalidId, KeyId, MAX_ID, MAX_JID_LENGTH},
    bundle::{BundleError, MAX_BUNDLE_LENGTH, MAX_PREKEYS, Prekey, SignedPrekey},
    device::{MAX_HANDED_OUT, PREKEY_TARGET, SIGNED_PREKEY_PERIOD, STATE_VERSION},
    error::{DecryptError, EncryptError, GenerateError, SessionError, StateError},
    keeper::{KeeperError, Store},
    message::{MAX_HEADER_LENGTH, MAX_HEADERS, MAX_MESSAGE_LENGTH, MAX_PLAINTEXT_LENGTH, MessageHeader},
    wire::WireError,
};
pub use device_list::{DeviceList, MAX_DEVICES};
pub use identity::IdentityKey;
pub use message::EncryptedMessage;

/// A device that speaks legacy OMEMO.
pub type Device = crate::device::Device<Legacy>;

/// A message that a [`Device`] decrypted.
pub type Decrypted = crate::device::Decrypted<Legacy>;

/// The bundle of a [`Device`].
pub type Bundle = crate::bundle::Bundle<Legacy>;

/// A [`Device`] together with the place where it is kept.
pub type Keeper<S> = crate::keeper::Keeper<S, Legacy>;

/// The XML namespace of everything here.
pub const NAMESPACE: &str = "eu.siacs.conversations.axolotl";

/// The PEP node of the device list (XEP-0384 0.3.0, section 4.2).
pub const DEVICES_NODE: &str = "eu.siacs.conversations.axolotl.devicelist";

/// What the PEP node of a bundle begins with; the number of the device follows (XEP-0384 0.3.0, section 4.3).
pub const BUNDLES_NODE_PREFIX: &str = "eu.siacs.conversations.axolotl.bundles:";
