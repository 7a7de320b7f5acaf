//! One device of one account: its keys, its sessions, and the rules of the XEP about both.

use core::fmt;
use std::io;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    address::{Address, DeviceId, KeyId, check_jid},
    bundle::{Bundle, BundleError},
    error::{DecryptError, EncryptError, GenerateError, SessionError, StateError},
    message::{EncryptedMessage, MAX_HEADERS, MessageHeader, RecipientHeaders},
    payload::{self, KeyMaterial, MAX_PLAINTEXT_LENGTH},
    peer::{Peer, Peers},
    prekeys::{OneTimePrekeys, SIGNED_PREKEY_PERIOD, SignedPrekeys},
    session::Session,
    wire::{self, AuthenticatedMessage, ExchangeHeader},
};
use crate::{
    curve25519::SecretKey,
    generation::Omemo2,
    identity::{IdentityKey, IdentityKeyPair, SIGNATURE_LENGTH},
    random::{RandomError, random_bytes},
    ratchet::Ratchet,
    x3dh,
};

/// The version of what [`Device::to_state`] gives.
pub const STATE_VERSION: u32 = 1;

/// A device of an account. See the [module](super) for the rules that its user has to keep.
///
/// It is not `Clone`, since two copies would use the same keys for different messages.
#[derive(Debug)]
pub struct Device(State);

/// All that a device has to remember, in the form in which it is saved: JSON, keys in base64, ids as numbers.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    version: u32,
    owner: String,
    id: DeviceId,
    identity: IdentityKeyPair,
    signed_prekeys: SignedPrekeys,
    prekeys: OneTimePrekeys,
    peers: Peers,
    catching_up: bool,
    bundle_changed: bool,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
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

/// A message that was decrypted.
#[derive(Clone, PartialEq, Eq)]
pub struct Decrypted {
    /// The device that sent it. Whose device it is depends on the `from` that was passed in; see
    /// [`sce`](crate::sce) on how the envelope confirms it.
    pub sender: Address,
    /// The identity of that device. Whether it is to be trusted is for the user to say.
    pub identity: IdentityKey,
    /// The envelope; `None` in an empty message.
    pub plaintext: Option<Zeroizing<Vec<u8>>>,
    /// The prekey that the message used up. The bundle has to be published again without it.
    pub used_prekey: Option<KeyId>,
    /// The message started a session.
    pub new_session: bool,
    /// An empty message to the sender is due: see [`Device::replies_due`].
    pub reply_due: bool,
}

impl fmt::Debug for Decrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decrypted")
            .field("sender", &self.sender)
            .field("identity", &self.identity)
            .field("plaintext", &self.plaintext.as_ref().map(|_| ".."))
            .field("used_prekey", &self.used_prekey)
            .field("new_session", &self.new_session)
            .field("reply_due", &self.reply_due)
            .finish()
    }
}

/// Life of a device: making, saving, restoring.
impl Device {
    /// Makes a device with a new identity and a full set of prekeys.
    ///
    /// `owner` is the account's bare JID, `id` a [`DeviceId::random`] that is not in the account's device list yet,
    /// `now` the time in seconds since 1970.
    ///
    /// # Errors
    /// [`GenerateError`] when the owner is not a bare JID or there is no randomness.
    pub fn generate(owner: &str, id: DeviceId, now: u64) -> Result<Self, GenerateError> {
        check_jid(owner)?;
        Ok(Self(State {
            version: STATE_VERSION,
            owner: owner.to_owned(),
            id,
            identity: IdentityKeyPair::generate()?,
            signed_prekeys: SignedPrekeys::generate(now)?,
            prekeys: OneTimePrekeys::generate()?,
            peers: Peers::default(),
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
        let Version { version } = serde_json::from_slice(state).map_err(malformed)?;
        if version != STATE_VERSION {
            return Err(StateError::Version(version));
        }
        let state: State = serde_json::from_slice(state).map_err(malformed)?;
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

    /// The public identity of this device; [`IdentityKey::fingerprint`] is what users compare.
    #[must_use]
    pub fn identity(&self) -> IdentityKey {
        self.0.identity.public_key()
    }

    /// The signature that goes with this device's label in the device list.
    #[must_use]
    pub fn sign_label(&self, label: &str) -> [u8; SIGNATURE_LENGTH] {
        self.0.identity.sign(label.as_bytes())
    }
}

/// The bundle and the prekeys in it.
impl Device {
    /// The bundle to publish: all prekeys that nobody has used, as far as this device knows.
    #[must_use]
    pub fn bundle(&self) -> Bundle {
        Bundle {
            identity: self.identity(),
            signed_prekey: self.0.signed_prekeys.published(&self.0.identity),
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

    /// How many prekeys the bundle has.
    #[must_use]
    pub fn prekey_count(&self) -> usize {
        self.0.prekeys.len()
    }

    /// Fills the bundle up to [`PREKEY_TARGET`](super::PREKEY_TARGET) prekeys; says how many are new.
    ///
    /// # Errors
    /// [`RandomError`] when there is no randomness.
    pub fn replenish(&mut self) -> Result<usize, RandomError> {
        let new = self.0.prekeys.replenish()?;
        self.0.bundle_changed |= new > 0;
        Ok(new)
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

/// Sessions with other devices.
impl Device {
    /// Starts a session with another device from its bundle, choosing one of the prekeys at random.
    ///
    /// A session that is there already is replaced: this is also how a user repairs a broken one. To be done right
    /// before the first message, not when the bundle is fetched (XEP-0384, "Business Rules").
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn start_session(&mut self, peer: &Address, bundle: &Bundle) -> Result<(), SessionError> {
        if self.is_own(peer) {
            return Err(SessionError::OwnDevice);
        }
        bundle.verify()?;
        if let Some(known) = self.identity_of(peer)
            && known != bundle.identity
        {
            return Err(SessionError::IdentityChanged {
                address: peer.clone(),
                known: known.fingerprint(),
                offered: bundle.identity.fingerprint(),
            });
        }
        let prekey = match bundle.prekeys.as_slice() {
            [] => return Err(BundleError::NoPrekey.into()),
            [only] => only,
            several => choose(several)?.ok_or(BundleError::NoPrekey)?,
        };

        let ephemeral = SecretKey::generate()?;
        let shared = x3dh::initiate::<Omemo2>(
            &self.0.identity.to_curve25519(),
            &ephemeral,
            &x3dh::PassiveKeys {
                identity: bundle.identity.to_curve25519()?,
                signed_prekey: bundle.signed_prekey.key,
                prekey: prekey.key,
            },
        )?;
        let exchange = ExchangeHeader {
            prekey: prekey.id,
            signed_prekey: bundle.signed_prekey.id,
            identity: self.identity(),
            ephemeral: ephemeral.public_key(),
        };
        let session = Session::initiate(&exchange, bundle.identity, shared, &bundle.signed_prekey.key)?;
        self.0.peers.entry(peer, bundle.identity).start(session);
        Ok(())
    }

    /// Whether there is a session with another device.
    #[must_use]
    pub fn has_session(&self, peer: &Address) -> bool {
        self.0.peers.get(peer).is_some()
    }

    /// The devices with which there are sessions, in the order of their addresses.
    #[must_use]
    pub fn sessions(&self) -> Vec<Address> {
        self.0.peers.iter().map(|(address, _)| address).collect()
    }

    /// The identity that another device has shown in its sessions.
    #[must_use]
    pub fn identity_of(&self, peer: &Address) -> Option<IdentityKey> {
        self.0.peers.get(peer).map(|peer| *peer.identity())
    }

    /// Forgets all sessions with another device and its identity. Says whether there was something to forget.
    pub fn forget(&mut self, peer: &Address) -> bool {
        self.0.peers.remove(peer)
    }

    /// The devices to which an empty message is due: as an answer to a key exchange, or as a heartbeat. A message with
    /// content on the same session does as well.
    #[must_use]
    pub fn replies_due(&self) -> Vec<Address> {
        self.0.peers.iter().filter(|(_, peer)| peer.reply_due()).map(|(address, _)| address).collect()
    }

    fn is_own(&self, address: &Address) -> bool {
        address.jid() == self.0.owner && address.device() == self.0.id
    }
}

/// Encrypting. **Save the state before the message leaves.**
impl Device {
    /// Encrypts an envelope (see [`sce`](crate::sce)) for all `recipients` at once.
    ///
    /// Recipients are all trusted devices of the other side and of the own account. This device itself and repeated
    /// addresses are passed over.
    ///
    /// # Errors
    /// [`EncryptError`]; [`EncryptError::NoSession`] names the first device without a session, before anything else is
    /// done.
    pub fn encrypt(&mut self, envelope: &[u8], recipients: &[Address]) -> Result<EncryptedMessage, EncryptError> {
        if envelope.len() > MAX_PLAINTEXT_LENGTH {
            return Err(EncryptError::TooLong(envelope.len()));
        }
        let mut recipients: Vec<&Address> = recipients.iter().filter(|address| !self.is_own(address)).collect();
        recipients.sort();
        recipients.dedup();
        match recipients.len() {
            0 => return Err(EncryptError::NoRecipients),
            count if count > MAX_HEADERS => return Err(EncryptError::TooManyRecipients(count)),
            _ => {}
        }
        if let Some(missing) = recipients.iter().find(|address| !self.has_session(address)) {
            return Err(EncryptError::NoSession((**missing).clone()));
        }

        let (material, payload) = payload::seal(envelope)?;
        let mut keys: Vec<RecipientHeaders> = Vec::new();
        for address in recipients {
            let session = self.0.peers.get_mut(address).and_then(Peer::sending);
            let header = header(address, session, &material)?;
            match keys.last_mut() {
                Some(last) if last.jid == address.jid() => last.headers.push(header),
                _ => keys.push(RecipientHeaders { jid: address.jid().to_owned(), headers: vec![header] }),
            }
        }
        Ok(EncryptedMessage { sid: self.0.id, keys, payload: Some(payload) })
    }

    /// Makes an empty message, which only moves the session: an answer to a key exchange, a heartbeat, or the first
    /// message after a session was repaired.
    ///
    /// # Errors
    /// [`EncryptError`].
    pub fn encrypt_empty(&mut self, recipient: &Address) -> Result<EncryptedMessage, EncryptError> {
        let session = self.0.peers.get_mut(recipient).and_then(Peer::replying);
        let header = header(recipient, session, &KeyMaterial::empty())?;
        let keys = vec![RecipientHeaders { jid: recipient.jid().to_owned(), headers: vec![header] }];
        Ok(EncryptedMessage { sid: self.0.id, keys, payload: None })
    }
}

/// Decrypting. **Keep the plaintext before, or together with, the state.**
impl Device {
    /// Decrypts a message. `from` is the sender's bare JID: that of the stanza, in a group chat the real one.
    ///
    /// # Errors
    /// [`DecryptError`], after which the device is as it was before.
    pub fn decrypt(&mut self, from: &str, message: &EncryptedMessage) -> Result<Decrypted, DecryptError> {
        let header = message.header_for(&self.0.owner, self.0.id).ok_or(DecryptError::NotForThisDevice)?;
        let sender = Address::of_device(from, message.sid)?;
        if self.is_own(&sender) {
            return Err(DecryptError::OwnDevice);
        }
        let payload = message.payload.as_deref();
        // Padding adds up to one block.
        if payload.is_some_and(|payload| payload.len() > MAX_PLAINTEXT_LENGTH.saturating_add(16)) {
            return Err(DecryptError::PayloadTooLong);
        }
        if header.kex {
            let (exchange, message) = wire::decode_exchange(&header.data)?;
            self.decrypt_exchange(sender, &exchange, &message, payload)
        } else {
            let message = wire::decode_authenticated(&header.data)?;
            self.decrypt_known(sender, None, &message, payload)
        }
    }

    /// A message of a session that is there. `exchange` is given if the message came as a key exchange nevertheless,
    /// because the sender does not know yet that the session is there.
    fn decrypt_known(
        &mut self,
        sender: Address,
        exchange: Option<&ExchangeHeader>,
        message: &AuthenticatedMessage,
        payload: Option<&[u8]>,
    ) -> Result<Decrypted, DecryptError> {
        let Some(peer) = self.0.peers.get_mut(&sender) else { return Err(DecryptError::NoSession(sender)) };
        let found = match exchange {
            Some(exchange) => peer.open_in(&exchange.ephemeral, message),
            None => peer.open(message),
        };
        let Some(found) = found.transpose()? else { return Err(DecryptError::NoSession(sender)) };
        let plaintext = payload::open(&found.opened.material, payload)?;

        // From here on the message is genuine, and nothing can fail.
        peer.commit(found, exchange.is_some());
        let (identity, reply_due) = (*peer.identity(), peer.reply_due());
        Ok(Decrypted { sender, identity, plaintext, used_prekey: None, new_session: false, reply_due })
    }

    fn decrypt_exchange(
        &mut self,
        sender: Address,
        exchange: &ExchangeHeader,
        message: &AuthenticatedMessage,
        payload: Option<&[u8]>,
    ) -> Result<Decrypted, DecryptError> {
        if let Some(peer) = self.0.peers.get(&sender) {
            if *peer.identity() != exchange.identity {
                return Err(DecryptError::IdentityChanged {
                    known: peer.identity().fingerprint(),
                    offered: exchange.identity.fingerprint(),
                    address: sender,
                });
            }
            if peer.has(&exchange.ephemeral) {
                return self.decrypt_known(sender, Some(exchange), message, payload);
            }
        }
        let mut session = self.accept(exchange)?;
        let opened = session.open(message).map_err(DecryptError::from)?;
        let plaintext = payload::open(&opened.material, payload)?;

        // From here on the message is genuine, and nothing can fail.
        session.commit(opened);
        let keep = self.0.catching_up;
        self.0.bundle_changed |= self.0.prekeys.use_up(exchange.prekey, exchange.ephemeral, keep);
        self.0.peers.entry(&sender, exchange.identity).accept(session);
        Ok(Decrypted {
            sender,
            identity: exchange.identity,
            plaintext,
            used_prekey: Some(exchange.prekey),
            new_session: true,
            reply_due: true,
        })
    }

    /// The passive side of X3DH. Nothing is changed.
    fn accept(&self, exchange: &ExchangeHeader) -> Result<Session, DecryptError> {
        let signed_prekey = self.0.signed_prekeys.find(exchange.signed_prekey)?;
        let prekey = self.0.prekeys.for_exchange(exchange.prekey, &exchange.ephemeral)?;
        let active = x3dh::ActiveKeys { identity: exchange.identity.to_curve25519()?, ephemeral: exchange.ephemeral };
        let shared = x3dh::respond::<Omemo2>(&self.0.identity.to_curve25519(), signed_prekey, prekey, &active)?;
        Ok(Session::respond(exchange, self.identity(), Ratchet::respond(shared, signed_prekey.clone())))
    }
}

/// The header for one recipient.
fn header(
    address: &Address,
    session: Option<&mut Session>,
    material: &KeyMaterial,
) -> Result<MessageHeader, EncryptError> {
    let session = session.ok_or_else(|| EncryptError::NoSession(address.clone()))?;
    let (kex, data) = session.encrypt(material.as_slice())?;
    Ok(MessageHeader { rid: address.device(), kex, data })
}

/// One of them at random; the bias of the remainder is below one in 2^50 for any bundle.
fn choose<T>(several: &[T]) -> Result<Option<&T>, RandomError> {
    let number = u64::from_le_bytes(*random_bytes::<8>()?);
    let index = u64::try_from(several.len()).ok().and_then(|count| number.checked_rem(count));
    Ok(index.and_then(|index| usize::try_from(index).ok()).and_then(|index| several.get(index)))
}
