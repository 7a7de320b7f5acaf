//! Rows about the lives of devices, the same from every database.

use super::lifecycle::{
    DevicePlace, DeviceRecord, DeviceState, DeviceStates, DuePage, DuePlace, OwnerRecord, QuarantineCause,
};
use super::{Stock, StoreError, columns};
use crate::model::{Device, DeviceId, Owner, Protocol, Timestamp};

/// The number that stands for a cause.
pub(super) fn cause_code(cause: QuarantineCause) -> i16 {
    match cause {
        QuarantineCause::NoBundle => 1,
        QuarantineCause::Unseen => 2,
        QuarantineCause::Operator => 3,
    }
}

/// A device by its account's JID and its columns.
pub(super) fn place(jid: &str, protocol: i16, device: i32) -> Result<DevicePlace, StoreError> {
    Ok(DevicePlace { owner: owner(jid)?, protocol: protocol_of(protocol)?, device: columns::device(device)? })
}

fn owner(jid: &str) -> Result<Owner, StoreError> {
    Owner::parse(jid).map_err(|_| StoreError::Corrupt("account"))
}

fn protocol_of(code: i16) -> Result<Protocol, StoreError> {
    Protocol::from_code(code).ok_or(StoreError::Corrupt("protocol"))
}

/// What the list said of a device that is in quarantine.
#[derive(sqlx::FromRow)]
pub(super) struct QuarantinedDevice {
    label: Option<String>,
    label_signature: Option<String>,
}

impl QuarantinedDevice {
    /// The entry of the list.
    pub(super) fn into_device(self, id: DeviceId) -> Device {
        Device { id, label: self.label, label_signature: self.label_signature }
    }
}

/// A device that may be due.
#[derive(sqlx::FromRow)]
pub(super) struct DueRow {
    #[sqlx(flatten)]
    at: DuePlace,
    jid: String,
    due: bool,
}

/// The page that rows make, of which there were to be at most `limit`.
pub(super) fn due_page(rows: Vec<DueRow>, limit: u32) -> Result<DuePage, StoreError> {
    let full = u32::try_from(rows.len()).is_ok_and(|read| read >= limit);
    let next = rows.last().map(|row| row.at).filter(|_| full);
    let due = rows.into_iter().filter(|row| row.due);
    let devices = due.map(|row| place(&row.jid, row.at.protocol, row.at.device)).collect::<Result<_, _>>()?;
    Ok(DuePage { devices, next })
}

/// Counts by protocol, and whether of quarantined devices.
pub(super) fn device_states(rows: &[(i16, bool, i64)]) -> DeviceStates {
    let count = |quarantined: bool| {
        Protocol::ALL.map(|protocol| {
            let of = rows.iter().filter(|row| row.0 == protocol.code() && row.1 == quarantined);
            of.map(|row| columns::total(row.2)).sum()
        })
    };
    DeviceStates { listed: count(false), quarantined: count(true) }
}

/// All about one device.
#[derive(sqlx::FromRow)]
pub(super) struct DeviceRow {
    protocol: i16,
    device: i32,
    label: Option<String>,
    listed: bool,
    quarantined_at: Option<i64>,
    cause: Option<i16>,
    seen_at: Option<i64>,
    listed_at: Option<i64>,
    published_at: Option<i64>,
    identity_key: Option<Vec<u8>>,
    unissued: i64,
    issued: i64,
    consumed: i64,
}

impl DeviceRow {
    /// The record.
    pub(super) fn into_record(self) -> Result<DeviceRecord, StoreError> {
        let state = match (self.quarantined_at, self.listed) {
            (Some(at), _) => {
                let cause = QuarantineCause::ALL.into_iter().find(|cause| Some(cause_code(*cause)) == self.cause);
                DeviceState::Quarantined(
                    Timestamp::from_micros(at),
                    cause.ok_or(StoreError::Corrupt("cause of a quarantine"))?,
                )
            }
            (None, true) => DeviceState::Listed,
            (None, false) => DeviceState::Unlisted,
        };
        Ok(DeviceRecord {
            protocol: protocol_of(self.protocol)?,
            device: columns::device(self.device)?,
            label: self.label,
            state,
            seen_at: self.seen_at.map(Timestamp::from_micros),
            listed_at: self.listed_at.map(Timestamp::from_micros),
            published_at: self.published_at.map(Timestamp::from_micros),
            identity_key: self.identity_key,
            stock: Stock { unissued: columns::few(self.unissued), issued: columns::few(self.issued) },
            consumed: columns::few(self.consumed),
        })
    }
}

/// One owner.
#[derive(sqlx::FromRow)]
pub(super) struct OwnerRow {
    jid: String,
    listed_legacy: i64,
    listed_omemo2: i64,
    quarantined: i64,
    bundles: i64,
}

impl OwnerRow {
    /// The record.
    pub(super) fn into_record(self) -> Result<OwnerRecord, StoreError> {
        Ok(OwnerRecord {
            owner: owner(&self.jid)?,
            listed: [columns::total(self.listed_legacy), columns::total(self.listed_omemo2)],
            quarantined: columns::total(self.quarantined),
            bundles: columns::total(self.bundles),
        })
    }
}
