//! A setting that may change while the program runs. Who reads it reads it anew for each piece of work, and keeps to what it
//! has read until that is done.

use std::sync::{Arc, PoisonError, RwLock};

/// A value that its clones share.
#[derive(Debug, Default)]
pub struct Setting<T>(Arc<RwLock<T>>);

impl<T> Clone for Setting<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone> Setting<T> {
    /// What is so now.
    pub fn get(&self) -> T {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What follows from it now, without copying it. What `read` does must not take long: who sets it waits.
    pub fn with<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is so from now on, for all clones.
    pub fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

impl<T> From<T> for Setting<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(RwLock::new(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::Setting;

    #[test]
    fn clones_see_what_is_set() {
        let setting = Setting::from(1);
        let clone = setting.clone();
        setting.set(2);
        assert_eq!((setting.get(), clone.get()), (2, 2));
    }
}
