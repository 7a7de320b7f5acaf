//! One page, as the asking device sees it.
//!
//! A page that leaves messages out is filled up from what follows, as far as [`SCANNED`] allows. It is never empty unless
//! nothing follows at all: a client pages on from the ids that it was given. So every page brings a client forward, and
//! `complete` means what it says.

use bytes::Bytes;
use jid::{BareJid, Jid};

use super::query::{Answer, Archive, Item, QueryError};
use super::reader::Reader;
use super::view::Viewer;
use crate::model::{ArchiveId, Class, Direction, Owner, StoredCopy};
use crate::stanza::mam::{Fin, Query};
use crate::stanza::rsm;
use crate::store::{Edge, Filter, Page, PageQuery};

/// Most copies that are read for one page, where some are left out of it.
const SCANNED: usize = 1_000;

/// A page in the making, oldest first.
#[derive(Default)]
struct Made {
    items: Vec<Item>,
    bytes: usize,
    scanned: usize,
    /// The last copy read, if it was left out: its id, and what could be given in its stead.
    last: Option<Item>,
}

impl Archive {
    pub(super) async fn page(&self, reader: &Reader<'_>, query: &Query, max: u32) -> Result<Answer, QueryError> {
        let limits = self.limits.get();
        let max = max.min(limits.max).max(1);
        let backwards = matches!(query.edge, Edge::Last | Edge::Before(_));
        let mut made = Made::default();
        let mut edge = query.edge.clone();
        let mut viewer = None;
        let mut expired_before = None;
        let complete = loop {
            let left = max.saturating_sub(u32::try_from(made.items.len()).unwrap_or(max)).max(1);
            let bytes = limits.max_bytes.saturating_sub(made.bytes);
            let asked = self.page_query(reader.owner, &query.filter, edge, left, bytes);
            let first = made.scanned == 0;
            let (mut copies, complete) = match self.store.page(&asked, self.clock.now()).await? {
                Page::Copies { copies, complete, expired_before: expired } => {
                    if first {
                        expired_before = expired;
                    }
                    (copies, complete)
                }
                // Purged since the step before.
                Page::UnknownId(_) if !first => break false,
                Page::UnknownId(id) => return Err(QueryError::UnknownId(id)),
            };
            if viewer.is_none() && copies.iter().any(could_be_trimmed) {
                viewer = Some(reader.viewer().await?);
            }
            if backwards {
                copies.reverse();
            }
            let mut last_id = None;
            for copy in copies {
                last_id = Some(copy.archive_id.clone());
                self.add(&mut made, reader.owner, viewer.as_ref(), copy);
            }
            let all_given = first && made.items.len() == made.scanned;
            let full = made.items.len() >= usize::try_from(max).unwrap_or(usize::MAX)
                || (!made.items.is_empty() && made.bytes.saturating_mul(2) >= limits.max_bytes);
            match last_id {
                Some(id) if !complete && !all_given && !full && made.scanned < SCANNED => {
                    edge = if backwards { Edge::Before(id) } else { Edge::After(id) };
                }
                _ => break complete,
            }
        };
        if made.items.is_empty() && !complete {
            // So that the client has an id to page on from.
            made.items.extend(made.last.take());
        }
        let Made { mut items, bytes, .. } = made;
        self.metrics.page(items.len(), bytes);
        if backwards {
            items.reverse();
        }
        let ends = items
            .first()
            .zip(items.last())
            .map(|(first, last)| (first.archive_id.to_string(), last.archive_id.to_string()));
        if query.flip_page {
            items.reverse();
        }
        let set = rsm::Reply { ends, count: None };
        Ok(Answer { items, fin: Fin { complete, stable: true, set, expired_before } })
    }

    pub(super) fn page_query(
        &self,
        owner: &Owner,
        filter: &Filter,
        edge: Edge,
        max: u32,
        max_bytes: usize,
    ) -> PageQuery {
        PageQuery { owner: owner.clone(), filter: filter.clone(), edge, max, max_bytes }
    }

    /// Adds one copy to a page, or leaves it out.
    fn add(&self, made: &mut Made, owner: &Owner, viewer: Option<&Viewer>, copy: StoredCopy) {
        made.scanned = made.scanned.saturating_add(1);
        let own = full(owner.jid(), copy.own_resource.as_deref());
        let peer = full(&copy.peer, copy.peer_resource.as_deref());
        let (from, to) = match copy.direction {
            Direction::Sent => (own, peer),
            Direction::Received => (peer, own),
        };
        let (body, omit) = match (copy.body, viewer) {
            (Some(body), Some(viewer)) => self.seen(&copy.archive_id, viewer, body),
            (body, _) => (body, false),
        };
        let bytes = body.as_ref().map_or(0, Bytes::len);
        let item = Item { archive_id: copy.archive_id, at: copy.at, from, to, body };
        if omit {
            self.metrics.omitted(bytes);
            made.last = Some(item);
        } else {
            made.bytes = made.bytes.saturating_add(bytes);
            made.items.push(item);
        }
    }

    /// A body as the viewer sees it, and whether it is to be left out.
    fn seen(&self, id: &ArchiveId, viewer: &Viewer, body: Bytes) -> (Option<Bytes>, bool) {
        match viewer.view(&body) {
            Ok(view) => {
                self.metrics.trimmed(view.saved, !view.not_for_viewer.is_empty());
                (Some(view.body), view.omit)
            }
            Err(_) => {
                // The error itself may quote the message.
                tracing::error!(%id, "a stored message cannot be read for trimming; it is given whole");
                (Some(body), false)
            }
        }
    }
}

/// Whether who looks makes a difference.
fn could_be_trimmed(copy: &StoredCopy) -> bool {
    copy.body.is_some() && matches!(copy.class, Class::Content | Class::KeyTransport)
}

/// The JID with its resource, where there is one that can be.
fn full(bare: &BareJid, resource: Option<&str>) -> Jid {
    resource
        .and_then(|resource| bare.with_resource_str(resource).ok())
        .map_or_else(|| Jid::from(bare.clone()), Jid::from)
}
