//! `multiend admin identity-keys`: which identity keys a device has had, and since when.

use std::fmt;

use serde::Serialize;

use super::table::Table;
use crate::model::{DeviceId, Owner, Protocol};
use crate::store::{HistoryStore, StoreError};

/// Most keys that are shown.
const LIMIT: u32 = 1_000;

/// The identity keys of a device, the present one first.
#[derive(Debug, Clone, Serialize)]
pub struct IdentityKeys {
    /// The keys.
    pub keys: Vec<IdentityKey>,
}

/// One of them.
#[derive(Debug, Clone, Serialize)]
pub struct IdentityKey {
    /// When it was first published, or first recorded (XEP-0082).
    pub since: String,
    /// Whether it is the present one.
    pub present: bool,
    /// The public key in wire form, in hexadecimal digits.
    pub key: String,
}

/// Reads them. Nothing for a device that is not known.
pub async fn identity_keys<S: HistoryStore + ?Sized>(
    store: &S,
    owner: &Owner,
    protocol: Protocol,
    device: DeviceId,
) -> Result<IdentityKeys, StoreError> {
    let recorded = store.identity_keys(owner, protocol, device, LIMIT).await?;
    let keys = recorded.into_iter().enumerate().map(|(place, identity)| IdentityKey {
        since: identity.since.to_xmpp(),
        present: place == 0,
        key: hex::encode(identity.key),
    });
    Ok(IdentityKeys { keys: keys.collect() })
}

impl fmt::Display for IdentityKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["since", "present", "key"]);
        for key in &self.keys {
            table.row([&key.since, &if key.present { "yes" } else { "no" }, &key.key]);
        }
        table.fmt(f)
    }
}
