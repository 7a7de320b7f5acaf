//! `multiend admin restore-epoch`: the operator says what is so with the database ([`super::last_run`]).
//!
//! After a restore from a backup, all one-time prekeys that it holds are void: any of them may have been issued after the
//! backup. That is so for every instance from the moment at which this begins; what follows writes it down, device by
//! device, and tells the devices. It may be stopped at any time and resumed.

use std::fmt;

use serde::Serialize;

use super::long_work::{OnProgress, Progress};
use super::table::Table;
use crate::model::Clock;
use crate::store::{EpochStore, StoreError};

/// Devices of one transaction.
const BATCH: u32 = 100;

/// What the operator says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declaration {
    /// The database was restored from a backup.
    Restored,
    /// It was not: it may be used as it is.
    Current,
    /// It was, and this has been said; the work was not finished.
    Resume,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RestoreEpoch {
    /// The epoch that is now.
    pub epoch: u64,
    /// Devices whose stock has been made void.
    pub devices: u64,
    /// Prekeys that were unissued and are void now.
    pub prekeys: u64,
    /// Whether all has been written down; if it was stopped, `--resume` goes on. It is so in any case.
    pub complete: bool,
}

/// Does what the operator asks for.
pub async fn restore_epoch<S: EpochStore + ?Sized>(
    store: &S,
    clock: &dyn Clock,
    declaration: Declaration,
    mut progress: impl OnProgress,
) -> Result<RestoreEpoch, StoreError> {
    let deployment = match declaration {
        Declaration::Restored => store.begin_epoch(clock.now()).await?,
        Declaration::Current => store.confirm(clock.now()).await?,
        Declaration::Resume => store.deployment().await?,
    };
    let mut done = RestoreEpoch { epoch: deployment.epoch, devices: 0, prekeys: 0, complete: true };
    if declaration == Declaration::Current {
        return Ok(done);
    }
    let all = store.devices_to_void().await?;
    loop {
        let step = store.void_older(BATCH, clock.now()).await?;
        if step.devices == 0 {
            return Ok(done);
        }
        done.devices = done.devices.saturating_add(step.devices);
        done.prekeys = done.prekeys.saturating_add(step.prekeys);
        if progress(Progress { done: done.devices, of: Some(all), what: "devices" }).is_break() {
            done.complete = false;
            return Ok(done);
        }
    }
}

impl fmt::Display for RestoreEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["figure", "value"]);
        table.row([&"epoch", &self.epoch]);
        table.row([&"devices", &self.devices]);
        table.row([&"prekeys made void", &self.prekeys]);
        table.fmt(f)?;
        if self.complete { Ok(()) } else { writeln!(f, "stopped; --resume goes on from here") }
    }
}
