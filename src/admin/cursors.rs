//! `multiend admin cursors OWNER`: how far an owner's devices have read its archive.

use std::fmt;

use serde::Serialize;

use super::table::Table;
use crate::model::Owner;
use crate::store::{CursorStore, StoreError};

/// The devices of one owner, by protocol and id.
#[derive(Debug, Clone, Serialize)]
pub struct Cursors {
    /// Whose archive.
    pub owner: String,
    /// Every listed device, and every other one that has said how far it has read.
    pub devices: Vec<DeviceCursor>,
}

/// Where one device is.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceCursor {
    /// `legacy` or `omemo2`.
    pub protocol: &'static str,
    /// Its id.
    pub device: u32,
    /// Whether it stands in the list in force.
    pub listed: bool,
    /// Up to which place of the archive it has read; none if it never said.
    pub read: Option<i64>,
    /// Since when, in UTC.
    pub since: Option<String>,
    /// How many places come after that.
    pub behind: u64,
}

/// Reads the cursors of one owner.
pub async fn cursors<S: CursorStore + ?Sized>(store: &S, owner: &Owner) -> Result<Cursors, StoreError> {
    let device = |cursor: crate::store::Cursor| DeviceCursor {
        protocol: cursor.device.protocol.name(),
        device: cursor.device.device.get(),
        listed: cursor.listed,
        read: cursor.read.map(|(place, _)| place),
        since: cursor.read.map(|(_, since)| since.to_xmpp()),
        behind: cursor.behind,
    };
    let devices = store.cursors(owner).await?.into_iter().map(device).collect();
    Ok(Cursors { owner: owner.to_string(), devices })
}

impl fmt::Display for Cursors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["protocol", "device", "listed", "read up to", "since", "behind"]);
        for device in &self.devices {
            let DeviceCursor { protocol, device, listed, read, since, behind } = device;
            let read = read.map_or_else(|| "-".to_owned(), |place| place.to_string());
            let listed = if *listed { "yes" } else { "no" };
            table.row([protocol, device, &listed, &read, &since.as_deref().unwrap_or("-"), behind]);
        }
        table.fmt(f)
    }
}
