//! How far devices have read (DESIGN, "cursor"): what they say themselves, and what follows from how they page.
//!
//! A page that was sent is not a page that was read: the stream may have broken. Only what a device asks for next, after an
//! id that it has, tells. And only a query for everything tells that nothing before that id is missing.

use super::query::{Archive, QueryError, admit};
use super::reader::Reader;
use crate::model::{ArchiveId, Owner, ProtocolDevice, Requester};
use crate::stanza::mam::Query;
use crate::store::{Edge, Filter};

/// Why a word about how far a device has read is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not certain which device the session is.
    #[error("it is not known which device this session is; it has to publish its bundle or send a message first")]
    UnknownDevice,
    /// As for a query.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl Archive {
    /// The asking session's device has everything up to the copy with this id. Where the session has been seen to be several
    /// devices of one protocol, `device` says which of them it is.
    pub async fn read_up_to(
        &self,
        owner: &Owner,
        requester: &Requester,
        id: &ArchiveId,
        device: Option<ProtocolDevice>,
    ) -> Result<(), ReadError> {
        admit(owner, requester)?;
        let reader = Reader::session(self, owner, requester);
        let devices = match device {
            Some(device) => {
                let known = reader.known().await.map_err(QueryError::from)?;
                known.iter().copied().filter(|known| *known == device).collect()
            }
            None => reader.certain().await.map_err(QueryError::from)?,
        };
        if devices.is_empty() {
            return Err(ReadError::UnknownDevice);
        }
        let moved = self.store.move_cursors(owner, &devices, id, self.clock.now()).await.map_err(QueryError::from)?;
        let behind = moved.ok_or_else(|| QueryError::UnknownId(id.clone()))?;
        self.metrics.read_up_to(behind);
        Ok(())
    }

    /// A session that asks for everything after an id has everything up to it. The answer does not depend on this.
    pub(super) async fn infer_read(&self, reader: &Reader<'_>, query: &Query) {
        let Edge::After(id) = &query.edge else { return };
        if query.filter != Filter::default() {
            return;
        }
        let moved = async {
            let devices = reader.certain().await?;
            if devices.is_empty() {
                return Ok(None);
            }
            self.store.move_cursors(reader.owner, &devices, id, self.clock.now()).await
        };
        match moved.await {
            Ok(Some(behind)) => self.metrics.read_up_to(behind),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "could not note how far a device has read"),
        }
    }
}
