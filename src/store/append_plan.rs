//! What appending a batch comes to: which copies are new, their places and times, and the bodies that they share. Pure:
//! both databases look up what is there, ask for the plan, and write it down.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jid::BareJid;

use super::{Appended, StoreError};
use crate::model::{ArchivedMessage, Class, Copy, KeyExchange};

/// Where an archive ends before the batch, and after the plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct ArchiveEnd {
    /// The account's number.
    pub(super) account: i64,
    /// The place of the next copy.
    pub(super) next_sequence: i64,
    /// The time of the newest copy.
    pub(super) last_at: Option<i64>,
}

/// A body to be stored.
pub(super) struct NewBody<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) expires_at: Option<i64>,
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
    pub(super) bodies: Vec<NewBody<'a>>,
    pub(super) entries: Vec<NewEntry<'a>>,
    pub(super) appended: Vec<Vec<Appended>>,
    /// By owner.
    pub(super) ends: BTreeMap<String, ArchiveEnd>,
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
pub(super) fn plan(
    batch: &[ArchivedMessage],
    ends: BTreeMap<String, ArchiveEnd>,
    mut known: HashSet<(i64, String)>,
) -> Result<Plan<'_>, StoreError> {
    let mut plan = Plan { bodies: Vec::new(), entries: Vec::new(), appended: Vec::with_capacity(batch.len()), ends };
    for message in batch {
        let mut appended = Vec::with_capacity(message.copies.len());
        let mut body = None;
        for copy in &message.copies {
            let end = plan.ends.get_mut(copy.owner.as_str()).ok_or(StoreError::Corrupt("an account vanished"))?;
            if !known.insert((end.account, copy.archive_id.as_str().to_owned())) {
                appended.push(Appended::Duplicate);
                continue;
            }
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
        plan.appended.push(appended);
    }
    Ok(plan)
}

/// Makes a body last as long as one more copy, adding it if it is the first.
fn share<'a>(bodies: &mut Vec<NewBody<'a>>, body: usize, message: &'a ArchivedMessage, copy: &Copy) {
    let expiry = copy.expires_at.map(|expiry| expiry.micros());
    match bodies.get_mut(body) {
        // Never, if one of the copies never expires.
        Some(body) => body.expires_at = body.expires_at.zip(expiry).map(|(a, b)| a.max(b)),
        None => bodies.push(NewBody { bytes: &message.body, expires_at: expiry }),
    }
}
