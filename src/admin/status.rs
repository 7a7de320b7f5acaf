//! `multiend admin status`: how it stands, at a glance and at little cost: whether the program runs, what waits, which
//! database this is. What only a count over everything can say is in [`super::stats`].

use std::fmt;

use serde::Serialize;

use super::table::Table;
use crate::model::Clock;
use crate::store::{Backlog, Store, StoreError};

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Of the program that asks.
    pub version: &'static str,
    /// What answers at `http.listen`: `ready`, why it is not, or that nobody answers.
    pub service: String,
    /// The number of the newest migration of the database.
    pub schema: i64,
    /// Bytes of the database on the disk.
    pub database_bytes: u64,
    /// Restores from a backup that were declared.
    pub epoch: u64,
    /// Whether prekeys are handed out; not, while the database may have been restored and nobody has said what is so.
    pub prekeys_handed_out: bool,
    /// Devices in lists in force, over both protocols.
    pub devices_listed: u64,
    /// Devices in quarantine.
    pub devices_quarantined: u64,
    /// Notices to devices and subscribers that are to be sent.
    pub notices: Waits,
    /// Messages set aside for an operator.
    pub dead_letters: Waits,
    /// Expired copies that are not purged yet.
    pub expired: Waits,
}

/// Work that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waits {
    /// How much, counted up to [`crate::store::BACKLOG_COUNTED`].
    pub count: u64,
    /// Since when the oldest, in UTC.
    pub oldest: Option<String>,
}

impl From<Backlog> for Waits {
    fn from(backlog: Backlog) -> Self {
        Self { count: backlog.count, oldest: backlog.oldest.map(|oldest| oldest.to_xmpp()) }
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.oldest {
            Some(oldest) => write!(f, "{}, the oldest since {oldest}", self.count),
            None => self.count.fmt(f),
        }
    }
}

/// Looks. `service` is what answers at `http.listen`.
pub async fn status<S: Store + ?Sized>(store: &S, clock: &dyn Clock, service: String) -> Result<Status, StoreError> {
    let waiting = store.waiting(clock.now()).await?;
    let deployment = store.deployment().await?;
    let devices = store.device_states().await?;
    Ok(Status {
        version: env!("CARGO_PKG_VERSION"),
        service,
        schema: store.schema_version(),
        database_bytes: waiting.database_bytes,
        epoch: deployment.epoch,
        prekeys_handed_out: !deployment.doubted,
        devices_listed: devices.listed.iter().sum(),
        devices_quarantined: devices.quarantined.iter().sum(),
        notices: waiting.notices.into(),
        dead_letters: waiting.dead_letters.into(),
        expired: waiting.expired.into(),
    })
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["what", "how it stands"]);
        table.row([&"version", &self.version]);
        table.row([&"service", &self.service]);
        table.row([&"schema of the database", &self.schema]);
        table.row([&"bytes of the database", &self.database_bytes]);
        table.row([&"restores declared", &self.epoch]);
        let prekeys = if self.prekeys_handed_out { "are handed out" } else { "are not handed out: see restore-epoch" };
        table.row([&"prekeys", &prekeys]);
        table.row([&"devices listed", &self.devices_listed]);
        table.row([&"devices in quarantine", &self.devices_quarantined]);
        table.row([&"notices to be sent", &self.notices]);
        table.row([&"dead letters", &self.dead_letters]);
        table.row([&"expired, to be purged", &self.expired]);
        table.fmt(f)
    }
}
