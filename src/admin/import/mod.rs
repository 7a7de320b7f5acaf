//! `multiend admin import FILE…`: archives from another server, in the portable form of XEP-0227, which `multiend admin
//! export` writes as well.
//!
//! Each message keeps its archive id and its time. An archive has one order, that of its times, so what is older than the
//! newest message of an archive cannot be put into it any more: archives are imported before their owners' first message
//! here. Run again, after an interruption or with a longer file, it goes on where it stopped: what is there already is
//! recognised by its id.
//!
//! What its owner wants archived comes along, where the owner has not said it here. It is for what is written from then on, so
//! that it is set when the archive is there.

pub mod source;

use std::collections::BTreeSet;
use std::fmt;
use std::io::BufRead;

use jid::{DomainPart, Jid};
use serde::Serialize;

use self::source::{Found, Kind, Source, SourceError};
use crate::archive::archive_id::ArchiveIds;
use crate::archive::classify::{Verdict, classify};
use crate::archive::retention::Retention;
use crate::archive::retraction::origin_of;
use crate::model::{ArchiveId, ArchivePreferences, ArchivedMessage, Clock, Copy, Direction, Owner, Timestamp};
use crate::stanza::message::Message;
use crate::stanza::tree::{Element, STREAM};
use crate::stanza::{delay, ephemeral, forwarded, mam};
use crate::store::{Appended, Edge, Filter, Page, PageQuery, Store, StoreError};

/// Messages of one transaction, and bytes of them.
const BATCH: usize = 100;
const BATCH_BYTES: usize = 1024 * 1024;
/// Longest message taken: with what is put around it in an answer, it must fit into one stanza.
const MAX_MESSAGE: usize = crate::link::LONGEST_STANZA - 32 * 1024;
/// How many results are read between two words of progress.
const PROGRESS: u64 = 10_000;

/// Why an import stopped. What it has stored until then stays.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file.
    #[error(transparent)]
    Source(#[from] SourceError),
}

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Imported {
    /// Results in the files.
    pub read: u64,
    /// Stored now.
    pub stored: u64,
    /// There already.
    pub known: u64,
    /// Not kept: by policy, by the owner's preferences, because they have expired, or because they say nothing.
    pub unwanted: u64,
    /// Older than the newest message of the archive, where they can have no place.
    pub late: u64,
    /// Of accounts on domains that are not served.
    pub foreign: u64,
    /// No messages, of nobody's, or too long.
    pub unusable: u64,
    /// Accounts whose preferences were set.
    pub preferences: u64,
    /// Those of them that wanted messages with their contacts archived, and only those.
    pub rosters: u64,
    /// Accounts whose preferences cannot be read.
    pub preferences_unusable: u64,
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read, stored, known, unwanted, late, foreign, unusable, preferences, rosters, preferences_unusable } =
            self;
        writeln!(f, "{read} messages read: {stored} stored, {known} there already, {unwanted} not kept by policy")?;
        if *late > 0 {
            writeln!(
                f,
                "{late} not stored: they are older than the newest message of their archive; import before an account's \
                 first message here"
            )?;
        }
        if *foreign > 0 {
            writeln!(f, "{foreign} not stored: their domain is not one of `domains`")?;
        }
        if *unusable > 0 {
            writeln!(f, "{unusable} not stored: not a message with a time and an account, or too long")?;
        }
        if *preferences > 0 {
            writeln!(f, "the preferences of {preferences} accounts set")?;
        }
        if *rosters > 0 {
            writeln!(
                f,
                "{rosters} of them were by the roster, which is not known here: what is not in their lists is archived until \
                 they say otherwise"
            )?;
        }
        if *preferences_unusable > 0 {
            writeln!(f, "the preferences of {preferences_unusable} accounts not set: they cannot be read")?;
        }
        Ok(())
    }
}

/// What an import stands on.
pub struct Importer<'s, S: ?Sized> {
    /// Where to.
    pub store: &'s S,
    /// The present time.
    pub clock: &'s dyn Clock,
    /// Whose users are served.
    pub domains: &'s BTreeSet<DomainPart>,
    /// How long messages are kept.
    pub retention: Retention,
    /// Names messages for those that take them back.
    pub ids: ArchiveIds,
}

/// What an account wants archived, until its archive has been read.
struct Held {
    owner: Owner,
    preferences: ArchivePreferences,
    by_roster: bool,
}

/// A message for an archive, or why it is not.
enum Prepared {
    Message(ArchivedMessage),
    Unwanted,
    Foreign,
    Unusable,
}

impl<S: Store + ?Sized> Importer<'_, S> {
    /// Imports one file, adding to what was done before. `progress` is told now and then.
    pub async fn import(
        &self,
        input: impl BufRead,
        done: &mut Imported,
        mut progress: impl FnMut(&Imported),
    ) -> Result<(), ImportError> {
        let mut source = Source::new(input);
        let (mut batch, mut bytes) = (Vec::new(), 0_usize);
        let mut held: Option<Held> = None;
        let result = loop {
            let found = match source.next_found() {
                Ok(Some(found)) => found,
                Ok(None) => break Ok(()),
                // What stands before it is good all the same.
                Err(error) => break Err(error),
            };
            if held.as_ref().is_some_and(|held| found.account.as_ref() != Some(held.owner.jid())) {
                self.store(&mut batch, done).await?;
                bytes = 0;
                self.adopt(&mut held, done).await?;
            }
            if found.kind == Kind::Preferences {
                match self.preferences(&found) {
                    Some(Ok(preferences)) => held = Some(preferences),
                    Some(Err(())) => done.preferences_unusable = done.preferences_unusable.saturating_add(1),
                    None => {}
                }
                continue;
            }
            done.read = done.read.saturating_add(1);
            match self.prepare(&found) {
                Prepared::Message(message) => {
                    if batch.first().is_some_and(|first| owner_of(first) != owner_of(&message)) {
                        self.store(&mut batch, done).await?;
                        bytes = 0;
                    }
                    bytes = bytes.saturating_add(message.body.len());
                    batch.push(message);
                }
                Prepared::Unwanted => done.unwanted = done.unwanted.saturating_add(1),
                Prepared::Foreign => done.foreign = done.foreign.saturating_add(1),
                Prepared::Unusable => done.unusable = done.unusable.saturating_add(1),
            }
            if batch.len() >= BATCH || bytes >= BATCH_BYTES {
                self.store(&mut batch, done).await?;
                bytes = 0;
            }
            if done.read.is_multiple_of(PROGRESS) {
                progress(done);
            }
        };
        self.store(&mut batch, done).await?;
        result?;
        Ok(self.adopt(&mut held, done).await?)
    }

    /// Sets what an account wants archived, unless it has said so here.
    async fn adopt(&self, held: &mut Option<Held>, done: &mut Imported) -> Result<(), StoreError> {
        let Some(Held { owner, preferences, by_roster }) = held.take() else { return Ok(()) };
        let adopted = self.store.adopt_preferences(&owner, &preferences, self.clock.now()).await?;
        done.preferences = done.preferences.saturating_add(u64::from(adopted));
        done.rosters = done.rosters.saturating_add(u64::from(adopted && by_roster));
        Ok(())
    }

    /// Preferences, and whose; an error if they cannot be read, nothing if they are nobody's who is served.
    fn preferences(&self, found: &Found) -> Option<Result<Held, ()>> {
        let owner = owner_in(found).filter(|owner| self.serves(owner))?;
        let read = |bytes: &Vec<u8>| mam::read_foreign_preferences(&Element::parse(bytes).ok()?).ok();
        let read = found.element.as_ref().and_then(read);
        Some(read.map(|(preferences, by_roster)| Held { owner, preferences, by_roster }).ok_or(()))
    }

    fn serves(&self, owner: &Owner) -> bool {
        self.domains.iter().any(|domain| domain.as_str() == owner.jid().domain().as_str())
    }

    /// Stores a batch of one owner, in one transaction, and empties it.
    async fn store(&self, batch: &mut Vec<ArchivedMessage>, done: &mut Imported) -> Result<(), StoreError> {
        let Some(owner) = batch.first().and_then(owner_of).cloned() else { return Ok(()) };
        let mut messages = std::mem::take(batch);
        // A file may have them in another order, where times are equal or a clock was set back.
        messages.sort_by_key(|message| message.at);
        let newest = self.store.ends(&owner, self.clock.now()).await?.map(|(_, newest)| newest.at);
        if let Some(newest) = newest {
            let old: Vec<ArchiveId> = messages.iter().filter(|message| message.at < newest).filter_map(id_of).collect();
            let known = self.known(&owner, old).await?;
            messages.retain(|message| {
                let is_known = id_of(message).is_some_and(|id| known.contains(&id));
                let is_late = message.at < newest && !is_known;
                done.known = done.known.saturating_add(u64::from(is_known));
                done.late = done.late.saturating_add(u64::from(is_late));
                !is_known && !is_late
            });
        }
        for appended in self.store.append(&messages).await?.into_iter().flatten() {
            let count = match appended {
                Appended::Stored(_) => &mut done.stored,
                Appended::Duplicate => &mut done.known,
                Appended::Unwanted => &mut done.unwanted,
            };
            *count = count.saturating_add(1);
        }
        Ok(())
    }

    /// Which of these ids an archive has.
    async fn known(&self, owner: &Owner, ids: Vec<ArchiveId>) -> Result<BTreeSet<ArchiveId>, StoreError> {
        let mut known = BTreeSet::new();
        let mut left: BTreeSet<ArchiveId> = ids.into_iter().collect();
        while !left.is_empty() {
            let filter = Filter { ids: left.iter().cloned().collect(), ..Filter::default() };
            let max = u32::try_from(left.len()).unwrap_or(u32::MAX);
            let query = PageQuery { owner: owner.clone(), filter, edge: Edge::First, max, max_bytes: usize::MAX };
            match self.store.page(&query, self.clock.now()).await? {
                Page::Copies { copies, complete, .. } => {
                    for copy in &copies {
                        left.remove(&copy.archive_id);
                    }
                    known.extend(copies.into_iter().map(|copy| copy.archive_id));
                    if complete {
                        break;
                    }
                }
                // One of them is not there; the others may be.
                Page::UnknownId(id) => {
                    if !left.remove(&id) {
                        break;
                    }
                }
            }
        }
        Ok(known)
    }

    fn prepare(&self, found: &Found) -> Prepared {
        let Some(owner) = owner_in(found) else { return Prepared::Unusable };
        if !self.serves(&owner) {
            return Prepared::Foreign;
        }
        let Some(bytes) = &found.element else { return Prepared::Unusable };
        let Ok(result) = Element::parse(bytes) else { return Prepared::Unusable };
        self.archived(owner, &result).unwrap_or(Prepared::Unusable)
    }

    /// A `<result/>` as it is stored; `None` for one that makes no sense.
    fn archived(&self, owner: Owner, result: &Element<'_>) -> Option<Prepared> {
        let archive_id = ArchiveId::parse(result.attribute("id")?).ok()?;
        let forwarded = result.child("forwarded", forwarded::NS)?;
        let stamp = forwarded.child("delay", delay::NS)?.attribute("stamp")?;
        let at = Timestamp::parse_xmpp(stamp)?.min(self.clock.now());
        let stanza = forwarded.child("message", STREAM)?;
        let message = Message::split(stanza, &[owner.jid()]).ok()?;
        if message.body.len() > MAX_MESSAGE {
            return None;
        }
        // A server may leave out the address that is the owner's own.
        let own = || Jid::from(owner.jid().clone());
        let (from, to) = (message.from.unwrap_or_else(own), message.to.unwrap_or_else(own));
        let direction = match (from.to_bare() == *owner.jid(), to.to_bare() == *owner.jid()) {
            // A note to oneself is archived where it arrives.
            (_, true) => Direction::Received,
            (true, false) => Direction::Sent,
            (false, false) => return None,
        };
        let Verdict::Archive(class) = self.retention.apply(classify(stanza)) else { return Some(Prepared::Unwanted) };
        let expires_at = self.retention.expires_at(class, at, ephemeral::timer(stanza));
        if expires_at.is_some_and(|expires_at| expires_at <= self.clock.now()) {
            return Some(Prepared::Unwanted);
        }
        let is_local = self.domains.iter().any(|domain| domain.as_str() == from.domain().as_str());
        let author: Jid = if is_local { from.to_bare().into() } else { from.clone() };
        let (origin, retracts) = origin_of(&self.ids, stanza, class, (&author, &to.to_bare()), at);
        let (own, peer) = match direction {
            Direction::Sent => (from, to),
            Direction::Received => (to, from),
        };
        let own_resource = own.resource().map(|resource| resource.as_str().to_owned());
        let copies = vec![Copy { owner, archive_id, direction, peer, own_resource, expires_at }];
        // What its headers used up, they used up before any prekey was here.
        let key_exchanges = Vec::new();
        Some(Prepared::Message(ArchivedMessage {
            class,
            at,
            body: message.body,
            origin,
            retracts,
            copies,
            key_exchanges,
        }))
    }
}

fn owner_in(found: &Found) -> Option<Owner> {
    Owner::new(found.account.clone()?).ok()
}

fn owner_of(message: &ArchivedMessage) -> Option<&Owner> {
    message.copies.first().map(|copy| &copy.owner)
}

fn id_of(message: &ArchivedMessage) -> Option<ArchiveId> {
    message.copies.first().map(|copy| copy.archive_id.clone())
}
