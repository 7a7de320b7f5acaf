//! The sessions of a device: starting, looking up, forgetting.

use super::{Device, session::Session};
use crate::{
    address::Address,
    bundle::{Bundle, BundleError},
    curve25519::SecretKey,
    error::SessionError,
    protocol::{Protocol, PublicIdentity},
    random::{RandomError, random_bytes},
    wire::ExchangeHeader,
    x3dh,
};

impl<P: Protocol> Device<P> {
    /// Starts a session with another device from its bundle, choosing one of the prekeys at random.
    ///
    /// A session that is there already is replaced: this is also how a user repairs a broken one. To be done right
    /// before the first message, not when the bundle is fetched (XEP-0384, "Business Rules").
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn start_session(&mut self, peer: &Address, bundle: &Bundle<P>) -> Result<(), SessionError> {
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
        let shared = x3dh::initiate::<P>(
            &self.0.identity.to_curve25519(),
            &ephemeral,
            &x3dh::PassiveKeys {
                identity: bundle.identity.agreement_key()?,
                signed_prekey: bundle.signed_prekey.key,
                prekey: prekey.key,
            },
        )?;
        let exchange = ExchangeHeader {
            prekey: prekey.id,
            signed_prekey: bundle.signed_prekey.id,
            identity: self.identity(),
            ephemeral: ephemeral.public_key(),
            registration: self.0.id.get(),
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
    pub fn identity_of(&self, peer: &Address) -> Option<P::Identity> {
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
}

/// One of them at random; the bias of the remainder is below one in 2^50 for any bundle.
fn choose<T>(several: &[T]) -> Result<Option<&T>, RandomError> {
    let number = u64::from_le_bytes(*random_bytes::<8>()?);
    let index = u64::try_from(several.len()).ok().and_then(|count| number.checked_rem(count));
    Ok(index.and_then(|index| usize::try_from(index).ok()).and_then(|index| several.get(index)))
}
