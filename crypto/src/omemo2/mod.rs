//! OMEMO 2: `urn:xmpp:omemo:2` (XEP-0384, version 0.9).
//!
//! [`Device`] is what a client uses; everything else here is what goes in and out of it. One device holds one identity,
//! its prekeys, and the sessions with the devices of others (and with its own account's other devices).
//!
//! # Rules that a client has to keep
//!
//! - **Save before send.** After [`Device::encrypt`], save the state before the message leaves; else a crash makes the
//!   device use the same keys for another message. [`Keeper`] does this in the right order.
//! - **Keep before save.** After [`Device::decrypt`], keep the plaintext before (or together with) the state; else a
//!   crash in between loses the message, whose key is gone. [`Keeper`] does this as well.
//! - **Trust first.** Having a session says nothing about who is at the other end: compare
//!   [`Device::identity_of`] with what the user trusts before encrypting content (XEP-0384, "Security Considerations").
//! - **Answer.** While [`Device::replies_due`] names devices, send each an empty message ([`Device::encrypt_empty`]).
//! - **Republish.** When [`Device::bundle_changed`] says so, [`Device::replenish`] and publish [`Device::bundle`] again.
//!
//! # Example
//!
//! ```
//! use multiend_crypto::{omemo2::{Address, Bundle, Device, DeviceId, EncryptedMessage}, sce::Envelope};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let now = 1_800_000_000;
//! let mut romeo = Device::generate("romeo@montague.lit", DeviceId::random()?, now)?;
//! let mut juliet = Device::generate("juliet@capulet.lit", DeviceId::random()?, now)?;
//!
//! // Juliet publishes her bundle, Romeo fetches it and writes to her.
//! let published = juliet.bundle().to_xml();
//! let to_juliet = Address::of_device("juliet@capulet.lit", juliet.id())?;
//! romeo.start_session(&to_juliet, &Bundle::from_xml(&published)?)?;
//! let envelope = Envelope::with_body("Wherefore?").from_jid("romeo@montague.lit").to_xml()?;
//! let sent = romeo.encrypt(envelope.as_bytes(), &[to_juliet])?.to_xml();
//!
//! // The server delivers `sent` inside a message from Romeo's account.
//! let decrypted = juliet.decrypt("romeo@montague.lit", &EncryptedMessage::from_xml(&sent)?)?;
//! let envelope = Envelope::from_xml(&decrypted.plaintext.ok_or("an empty message")?)?;
//! envelope.check("romeo@montague.lit", "juliet@capulet.lit", false)?;
//! assert_eq!(envelope.body().as_deref(), Some("Wherefore?"));
//!
//! // Juliet answers, so that Romeo's device knows that the session stands.
//! for device in juliet.replies_due() {
//!     let empty = juliet.encrypt_empty(&device)?;
//!     romeo.decrypt("juliet@capulet.lit", &empty)?;
//! }
//! # Ok(())
//! # }
//! ```

mod bundle;
mod device_list;
mod message;
mod payload;
mod protocol;
mod wire;

use crate::generation::Omemo2;
pub use crate::{
    address::{Address, AddressError, DeviceId, InvalidId, KeyId, MAX_ID, MAX_JID_LENGTH},
    bundle::{BundleError, MAX_BUNDLE_LENGTH, MAX_PREKEYS, Prekey, SignedPrekey},
    device::{MAX_HANDED_OUT, PREKEY_TARGET, SIGNED_PREKEY_PERIOD, STATE_VERSION},
    error::{DecryptError, EncryptError, GenerateError, SessionError, StateError},
    keeper::{KeeperError, Store},
    message::{MAX_HEADER_LENGTH, MAX_HEADERS, MAX_MESSAGE_LENGTH, MAX_PLAINTEXT_LENGTH, MessageHeader},
    wire::WireError,
};
pub use device_list::{DeviceList, ListedDevice, MAX_DEVICES, MAX_LABEL_LENGTH};
pub use message::{EncryptedMessage, RecipientHeaders};

/// A device that speaks OMEMO 2.
pub type Device = crate::device::Device<Omemo2>;

/// A message that a [`Device`] decrypted.
pub type Decrypted = crate::device::Decrypted<Omemo2>;

/// The bundle of a [`Device`].
pub type Bundle = crate::bundle::Bundle<Omemo2>;

/// A [`Device`] together with the place where it is kept.
pub type Keeper<S> = crate::keeper::Keeper<S, Omemo2>;

/// The XML namespace of everything here.
pub const NAMESPACE: &str = "urn:xmpp:omemo:2";

/// The PEP node of the device list (XEP-0384, "Device list").
pub const DEVICES_NODE: &str = "urn:xmpp:omemo:2:devices";

/// The PEP node of the bundles, one item per device (XEP-0384, "Bundles").
pub const BUNDLES_NODE: &str = "urn:xmpp:omemo:2:bundles";
