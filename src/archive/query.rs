//! Answering queries (XEP-0313): access, page sizes, and the view of the device that asks.
//!
//! An archive answers its owner only (invariant 6). What a page may hold is bounded in messages and in bytes, whatever was
//! asked for.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use jid::Jid;

use super::metrics::{ArchiveMetrics, QueryOutcome};
use super::reader::Reader;
use super::retention::Retention;
use crate::model::{ArchiveId, Clock, Owner, Requester, Setting, StoredCopy, Timestamp, Unreadable};
use crate::stanza::mam::{Ends, Fin, Query, RequestError};
use crate::stanza::rsm;
use crate::store::{Edge, Page, SharedStore, StoreError};

/// How large a page may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimits {
    /// Messages in a page if the query says nothing.
    pub default: u32,
    /// Most messages in a page, whatever the query says.
    pub max: u32,
    /// Most bytes of message bodies in a page; one message is given even if it alone is larger.
    pub max_bytes: usize,
}

impl Default for PageLimits {
    fn default() -> Self {
        Self { default: 50, max: 250, max_bytes: 256 * 1_024 }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The archive belongs to somebody else.
    #[error("an archive can be read by its owner only")]
    Forbidden,
    /// An id that the query names is not in the archive.
    #[error("no message with the id {0} is in the archive")]
    UnknownId(ArchiveId),
    /// A pubsub node: only messages are archived here.
    #[error("there is no archive for this node")]
    UnknownNode,
    /// The request itself cannot be answered.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The database is away; the same query may be answered later.
    #[error("the archive cannot be read now, try again later")]
    Unavailable(#[source] StoreError),
    /// The database failed.
    #[error("the archive could not be read")]
    Failed(#[source] StoreError),
}

impl QueryError {
    fn outcome(&self) -> QueryOutcome {
        match self {
            Self::Forbidden => QueryOutcome::Forbidden,
            Self::UnknownId(_) => QueryOutcome::UnknownId,
            Self::UnknownNode | Self::Request(_) => QueryOutcome::Refused,
            Self::Unavailable(_) => QueryOutcome::Unavailable,
            Self::Failed(_) => QueryOutcome::Failed,
        }
    }
}

impl From<StoreError> for QueryError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Unavailable(error),
            other => Self::Failed(other),
        }
    }
}

/// One message of a page.
#[derive(Clone, PartialEq, Eq)]
pub struct Item {
    /// Its id in this archive.
    pub archive_id: ArchiveId,
    /// When it was sent or received.
    pub at: Timestamp,
    /// Who sent it.
    pub from: Jid,
    /// For whom it was.
    pub to: Jid,
    /// Its body bytes as the asking device sees them; `None`: it has expired or was taken out.
    pub body: Option<Bytes>,
}

impl std::fmt::Debug for Item {
    /// Leaves the body out: message content is never logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Item").field("archive_id", &self.archive_id).finish_non_exhaustive()
    }
}

/// A page, to be sent in this order, and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The messages; newest first if the query wanted the page flipped.
    pub items: Vec<Item>,
    /// What the IQ result says.
    pub fin: Fin,
}

/// The reading side of all archives.
#[derive(Clone)]
pub struct Archive {
    pub(super) store: SharedStore,
    pub(super) limits: Setting<PageLimits>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: ArchiveMetrics,
    pub(super) unreadable: Setting<Unreadable>,
    retention: Setting<Retention>,
}

/// What an archive promises to those whose archive it is: told to clients, and the same for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What is kept, and for how long.
    pub retention: Retention,
    /// What a device is given of messages that have no header for it, unless it chooses otherwise.
    pub unreadable: Unreadable,
    /// Most messages of a page.
    pub page_max: u32,
}

impl Archive {
    /// On this store, with these limits.
    pub fn new(
        store: SharedStore,
        limits: impl Into<Setting<PageLimits>>,
        clock: Arc<dyn Clock>,
        metrics: ArchiveMetrics,
    ) -> Self {
        let (limits, unreadable, retention) = (limits.into(), Setting::default(), Setting::default());
        Self { store, limits, clock, metrics, unreadable, retention }
    }

    /// What a device is given of messages that have no header for it, unless its query says otherwise.
    pub fn with_unreadable(mut self, unreadable: impl Into<Setting<Unreadable>>) -> Self {
        self.unreadable = unreadable.into();
        self
    }

    /// What is kept and for how long, as whoever stores goes by: to be told to clients.
    pub fn with_retention(mut self, retention: impl Into<Setting<Retention>>) -> Self {
        self.retention = retention.into();
        self
    }

    /// What clients are told.
    pub fn policy(&self) -> Policy {
        let (retention, unreadable) = (self.retention.get(), self.unreadable.get());
        Policy { retention, unreadable, page_max: self.limits.get().max }
    }

    /// Answers a query.
    pub async fn query(&self, owner: &Owner, requester: &Requester, query: &Query) -> Result<Answer, QueryError> {
        let started = Instant::now();
        let kind = if query.max == Some(0) { "count" } else { "page" };
        let answer = async {
            admit(owner, requester)?;
            if query.node.is_some() {
                return Err(QueryError::UnknownNode);
            }
            let reader = Reader::new(self, owner, requester, query);
            let answer = match query.max {
                Some(0) => self.count(owner, query).await,
                max => self.page(&reader, query, max.unwrap_or_else(|| self.limits.get().default)).await,
            }?;
            self.infer_read(&reader, query).await;
            Ok(answer)
        }
        .await;
        self.note(kind, started, answer.as_ref().err());
        answer
    }

    /// The ends of an archive; `None` if it is empty (XEP-0313 §5).
    pub async fn metadata(&self, owner: &Owner, requester: &Requester) -> Result<Option<Ends>, QueryError> {
        let started = Instant::now();
        let ends = async {
            admit(owner, requester)?;
            let ends = self.store.ends(owner, self.clock.now()).await?;
            let end = |copy: StoredCopy| (copy.archive_id, copy.at);
            Ok(ends.map(|(oldest, newest)| Ends { oldest: end(oldest), newest: end(newest) }))
        }
        .await;
        self.note("metadata", started, ends.as_ref().err());
        ends
    }

    fn note(&self, kind: &str, started: Instant, error: Option<&QueryError>) {
        if let Some(QueryError::Unavailable(cause) | QueryError::Failed(cause)) = error {
            tracing::error!(%cause, "an archive could not be read");
        }
        self.metrics.query(kind, error.map_or(QueryOutcome::Answered, QueryError::outcome), started.elapsed());
    }

    /// How many messages match (XEP-0059 §2.7).
    async fn count(&self, owner: &Owner, query: &Query) -> Result<Answer, QueryError> {
        let now = self.clock.now();
        // The count itself does not say whether an id that the query names is there.
        let probe = self.page_query(owner, &query.filter, Edge::First, 1, self.limits.get().max_bytes);
        if let Page::UnknownId(id) = self.store.page(&probe, now).await? {
            return Err(QueryError::UnknownId(id));
        }
        let count = self.store.count(owner, &query.filter, now).await?;
        let set = rsm::Reply { ends: None, count: Some(count) };
        Ok(Answer { items: Vec::new(), fin: Fin { complete: count == 0, stable: true, set, expired_before: None } })
    }
}

pub(super) fn admit(owner: &Owner, requester: &Requester) -> Result<(), QueryError> {
    if requester.is(owner) { Ok(()) } else { Err(QueryError::Forbidden) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The rest is tested on real databases: tests/archive_on_databases.rs.
    #[test]
    fn a_database_that_is_away_is_told_from_one_that_fails() {
        let away = QueryError::from(StoreError::Unavailable(sqlx::Error::PoolTimedOut));
        assert_eq!((away.outcome(), matches!(away, QueryError::Unavailable(_))), (QueryOutcome::Unavailable, true));
        let failed = QueryError::from(StoreError::Corrupt("x"));
        assert_eq!((failed.outcome(), matches!(failed, QueryError::Failed(_))), (QueryOutcome::Failed, true));
    }
}
