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
        let state = self.device.to_state()?;
        match self.store.save(&state) {
            Ok(()) => Ok(result),
            Err(error) => Err(self.go_back(error)),
        }
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
            Err(error) => Err(self.go_back(error)),
        }
    }

    /// Takes the device as it was last saved, after the store has failed with `error`.
    fn go_back<E>(&mut self, error: S::Error) -> KeeperError<E, S::Error> {
        match self.store.load() {
            Ok(Some(saved)) => match Device::from_state(&zeroize::Zeroizing::new(saved)) {
                Ok(device) => {
                    self.device = device;
                    KeeperError::Store(error)
                }
                Err(broken) => KeeperError::State(broken),
            },
            Ok(None) => KeeperError::Store(error),
            Err(worse) => KeeperError::Store(worse),
        }
    }

    /// The store, for what else is kept in it.
    pub const fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;
    use crate::{
        address::{Address, DeviceId},
        generation::Omemo2,
    };

    /// A disk that outlives a crash, with an account of what was done in which order.
    #[derive(Default)]
    struct Disk {
        state: Option<Vec<u8>>,
        texts: Vec<Vec<u8>>,
        log: Vec<&'static str>,
        fails: bool,
    }

    impl Store for Rc<RefCell<Disk>> {
        type Error = &'static str;

        fn save(&mut self, state: &[u8]) -> Result<(), &'static str> {
            let mut disk = self.borrow_mut();
            if disk.fails {
                return Err("no room");
            }
            disk.log.push("saved");
            disk.state = Some(state.to_vec());
            Ok(())
        }

        fn load(&mut self) -> Result<Option<Vec<u8>>, &'static str> {
            Ok(self.borrow().state.clone())
        }
    }

    type Kept = Keeper<Rc<RefCell<Disk>>, Omemo2>;

    fn keeper(disk: &Rc<RefCell<Disk>>, jid: &str) -> Kept {
        Keeper::open(Rc::clone(disk), || Device::generate(jid, DeviceId::new(1).unwrap(), 0)).unwrap()
    }

    fn scene() -> (Rc<RefCell<Disk>>, Rc<RefCell<Disk>>, Kept, Kept, Address) {
        let [here, there] = [(); 2].map(|()| Rc::new(RefCell::new(Disk::default())));
        let (mut alice, bob) = (keeper(&here, "a@x.org"), keeper(&there, "b@x.org"));
        let to_bob = Address::new("b@x.org", 1).unwrap();
        let bundle = bob.device().bundle();
        alice.change(|device| device.start_session(&to_bob, &bundle)).unwrap();
        (here, there, alice, bob, to_bob)
    }

    #[test]
    fn what_was_let_out_was_saved_so_that_no_key_is_used_twice() {
        let (disk, _, mut alice, mut bob, to_bob) = scene();
        let first = alice.change(|device| device.encrypt(b"first", std::slice::from_ref(&to_bob))).unwrap();
        disk.borrow_mut().fails = true;
        let refused = alice.change(|device| device.encrypt(b"never sent", std::slice::from_ref(&to_bob)));
        assert!(matches!(refused, Err(KeeperError::Store("no room"))));
        let saved = disk.borrow().state.clone().unwrap();
        assert_eq!(alice.device().to_state().unwrap().as_slice(), saved, "it is as it was last saved");

        // The crash: everything in memory is gone.
        disk.borrow_mut().fails = false;
        let mut alice = keeper(&disk, "a@x.org");
        let second = alice.change(|device| device.encrypt(b"second", &[to_bob])).unwrap();
        for (message, text) in [(second, b"second".as_slice()), (first, b"first")] {
            let read = bob.decrypt("a@x.org", &message, |_| Ok(())).unwrap();
            assert_eq!(read.plaintext.unwrap().as_slice(), text);
        }
    }

    #[test]
    fn a_crash_between_decrypting_and_saving_loses_nothing() {
        let (_, disk, mut alice, mut bob, to_bob) = scene();
        let message = alice.change(|device| device.encrypt(b"hello", &[to_bob])).unwrap();
        let keep = |decrypted: &Decrypted<Omemo2>| {
            let mut disk = disk.borrow_mut();
            disk.log.push("kept");
            disk.texts.push(decrypted.plaintext.as_ref().unwrap().to_vec());
            Ok(())
        };
        // The text cannot be kept; then it is kept, but the state cannot be saved.
        assert!(bob.decrypt("a@x.org", &message, |_| Err("no room")).is_err());
        disk.borrow_mut().fails = true;
        assert!(bob.decrypt("a@x.org", &message, keep).is_err());
        disk.borrow_mut().fails = false;
        drop(bob);
        let mut bob = keeper(&disk, "b@x.org");
        bob.decrypt("a@x.org", &message, keep).unwrap();
        assert!(matches!(bob.decrypt("a@x.org", &message, keep), Err(KeeperError::Device(DecryptError::Duplicate))));
        let disk = disk.borrow();
        assert_eq!(disk.texts, [b"hello", b"hello"], "kept twice rather than lost");
        assert_eq!(disk.log, ["saved", "kept", "kept", "saved"], "kept before the key was gone");
    }
}
