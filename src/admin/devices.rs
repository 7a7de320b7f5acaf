//! `multiend admin devices`: what is known of an owner's devices.

use std::fmt;

use serde::Serialize;

use super::table::Table;
use crate::model::{Owner, Protocol, Timestamp};
use crate::store::{DeviceRecord, DeviceState, LifecycleStore, StoreError};

/// Why nothing can be shown or done.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No such account.
    #[error("{0} is not known here")]
    UnknownOwner(String),
    /// No such device, or not in the state in which this can be done.
    #[error("{0}")]
    Refused(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An owner's devices.
#[derive(Debug, Clone, Serialize)]
pub struct Devices {
    /// Whose.
    pub owner: String,
    /// By protocol and id.
    pub devices: Vec<DeviceLine>,
}

/// One device.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceLine {
    /// `legacy` or `omemo2`.
    pub protocol: &'static str,
    /// Its id.
    pub device: u32,
    /// The name that its user gave it.
    pub label: Option<String>,
    /// `listed`, `quarantined` or `unlisted`.
    pub state: &'static str,
    /// Of a quarantined one: why.
    pub cause: Option<&'static str>,
    /// Of a quarantined one: since when.
    pub quarantined_at: Option<String>,
    /// Its last sign of life, to within `seen_granularity`.
    pub seen_at: Option<String>,
    /// Since when it is listed.
    pub listed_at: Option<String>,
    /// When its bundle was published; none: it has none.
    pub published_at: Option<String>,
    /// Prekeys never issued.
    pub unissued: u32,
    /// Prekeys issued and still in the bundle.
    pub issued: u32,
    /// Those among them that were seen consumed.
    pub consumed: u32,
    /// The identity key as its users compare it: in hexadecimal, without the byte that legacy puts before it.
    pub fingerprint: Option<String>,
}

impl From<DeviceRecord> for DeviceLine {
    fn from(record: DeviceRecord) -> Self {
        let text = |at: Timestamp| at.to_xmpp();
        let (state, quarantine) = match record.state {
            DeviceState::Listed => ("listed", None),
            DeviceState::Quarantined(at, cause) => ("quarantined", Some((at, cause))),
            DeviceState::Unlisted => ("unlisted", None),
        };
        let protocol = record.protocol;
        Self {
            protocol: protocol.name(),
            device: record.device.get(),
            label: record.label,
            state,
            cause: quarantine.map(|(_, cause)| cause.name()),
            quarantined_at: quarantine.map(|(at, _)| text(at)),
            seen_at: record.seen_at.map(text),
            listed_at: record.listed_at.map(text),
            published_at: record.published_at.map(text),
            unissued: record.stock.unissued,
            issued: record.stock.issued,
            consumed: record.consumed,
            fingerprint: record.identity_key.map(|key| fingerprint(protocol, &key)),
        }
    }
}

fn fingerprint(protocol: Protocol, key: &[u8]) -> String {
    let bare = match (protocol, key) {
        (Protocol::Legacy, [5, bare @ ..]) if bare.len() == 32 => bare,
        _ => key,
    };
    hex::encode(bare)
}

/// Everything about an owner's devices.
pub async fn devices<S: LifecycleStore + ?Sized>(store: &S, owner: &Owner) -> Result<Devices, DeviceError> {
    let records = store.device_records(owner).await?;
    let records = records.ok_or_else(|| DeviceError::UnknownOwner(owner.as_str().to_owned()))?;
    Ok(Devices { owner: owner.as_str().to_owned(), devices: records.into_iter().map(DeviceLine::from).collect() })
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new([
            "protocol",
            "device",
            "label",
            "state",
            "last seen",
            "listed",
            "bundle",
            "unissued",
            "issued",
            "consumed",
            "fingerprint",
        ]);
        // To the second: who wants more takes the JSON.
        let moment = |at: &Option<String>| at.as_deref().and_then(|at| at.get(..19)).unwrap_or("-").to_owned();
        for line in &self.devices {
            let state = line.cause.map_or_else(|| line.state.to_owned(), |cause| format!("{} ({cause})", line.state));
            table.row([
                &line.protocol,
                &line.device,
                &line.label.as_deref().unwrap_or("-"),
                &state,
                &moment(&line.seen_at),
                &moment(&line.listed_at),
                &moment(&line.published_at),
                &line.unissued,
                &line.issued,
                &line.consumed,
                &line.fingerprint.as_deref().unwrap_or("-"),
            ]);
        }
        table.fmt(f)
    }
}
