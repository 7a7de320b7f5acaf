//! Saving a device at the right moments.
//!
//! Two things must not happen in a crash: that a key is used for two messages, and that a message is lost because its
//! key was forgotten before its plaintext was kept. A [`Keeper`] saves before a message is let out, and saves a
//! decryption only after the plaintext was kept. What may happen instead is harmless: a key that was never used, and a
//! message that is decrypted once more, which its archive id tells apart.

use thiserror::Error;

use crate::{
    device::{Decrypted, Device},
    error::{DecryptError, StateError},
    protocol::Protocol,
};

/// Where the state of one device is kept.
pub trait Store {
    /// What can go wrong in it.
    type Error;

    /// Replaces the state, durably and as a whole: after a crash either the old one or the new one is there.
    ///
    /// # Errors
    /// When the state is not, or not certainly, kept.
    fn save(&mut self, state: &[u8]) -> Result<(), Self::Error>;

    /// The state last saved; `None` if there never was one.
    ///
    /// # Errors
    /// When it cannot be read.
    fn load(&mut self) -> Result<Option<Vec<u8>>, Self::Error>;
}

/// Why something was not done and saved.
#[derive(Debug, Error)]
pub enum KeeperError<E, S> {
    /// The device refused.
    #[error(transparent)]
    Device(E),
    /// The store failed. Nothing was let out; the device is as it was last saved, unless loading that failed too.
    #[error("the store failed")]
    Store(S),
    /// The saved state is not the state of a device.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A device together with the place where it is kept.
#[derive(Debug)]
pub struct Keeper<S, P: Protocol> {
    device: Device<P>,
    store: S,
}

impl<S: Store, P: Protocol> Keeper<S, P> {
    /// Takes the device from the store; if there is none, makes one and saves it.
    ///
    /// # Errors
    /// [`KeeperError`], the device's error being that of `make`.
    pub fn open<E>(
        mut store: S,
        make: impl FnOnce() -> Result<Device<P>, E>,
    ) -> Result<Self, KeeperError<E, S::Error>> {
        match store.load().map_err(KeeperError::Store)? {
            Some(state) => Ok(Self { device: Device::from_state(&zeroize::Zeroizing::new(state))?, store }),
            None => {
                let device = make().map_err(KeeperError::Device)?;
                store.save(&device.to_state()?).map_err(KeeperError::Store)?;
                Ok(Self { device, store })
            }
        }
    }

    /// The device, to look at.
    pub const fn device(&self) -> &Device<P> {
        &self.device
    }

    /// Changes the device, saves it, and only then gives what came of it: for everything but decrypting.
    ///
    /// # Errors
    /// [`KeeperError`]. When the device refused, nothing is saved.
    pub fn change<T, E>(
        &mut self,
        change: impl FnOnce(&mut Device<P>) -> Result<T, E>,
    ) -> Result<T, KeeperError<E, S::Error>> {
        let result = change(&mut self.device).map_err(KeeperError::Device)?;
        self.store.save(&self.device.to_state()?).map_err(KeeperError::Store)?;
        Ok(result)
    }

    /// Decrypts a message, lets `keep` keep it durably, and only then saves that its key is gone.
    ///
    /// When keeping or saving fails, the device goes back to what was last saved, so that the message can be decrypted
    /// again.
    ///
    /// # Errors
    /// [`KeeperError`]; what `keep` gives is the store's error.
    pub fn decrypt(
        &mut self,
        from: &str,
        message: &P::Message,
        keep: impl FnOnce(&Decrypted<P>) -> Result<(), S::Error>,
    ) -> Result<Decrypted<P>, KeeperError<DecryptError, S::Error>> {
        let decrypted = self.device.decrypt(from, message).map_err(KeeperError::Device)?;
        let state = self.device.to_state()?;
        match keep(&decrypted).and_then(|()| self.store.save(&state)) {
            Ok(()) => Ok(decrypted),
            Err(error) => {
                if let Some(saved) = self.store.load().map_err(KeeperError::Store)? {
                    self.device = Device::from_state(&zeroize::Zeroizing::new(saved))?;
                }
                Err(KeeperError::Store(error))
            }
        }
    }

    /// The store, for what else is kept in it.
    pub const fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }
}
