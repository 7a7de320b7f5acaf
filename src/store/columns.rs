//! From columns to the words of the design. A value that no version of this program writes is [`StoreError::Corrupt`].

use bytes::Bytes;
use jid::{BareJid, Jid};

use super::{NodeKind, Notice, NoticeKind, PrekeyState, StoreError};
use crate::model::{
    ArchiveId, Class, Device, DeviceId, DeviceList, Direction, Owner, Prekey, PrekeyId, Protocol, SessionJid,
    SignedPrekey, StoredCopy, Timestamp,
};

/// A device's id.
pub(super) fn device(id: i32) -> Result<DeviceId, StoreError> {
    DeviceId::from_sql(id).map_err(|_| StoreError::Corrupt("device id"))
}

/// Device ids.
pub(super) fn devices(ids: Vec<i32>) -> Result<Vec<DeviceId>, StoreError> {
    ids.into_iter().map(device).collect()
}

/// A prekey's id.
pub(super) fn prekey_id(id: i32) -> Result<PrekeyId, StoreError> {
    PrekeyId::from_sql(id).map_err(|_| StoreError::Corrupt("prekey id"))
}

/// A one-time prekey.
pub(super) fn prekey(id: i32, key: Vec<u8>) -> Result<Prekey, StoreError> {
    Ok(Prekey { id: prekey_id(id)?, key })
}

/// What became of prekeys: ids, each with 0 (unissued), 1 (issued) or 2 (consumed). Of one id that several keys have had, the
/// first counts: the one in force, or the one issued last.
pub(super) fn prekey_states(rows: Vec<(i32, i32)>) -> Result<Vec<(PrekeyId, PrekeyState)>, StoreError> {
    let mut known = std::collections::BTreeSet::new();
    let mut states = Vec::with_capacity(rows.len());
    for (id, state) in rows {
        let id = PrekeyId::from_sql(id).map_err(|_| StoreError::Corrupt("prekey id"))?;
        let state = match state {
            0 => PrekeyState::Unissued,
            1 => PrekeyState::Issued,
            2 => PrekeyState::Consumed,
            _ => return Err(StoreError::Corrupt("state of a prekey")),
        };
        if known.insert(id) {
            states.push((id, state));
        }
    }
    Ok(states)
}

/// A session of an owner, by its resource.
pub(super) fn session(owner: &Owner, resource: &str) -> Result<SessionJid, StoreError> {
    let jid = owner.jid().with_resource_str(resource).map_err(|_| StoreError::Corrupt("resource"))?;
    Ok(SessionJid::new(jid))
}

/// A JID in a column of subscribers.
pub(super) fn jid(text: &str) -> Result<Jid, StoreError> {
    Jid::new(text).map_err(|_| StoreError::Corrupt("JID"))
}

/// A number of rows that is never negative.
pub(super) fn total(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// A number of rows of one device: far below the bound.
pub(super) fn few(count: i64) -> u32 {
    u32::try_from(count).unwrap_or(if count < 0 { 0 } else { u32::MAX })
}

/// The number that stands for a kind of node.
pub(super) fn node_code(node: NodeKind) -> i16 {
    match node {
        NodeKind::DeviceList => 1,
        NodeKind::Bundles => 2,
    }
}

/// The number that stands for a direction.
pub(super) fn direction_code(direction: Direction) -> i16 {
    match direction {
        Direction::Sent => 1,
        Direction::Received => 2,
    }
}

/// The number that stands for a kind of notice.
pub(super) fn notice_code(kind: NoticeKind) -> i16 {
    match kind {
        NoticeKind::ListChanged => 1,
        NoticeKind::LowStock => 2,
        NoticeKind::Quarantined => 3,
        NoticeKind::Removed => 4,
        NoticeKind::Restored => 5,
    }
}

/// A row of `notice`, with the account's JID.
#[derive(sqlx::FromRow)]
pub(super) struct NoticeRow {
    jid: String,
    pub(super) account: i64,
    pub(super) protocol: i16,
    pub(super) kind: i16,
    pub(super) device: i32,
    at: i64,
}

impl NoticeRow {
    /// The notice.
    pub(super) fn into_notice(self) -> Result<Notice, StoreError> {
        let kind = NoticeKind::ALL.into_iter().find(|kind| notice_code(*kind) == self.kind);
        Ok(Notice {
            owner: Owner::parse(&self.jid).map_err(|_| StoreError::Corrupt("owner"))?,
            protocol: Protocol::from_code(self.protocol).ok_or(StoreError::Corrupt("protocol"))?,
            device: if self.device == 0 { None } else { Some(device(self.device)?) },
            kind: kind.ok_or(StoreError::Corrupt("kind of notice"))?,
            at: Timestamp::from_micros(self.at),
        })
    }
}

/// A device of a list, from a left join: without device where the list is empty.
#[derive(sqlx::FromRow)]
pub(super) struct ListedDevice {
    device: Option<i32>,
    label: Option<String>,
    label_signature: Option<String>,
}

/// The list behind the rows of its left join; no row at all means that there is no list.
pub(super) fn device_list(rows: Vec<ListedDevice>) -> Result<Option<DeviceList>, StoreError> {
    if rows.is_empty() {
        return Ok(None);
    }
    let mut devices = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(id) = row.device else { continue };
        devices.push(Device { id: device(id)?, label: row.label, label_signature: row.label_signature });
    }
    DeviceList::new(devices).map(Some).map_err(|_| StoreError::Corrupt("device list"))
}

/// The keys of a bundle that every requester gets.
#[derive(sqlx::FromRow)]
pub(super) struct BundleKeys {
    pub(super) item_id: String,
    pub(super) identity_key: Vec<u8>,
    signed_prekey_id: i64,
    signed_prekey: Vec<u8>,
    signed_prekey_signature: Vec<u8>,
}

impl BundleKeys {
    /// The identity key, the signed prekey, and the item id.
    pub(super) fn into_parts(self) -> Result<(Vec<u8>, SignedPrekey, String), StoreError> {
        let id = u32::try_from(self.signed_prekey_id).map_err(|_| StoreError::Corrupt("signed prekey id"))?;
        let signed = SignedPrekey { id, key: self.signed_prekey, signature: self.signed_prekey_signature };
        Ok((self.identity_key, signed, self.item_id))
    }
}

/// A row of `entry`.
#[derive(sqlx::FromRow)]
pub(super) struct EntryRow {
    pub(super) sequence: i64,
    archive_id: String,
    peer: String,
    peer_resource: Option<String>,
    own_resource: Option<String>,
    direction: i16,
    class: i16,
    at: i64,
    expires_at: Option<i64>,
    body: Option<i64>,
    size: i32,
}

impl EntryRow {
    /// Its columns, for a SELECT.
    pub(super) const COLUMNS: &str =
        "sequence, archive_id, peer, peer_resource, own_resource, direction, class, at, expires_at, body, size";

    /// The id of its body, if it is not a placeholder at `now`.
    pub(super) fn live_body(&self, now: Timestamp) -> Option<i64> {
        self.body.filter(|_| self.expires_at.is_none_or(|expiry| expiry > now.micros()))
    }

    /// The length of its body, 0 for a placeholder.
    pub(super) fn live_size(&self, now: Timestamp) -> usize {
        self.live_body(now).map_or(0, |_| usize::try_from(self.size).unwrap_or(0))
    }

    /// The copy, with the body that was read for it.
    pub(super) fn into_copy(self, body: Option<Bytes>) -> Result<StoredCopy, StoreError> {
        Ok(StoredCopy {
            archive_id: ArchiveId::parse(&self.archive_id).map_err(|_| StoreError::Corrupt("archive id"))?,
            sequence: self.sequence,
            at: Timestamp::from_micros(self.at),
            direction: match self.direction {
                1 => Direction::Sent,
                2 => Direction::Received,
                _ => return Err(StoreError::Corrupt("direction")),
            },
            peer: BareJid::new(&self.peer).map_err(|_| StoreError::Corrupt("peer"))?,
            peer_resource: self.peer_resource,
            own_resource: self.own_resource,
            class: Class::from_code(self.class).ok_or(StoreError::Corrupt("class"))?,
            body,
        })
    }
}
