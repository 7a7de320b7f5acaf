//! One device of one account: its keys, its sessions, and the rules of the XEP about both.

mod decrypt;
mod encrypt;
mod peer;
mod prekeys;
mod session;
mod sessions;

pub use decrypt::Decrypted;
pub use prekeys::{MAX_HANDED_OUT, PREKEY_TARGET, SIGNED_PREKEY_PERIOD};

use std::io;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::{
    peer::Peers,
    prekeys::{OneTimePrekeys, SignedPrekeys},
};
use crate::{
    address::{Address, DeviceId, KeyId, check_jid},
    bundle::Bundle,
    error::{GenerateError, StateError},
    generation::Omemo2,
    identity::{IdentityKeyPair, SIGNATURE_LENGTH},
    protocol::Protocol,
    random::RandomError,
};

/// The version of what [`Device::to_state`] gives.
pub const STATE_VERSION: u32 = 1;

/// A device of an account. See [`omemo2`](crate::omemo2) for the rules that its user has to keep in both protocols.
///
/// It is not `Clone`, since two copies would use the same keys for different messages.
#[derive(Debug)]
pub struct Device<P: Protocol>(State<P>);

/// All that a device has to remember, in the form in which it is saved: JSON, keys in base64, ids as numbers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
struct State<P: Protocol> {
    version: u32,
    /// States from before there were two protocols lack it.
    #[serde(default = "first_protocol")]
    protocol: String,
    owner: String,
    id: DeviceId,
    identity: IdentityKeyPair,
    signed_prekeys: SignedPrekeys,
    prekeys: OneTimePrekeys,
    peers: Peers<P>,
    catching_up: bool,
    bundle_changed: bool,
}

/// What has to be known of a state before the rest of it can be read.
#[derive(Deserialize)]
struct Kind {
    version: u32,
    #[serde(default = "first_protocol")]
    protocol: String,
}

fn first_protocol() -> String {
    Omemo2::NAME.to_owned()
}

/// Counts what is written to it and keeps nothing.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Life of a device: making, saving, restoring.
impl<P: Protocol> Device<P> {
    /// Makes a device with a new identity and a full set of prekeys.
    ///
    /// `owner` is the account's bare JID, `id` a [`DeviceId::random`] that is not in the account's device list yet,
    /// `now` the time in seconds since 1970.
    ///
    /// # Errors
    /// [`GenerateError`] when the owner is not a bare JID or there is no randomness.
    pub fn generate(owner: &str, id: DeviceId, now: u64) -> Result<Self, GenerateError> {
        Self::with_identity(owner, id, IdentityKeyPair::generate()?, now)
    }

    /// This device in the other protocol: the same owner, number and identity, and so the same fingerprint, but prekeys
    /// and sessions of its own. A client that speaks both protocols makes one of the two from the other.
    ///
    /// # Errors
    /// [`GenerateError`] when there is no randomness.
    pub fn sibling<Q: Protocol>(&self, now: u64) -> Result<Device<Q>, GenerateError> {
        Device::with_identity(&self.0.owner, self.0.id, self.0.identity.clone(), now)
    }

    fn with_identity(owner: &str, id: DeviceId, identity: IdentityKeyPair, now: u64) -> Result<Self, GenerateError> {
        check_jid(owner)?;
        Ok(Self(State {
            version: STATE_VERSION,
            protocol: P::NAME.to_owned(),
            owner: owner.to_owned(),
            id,
            identity,
            signed_prekeys: SignedPrekeys::generate(now)?,
            prekeys: OneTimePrekeys::generate()?,
            peers: Peers::new(),
            catching_up: false,
            bundle_changed: true,
        }))
    }

    /// The whole device as JSON, to be saved where nobody else can read it.
    ///
    /// # Errors
    /// [`StateError::Malformed`], which does not happen for a device that was made or restored here.
    pub fn to_state(&self) -> Result<Zeroizing<Vec<u8>>, StateError> {
        let malformed = |error: serde_json::Error| StateError::Malformed(error.to_string());
        // Measured first: a vector that grows leaves copies of secrets behind in freed memory.
        let mut length = Length(0);
        serde_json::to_writer(&mut length, &self.0).map_err(malformed)?;
        let mut state = Zeroizing::new(Vec::with_capacity(length.0));
        serde_json::to_writer(&mut *state, &self.0).map_err(malformed)?;
        Ok(state)
    }

    /// The device that [`Device::to_state`] gave this for.
    ///
    /// Never restore a state that is older than the last message sent with it: the device would use keys twice. After a
    /// restore from backup make a new device, or at least [`Device::forget`] all sessions and
    /// [`Device::replace_prekeys`].
    ///
    /// # Errors
    /// [`StateError`].
    pub fn from_state(state: &[u8]) -> Result<Self, StateError> {
        let malformed = |error: serde_json::Error| StateError::Malformed(error.to_string());
        let Kind { version, protocol } = serde_json::from_slice(state).map_err(malformed)?;
        if version != STATE_VERSION {
            return Err(StateError::Version(version));
        }
        if protocol != P::NAME {
            return Err(StateError::Protocol(protocol));
        }
        let state: State<P> = serde_json::from_slice(state).map_err(malformed)?;
        check_jid(&state.owner).map_err(|error| StateError::Malformed(error.to_string()))?;
        Ok(Self(state))
    }

    /// The bare JID of the account.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.0.owner
    }

    /// The number of this device in its account.
    #[must_use]
    pub const fn id(&self) -> DeviceId {
        self.0.id
    }

    /// The public identity of this device; its fingerprint is what users compare.
    #[must_use]
    pub fn identity(&self) -> P::Identity {
        P::identity_of(&self.0.identity)
    }
}

impl Device<Omemo2> {
    /// The signature that goes with this device's label in the device list.
    #[must_use]
    pub fn sign_label(&self, label: &str) -> [u8; SIGNATURE_LENGTH] {
        self.0.identity.sign(label.as_bytes())
    }
}

/// The bundle and the prekeys in it.
impl<P: Protocol> Device<P> {
    /// The bundle to publish: all prekeys that nobody has used, as far as this device knows.
    #[must_use]
    pub fn bundle(&self) -> Bundle<P> {
        Bundle {
            identity: self.identity(),
            signed_prekey: self.0.signed_prekeys.published::<P>(&self.0.identity),
            prekeys: self.0.prekeys.published(),
        }
    }

    /// Whether the bundle differs from the one last published.
    #[must_use]
    pub const fn bundle_changed(&self) -> bool {
        self.0.bundle_changed
    }

    /// To be called when the server has accepted the [`Device::bundle`] of right now.
    pub const fn bundle_published(&mut self) {
        self.0.bundle_changed = false;
    }

    /// To be called when what is published turns out to be something else.
    pub const fn bundle_lost(&mut self) {
        self.0.bundle_changed = true;
    }

    /// How many prekeys the bundle has.
    #[must_use]
    pub fn prekey_count(&self) -> usize {
        self.0.prekeys.len()
    }

    /// Fills the bundle up to [`PREKEY_TARGET`] prekeys; says how many are new.
    ///
    /// # Errors
    /// [`RandomError`] when there is no randomness.
    pub fn replenish(&mut self) -> Result<usize, RandomError> {
        let new = self.0.prekeys.replenish()?;
        self.0.bundle_changed |= new > 0;
        Ok(new)
    }

    /// Takes prekeys out of the bundle that others are known to have been given, and fills it up with new ones; says how
    /// many went. Their private keys stay until they are used, at most those of the last [`MAX_HANDED_OUT`] that went.
    ///
    /// # Errors
    /// [`RandomError`] when there is no randomness.
    pub fn retire_prekeys(&mut self, handed_out: &[KeyId]) -> Result<usize, RandomError> {
        let retired = self.0.prekeys.retire(handed_out);
        self.0.bundle_changed |= retired > 0;
        self.replenish()?;
        Ok(retired)
    }

    /// Replaces all prekeys, as a server asks for after a restore from backup. The old private keys are kept for those
    /// who were given them, until the next [`Device::catch_up_finished`].
    ///
    /// # Errors
    /// [`RandomError`] when there is no randomness.
    pub fn replace_prekeys(&mut self) -> Result<(), RandomError> {
        self.0.prekeys.withdraw();
        self.0.bundle_changed = true;
        self.0.prekeys.replenish().map(drop)
    }

    /// Makes a new signed prekey now. The old one is kept for [`SIGNED_PREKEY_PERIOD`]. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`RandomError`] when there is no randomness.
    pub fn rotate_signed_prekey(&mut self, now: u64) -> Result<(), RandomError> {
        self.0.signed_prekeys.rotate(now)?;
        self.0.bundle_changed = true;
        Ok(())
    }

    /// Makes a new signed prekey if the present one is [`SIGNED_PREKEY_PERIOD`] old, and forgets those that were kept
    /// for a period. Says whether it made one. To be called at start and once a day.
    ///
    /// # Errors
    /// [`RandomError`] when there is no randomness.
    pub fn rotate_signed_prekey_if_due(&mut self, now: u64) -> Result<bool, RandomError> {
        self.0.signed_prekeys.forget_old(now);
        let due = now >= self.0.signed_prekeys.made_at().saturating_add(SIGNED_PREKEY_PERIOD);
        if due {
            self.rotate_signed_prekey(now)?;
        }
        Ok(due)
    }

    /// Fetching from the archive begins: prekeys that are used from now on keep their private keys.
    pub const fn catch_up_started(&mut self) {
        self.0.catching_up = true;
    }

    /// Everything that came while this device was away has been decrypted: the private keys of used prekeys go. Says how
    /// many went.
    pub fn catch_up_finished(&mut self) -> usize {
        self.0.catching_up = false;
        self.0.prekeys.forget_used()
    }
}

impl<P: Protocol> Device<P> {
    fn is_own(&self, address: &Address) -> bool {
        address.jid() == self.0.owner && address.device() == self.0.id
    }
}
