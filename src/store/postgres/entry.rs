//! A row of `entry`: one copy, in 96 bytes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jid::{BareJid, Jid};
use sha2::{Digest as _, Sha256};

use super::address::Addresses;
use crate::model::{ArchiveId, Class, Direction, StoredCopy, Timestamp};
use crate::store::StoreError;

/// In place of a moment that never comes.
pub(super) const NEVER: i64 = i64::MAX;

const RECEIVED: i8 = 1;
const BASE64: i8 = 8;

/// An archive id as a row has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredId {
    /// What the index finds it by.
    pub(super) key: i32,
    /// What its text is base64 of, or the text itself.
    pub(super) bytes: Vec<u8>,
    /// Its part of [`EntryRow::kind`].
    pub(super) form: i8,
}

impl StoredId {
    /// The one form that an id has.
    pub(super) fn of(id: &ArchiveId) -> Self {
        let text = id.as_str();
        let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let key = hash.first_chunk().copied().map(i32::from_be_bytes).unwrap_or_default();
        // Takes nothing but the one way to write the bytes.
        match URL_SAFE_NO_PAD.decode(text) {
            Ok(bytes) => Self { key, bytes, form: BASE64 },
            Err(_) => Self { key, bytes: text.as_bytes().to_vec(), form: 0 },
        }
    }
}

/// What a row says in one byte.
pub(super) fn kind(direction: Direction, class: Class, id: &StoredId) -> i8 {
    let direction = if direction == Direction::Received { RECEIVED } else { 0 };
    let class = match class {
        Class::Content => 0,
        Class::KeyTransport => 2,
        Class::Plain => 4,
        Class::Signal => 6,
    };
    direction | class | id.form
}

/// The class that a row says.
pub(super) fn class(kind: i8) -> Class {
    match kind & 0b110 {
        0 => Class::Content,
        2 => Class::KeyTransport,
        4 => Class::Plain,
        _ => Class::Signal,
    }
}

/// The columns of a row that a page needs.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct EntryRow {
    pub(super) sequence: i32,
    at: i64,
    expires_at: i64,
    pub(super) peer: i32,
    pub(super) peer_full: i32,
    pub(super) own_full: i32,
    block: i32,
    position: i16,
    kind: i8,
    archive_id: Vec<u8>,
}

impl EntryRow {
    /// The columns, for a SELECT.
    pub(super) const COLUMNS: &str =
        "sequence, at, expires_at, peer, peer_full, own_full, block, position, kind, archive_id";

    /// Where its message is, if it is not a placeholder at `now`.
    pub(super) fn place(&self, now: Timestamp) -> Option<(i32, i16)> {
        (self.block != 0 && self.expires_at > now.micros()).then_some((self.block, self.position))
    }

    /// The copy, with the message that was read for it.
    pub(super) fn into_copy(self, body: Option<Bytes>, addresses: &Addresses) -> Result<StoredCopy, StoreError> {
        let peer = BareJid::new(addresses.jid(self.peer)?).map_err(|_| StoreError::Corrupt("peer"))?;
        let resource = |number: i32| -> Result<Option<String>, StoreError> {
            if number == 0 {
                return Ok(None);
            }
            let jid = Jid::new(addresses.jid(number)?).map_err(|_| StoreError::Corrupt("address"))?;
            Ok(jid.resource().map(|resource| resource.as_str().to_owned()))
        };
        let id = if self.kind & BASE64 == 0 {
            String::from_utf8(self.archive_id).map_err(|_| StoreError::Corrupt("archive id"))?
        } else {
            URL_SAFE_NO_PAD.encode(&self.archive_id)
        };
        Ok(StoredCopy {
            archive_id: ArchiveId::parse(&id).map_err(|_| StoreError::Corrupt("archive id"))?,
            sequence: i64::from(self.sequence),
            at: Timestamp::from_micros(self.at),
            direction: if self.kind & RECEIVED == 0 { Direction::Sent } else { Direction::Received },
            peer,
            peer_resource: resource(self.peer_full)?,
            own_resource: resource(self.own_full)?,
            class: class(self.kind),
            body,
        })
    }
}

/// Looks ids up in archives: gives, for each that is there, its place among those asked and its sequence number.
pub(super) async fn find(
    connection: &mut sqlx::PgConnection,
    named: &[(i64, StoredId)],
) -> Result<Vec<(usize, i64)>, StoreError> {
    // A LATERAL with LIMIT is looked up one after the other, whatever the planner thinks of the archive.
    let rows: Vec<(i64, i32)> = sqlx::query_as(
        "SELECT named.place, found.sequence
         FROM unnest($1::bigint[], $2::integer[], $3::bytea[], $4::integer[]) WITH ORDINALITY
             AS named (account, key, id, form, place)
         CROSS JOIN LATERAL (SELECT sequence FROM entry
             WHERE account = named.account AND id_key = named.key AND archive_id = named.id
             AND kind::integer & 8 = named.form LIMIT 1) AS found",
    )
    .bind(named.iter().map(|(account, _)| *account).collect::<Vec<_>>())
    .bind(named.iter().map(|(_, id)| id.key).collect::<Vec<_>>())
    .bind(named.iter().map(|(_, id)| id.bytes.as_slice()).collect::<Vec<_>>())
    .bind(named.iter().map(|(_, id)| i32::from(id.form)).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let place = |place: i64| usize::try_from(place.saturating_sub(1)).map_err(|_| StoreError::Corrupt("place"));
    rows.into_iter().map(|(named, sequence)| Ok((place(named)?, i64::from(sequence)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_by_what_it_is_stored_as() {
        let stored = |text: &str| StoredId::of(&ArchiveId::parse(text).unwrap());
        // 128 bits as this server writes them; 96 as Prosody does; digits as ejabberd does.
        assert_eq!(stored("AAECAwQFBgcICQoLDA0ODw").bytes.len(), 16);
        assert_eq!(stored("AAECAwQFBgcICQoL").bytes.len(), 12);
        assert_eq!(stored("1700000000123456").form, BASE64);
        // Bits left over, an impossible length, other characters.
        for text in ["AAECAwQFBgcICQoLDA0ODx", "AAECA", "a.b", "3f2b8c7e+91"] {
            assert_eq!((stored(text).bytes, stored(text).form), (text.as_bytes().to_vec(), 0), "{text}");
        }
        assert_eq!(stored("x").key, 0x2d71_1642);
    }
}
