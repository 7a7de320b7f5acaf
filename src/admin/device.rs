//! `multiend admin quarantine`, `revive` and `remove`: what an operator does with one device. The owner's devices and those
//! who follow its list are told by the running server, from the notices that each of these leaves.

use std::fmt;

use serde::Serialize;

use super::devices::DeviceError;
use crate::model::Clock;
use crate::store::{DevicePlace, LifecycleStore, Revived, Step};

/// What was done with a device.
#[derive(Debug, Clone, Serialize)]
pub struct Done {
    /// Whose device.
    pub owner: String,
    /// In which protocol.
    pub protocol: &'static str,
    /// Which device.
    pub device: u32,
    /// `quarantined`, `listed` or `removed`.
    pub state: &'static str,
}

impl Done {
    fn with(place: &DevicePlace, state: &'static str) -> Self {
        let owner = place.owner.as_str().to_owned();
        Self { owner, protocol: place.protocol.name(), device: place.device.get(), state }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} device {} of {} is {}", self.protocol, self.device, self.owner, self.state)
    }
}

fn refused(place: &DevicePlace, why: &str) -> DeviceError {
    DeviceError::Refused(format!("{} device {} of {} {why}", place.protocol.name(), place.device, place.owner.as_str()))
}

/// Quarantines a listed device.
pub async fn quarantine<S: LifecycleStore + ?Sized>(
    store: &S,
    place: DevicePlace,
    clock: &dyn Clock,
) -> Result<Done, DeviceError> {
    if store.quarantine_device(&place, Step::Now, clock.now()).await? {
        Ok(Done::with(&place, "quarantined"))
    } else {
        Err(refused(&place, "is not listed"))
    }
}

/// Puts a quarantined device back into the list, which has at most `limit` devices.
pub async fn revive<S: LifecycleStore + ?Sized>(
    store: &S,
    place: DevicePlace,
    limit: usize,
    clock: &dyn Clock,
) -> Result<Done, DeviceError> {
    match store.revive_device(&place, limit, clock.now()).await? {
        Revived::Listed => Ok(Done::with(&place, "listed")),
        Revived::NotQuarantined => Err(refused(&place, "is not in quarantine")),
        Revived::NoRoom => Err(refused(&place, &format!("finds no room: the list has {limit} devices"))),
    }
}

/// Removes a device and retracts its bundle.
pub async fn remove<S: LifecycleStore + ?Sized>(
    store: &S,
    place: DevicePlace,
    clock: &dyn Clock,
) -> Result<Done, DeviceError> {
    if store.retire_device(&place, Step::Now, clock.now()).await? {
        Ok(Done::with(&place, "removed"))
    } else {
        Err(refused(&place, "is neither listed nor quarantined, and has no bundle"))
    }
}
