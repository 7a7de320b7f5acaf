//! Paging, as far as it is the same on every database: what a query names, the range of the sequence that it comes down
//! to, and where a page ends.
//!
//! Every condition but `with` and `ids` becomes a bound on the sequence, so that a page is one scan of an index from its
//! edge, however long the archive is.

use std::collections::{BTreeSet, HashMap};

use super::columns::EntryRow;
use super::{Edge, Filter};
use crate::model::{ArchiveId, Timestamp};

/// The sequence numbers behind the ids that a query names.
pub(super) type Places = HashMap<String, i64>;

/// Every id that a query names: edge, after-id, before-id, ids.
pub(super) fn named<'a>(filter: &'a Filter, edge: Option<&'a Edge>) -> Vec<&'a ArchiveId> {
    let edge = edge.and_then(|edge| match edge {
        Edge::After(id) | Edge::Before(id) => Some(id),
        Edge::First | Edge::Last => None,
    });
    edge.into_iter().chain(&filter.after_id).chain(&filter.before_id).chain(&filter.ids).collect()
}

/// The part of the sequence that a query is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    /// Only greater ones.
    pub(super) after: i64,
    /// Only smaller ones.
    pub(super) before: i64,
    /// Only these, if given.
    pub(super) among: Option<Vec<i64>>,
    /// From the newest to the oldest.
    pub(super) backwards: bool,
    /// Whether it reaches back to before the oldest copy: an id that is still there bounds it otherwise.
    pub(super) from_the_oldest: bool,
}

impl Range {
    /// The range of a query. `start` and `end` are the first place at or after, and the last place at or before, the times
    /// of the filter: `None` where no copy is. `Err` carries a named id that has no place.
    pub(super) fn new(
        filter: &Filter,
        edge: Option<&Edge>,
        places: &Places,
        (start, end): (Option<i64>, Option<i64>),
    ) -> Result<Self, ArchiveId> {
        let place = |id: &ArchiveId| places.get(id.as_str()).copied().ok_or_else(|| id.clone());
        let mut range = Self {
            after: i64::MIN,
            before: i64::MAX,
            among: None,
            backwards: matches!(edge, Some(Edge::Last | Edge::Before(_))),
            from_the_oldest: filter.ids.is_empty(),
        };
        match edge {
            Some(Edge::After(id)) => range.later_than(place(id)?),
            Some(Edge::Before(id)) => range.before = range.before.min(place(id)?),
            Some(Edge::First | Edge::Last) | None => {}
        }
        if let Some(id) = &filter.after_id {
            range.later_than(place(id)?);
        }
        if let Some(id) = &filter.before_id {
            range.before = range.before.min(place(id)?);
        }
        if !filter.ids.is_empty() {
            let places: BTreeSet<i64> = filter.ids.iter().map(place).collect::<Result<_, _>>()?;
            range.among = Some(places.into_iter().collect());
        }
        if filter.start.is_some() {
            range.after = range.after.max(start.map_or(i64::MAX, |first| first.saturating_sub(1)));
        }
        if filter.end.is_some() {
            range.before = range.before.min(end.map_or(i64::MIN, |last| last.saturating_add(1)));
        }
        Ok(range)
    }

    fn later_than(&mut self, place: i64) {
        self.after = self.after.max(place);
        self.from_the_oldest = false;
    }
}

/// What is known of the copies trimmed from an archive's oldest end.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(super) struct Trimmed {
    /// The newest moment at which one of them expired.
    pub(super) expired_until: Option<i64>,
    /// The newest time of one of them.
    pub(super) sent_until: Option<i64>,
}

impl Trimmed {
    /// When the last of them that the query may have matched expired.
    pub(super) fn concerning(self, filter: &Filter, range: &Range) -> Option<Timestamp> {
        let too_old = match (filter.start, self.sent_until) {
            (Some(start), Some(sent)) => start.micros() > sent,
            _ => false,
        };
        self.expired_until.filter(|_| range.from_the_oldest && !too_old).map(Timestamp::from_micros)
    }
}

/// How many rows to ask for to tell whether a page of `max` is complete.
pub(super) fn one_more(max: u32) -> i64 {
    i64::from(max.max(1)).saturating_add(1)
}

/// Cuts rows, in the direction of the paging, to `max` rows and `max_bytes` of bodies, but never to none. Gives the rows
/// oldest first and whether all of them were kept.
pub(super) fn cut(
    mut rows: Vec<EntryRow>,
    range: &Range,
    max: u32,
    max_bytes: usize,
    now: Timestamp,
) -> (Vec<EntryRow>, bool) {
    let most = usize::try_from(max.max(1)).unwrap_or(usize::MAX);
    let mut bytes = 0_usize;
    let kept = rows
        .iter()
        .take(most)
        .enumerate()
        .take_while(|(place, row)| {
            bytes = bytes.saturating_add(row.live_size(now));
            *place == 0 || bytes <= max_bytes
        })
        .count();
    let complete = kept == rows.len();
    rows.truncate(kept);
    if range.backwards {
        rows.reverse();
    }
    (rows, complete)
}
