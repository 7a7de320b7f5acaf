//! What appending a batch comes to: which copies are new and wanted, their places and times, the bodies that they share,
//! and what is retracted. Pure: both databases look up what is there, ask for the plan, and write it down.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jid::{BareJid, Jid};

use super::{Appended, StoreError, preferences};
use crate::model::{ArchiveDefault, ArchivedMessage, Class, Copy, KeyExchange, Origin, Retraction};

/// Where an archive ends before the batch, and after the plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct ArchiveEnd {
    /// The account's number.
    pub(super) account: i64,
    /// The place of the next copy.
    pub(super) next_sequence: i64,
    /// The time of the newest copy.
    pub(super) last_at: Option<i64>,
    /// What becomes of messages with those in no list; `None` if the owner has set no preferences.
    pub(super) default: Option<ArchiveDefault>,
    /// The number of the archive's next address, where the database numbers them.
    pub(super) next_address: i64,
}

impl ArchiveEnd {
    /// Whether the owner has set preferences.
    pub(super) fn has_preferences(&self) -> bool {
        self.default.is_some()
    }
}

/// The columns of an account that an append needs.
#[derive(sqlx::FromRow)]
pub(super) struct EndRow {
    jid: String,
    id: i64,
    next_sequence: i64,
    last_at: Option<i64>,
    archive_default: Option<i16>,
    next_address: i64,
}

impl EndRow {
    /// The owner, and where its archive ends.
    pub(super) fn into_end(self) -> Result<(String, ArchiveEnd), StoreError> {
        let end = ArchiveEnd {
            account: self.id,
            next_sequence: self.next_sequence,
            last_at: self.last_at,
            default: self.archive_default.map(preferences::default_from_column).transpose()?,
            next_address: self.next_address,
        };
        Ok((self.jid, end))
    }
}

/// What the owners' lists say of the JIDs of a batch.
#[derive(Debug, Default)]
pub(super) struct Listed(HashMap<(i64, String), bool>);

impl Listed {
    /// Of rows of account, JID, and whether messages with it are kept.
    pub(super) fn new(rows: impl IntoIterator<Item = (i64, String, bool)>) -> Self {
        Self(rows.into_iter().map(|(account, jid, keep)| ((account, jid), keep)).collect())
    }

    /// Whether the owner wants messages with this peer: the full JID goes before the bare one (XEP-0441 §JID matching).
    fn wants(&self, end: &ArchiveEnd, peer: &Jid) -> bool {
        let Some(default) = end.default else { return true };
        let listed = |jid: String| self.0.get(&(end.account, jid)).copied();
        listed(peer.to_string())
            .or_else(|| listed(peer.to_bare().to_string()))
            .unwrap_or(default == ArchiveDefault::Always)
    }
}

/// A body to be stored.
pub(super) struct NewBody<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) expires_at: Option<i64>,
    pub(super) origin: Option<Origin>,
}

/// A copy to be stored.
pub(super) struct NewEntry<'a> {
    pub(super) account: i64,
    pub(super) sequence: i64,
    pub(super) copy: &'a Copy,
    pub(super) peer: BareJid,
    pub(super) class: Class,
    pub(super) at: i64,
    /// Which of the plan's bodies.
    pub(super) body: usize,
    pub(super) size: i32,
}

/// What to write, and what to answer.
pub(super) struct Plan<'a> {
    /// Of messages stored before this batch; to be written before the bodies, which may have the same origin.
    pub(super) retractions: Vec<&'a Retraction>,
    pub(super) bodies: Vec<NewBody<'a>>,
    pub(super) entries: Vec<NewEntry<'a>>,
    pub(super) appended: Vec<Vec<Appended>>,
    /// By owner.
    pub(super) ends: BTreeMap<String, ArchiveEnd>,
}

impl Plan<'_> {
    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.retractions.is_empty()
    }
}

/// The owners of a batch, sorted, each once.
pub(super) fn owners(batch: &[ArchivedMessage]) -> Vec<&str> {
    let owners: BTreeSet<&str> =
        batch.iter().flat_map(|message| &message.copies).map(|copy| copy.owner.as_str()).collect();
    owners.into_iter().collect()
}

/// The key exchanges of a batch.
pub(super) fn key_exchanges(batch: &[ArchivedMessage]) -> Vec<&KeyExchange> {
    batch.iter().flat_map(|message| &message.key_exchanges).collect()
}

/// Plans a batch. `ends` has every owner of it; `known` the (account, archive id) pairs of the batch that are stored.
pub(super) fn plan<'a>(
    batch: &'a [ArchivedMessage],
    ends: BTreeMap<String, ArchiveEnd>,
    mut known: HashSet<(i64, &'a str)>,
    listed: &Listed,
) -> Result<Plan<'a>, StoreError> {
    let mut plan = Plan {
        retractions: Vec::new(),
        bodies: Vec::new(),
        entries: Vec::new(),
        appended: Vec::with_capacity(batch.len()),
        ends,
    };
    for message in batch {
        let mut appended = Vec::with_capacity(message.copies.len());
        let mut body = None;
        let before = plan.bodies.len();
        for copy in &message.copies {
            let end = plan.ends.get_mut(copy.owner.as_str()).ok_or(StoreError::Corrupt("an account vanished"))?;
            let name = (end.account, copy.archive_id.as_str());
            if known.contains(&name) {
                appended.push(Appended::Duplicate);
                continue;
            }
            if !listed.wants(end, &copy.peer) {
                appended.push(Appended::Unwanted);
                continue;
            }
            known.insert(name);
            let at = end.last_at.map_or(message.at.micros(), |last| last.max(message.at.micros()));
            let sequence = end.next_sequence;
            end.next_sequence = sequence.checked_add(1).ok_or(StoreError::Range("sequence"))?;
            end.last_at = Some(at);
            let body = *body.get_or_insert(plan.bodies.len());
            share(&mut plan.bodies, body, message, copy);
            let size = i32::try_from(message.body.len()).map_err(|_| StoreError::Range("body"))?;
            let peer = copy.peer.to_bare();
            plan.entries.push(NewEntry {
                account: end.account,
                sequence,
                copy,
                peer,
                class: message.class,
                at,
                body,
                size,
            });
            appended.push(Appended::Stored(sequence));
        }
        // One that comes again was obeyed when it came first; what has its origin now may be another message.
        if let Some(retraction) = &message.retracts
            && appended.iter().any(|copy| *copy != Appended::Duplicate)
        {
            plan.retract(retraction, before);
        }
        plan.appended.push(appended);
    }
    Ok(plan)
}

impl<'a> Plan<'a> {
    /// Takes back what is stored, and what stands before it in the batch.
    fn retract(&mut self, retraction: &'a Retraction, before: usize) {
        self.retractions.push(retraction);
        for body in self.bodies.iter_mut().take(before).filter(|body| body.origin == Some(retraction.origin)) {
            body.bytes = &retraction.tombstone;
            body.origin = None;
        }
    }
}

/// Makes a body last as long as one more copy, adding it if it is the first.
fn share<'a>(bodies: &mut Vec<NewBody<'a>>, body: usize, message: &'a ArchivedMessage, copy: &Copy) {
    let expiry = copy.expires_at.map(|expiry| expiry.micros());
    match bodies.get_mut(body) {
        // Never, if one of the copies never expires.
        Some(body) => body.expires_at = body.expires_at.zip(expiry).map(|(a, b)| a.max(b)),
        None => bodies.push(NewBody { bytes: &message.body, expires_at: expiry, origin: message.origin }),
    }
}
