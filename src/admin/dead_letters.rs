//! `multiend admin dead-letters`: messages that could not be stored for their own sake.
//!
//! No content is shown. Who sent such a message was told that it was not stored, and may have sent it again.

use std::fmt;

use serde::Serialize;

use super::table::Table;
use crate::model::ArchiveId;
use crate::store::{ArchiveStore, DeadLetter, DeadLetterStore, StoreError};

/// Letters of one step.
const STEP: u32 = 100;

/// The letters, oldest first.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Letters {
    /// All of them.
    pub letters: Vec<Letter>,
}

/// One letter, without its content.
#[derive(Debug, Clone, Serialize)]
pub struct Letter {
    /// Its name.
    pub id: String,
    /// Since when, in UTC.
    pub at: String,
    /// For whose archives it was.
    pub owners: Vec<String>,
    /// Its class.
    pub class: &'static str,
    /// How long it is.
    pub bytes: usize,
    /// Why it could not be stored.
    pub reason: String,
}

impl From<&DeadLetter> for Letter {
    fn from(letter: &DeadLetter) -> Self {
        Self {
            id: letter.id.to_string(),
            at: letter.at.to_xmpp(),
            owners: letter.message.copies.iter().map(|copy| copy.owner.to_string()).collect(),
            class: letter.message.class.name(),
            bytes: letter.message.body.len(),
            reason: letter.reason.clone(),
        }
    }
}

impl fmt::Display for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["letter", "since", "owners", "class", "bytes", "reason"]);
        for letter in &self.letters {
            let Letter { id, at, owners, class, bytes, reason } = letter;
            table.row([id, at, &owners.join(" "), class, bytes, reason]);
        }
        table.fmt(f)
    }
}

/// What a command did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Done {
    /// Letters that are in the archive now.
    pub stored: u64,
    /// Letters that could not be stored again; they stay.
    pub refused: u64,
    /// Letters deleted without being stored.
    pub dropped: u64,
    /// Letters named that are not there.
    pub unknown: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stored, refused, dropped, unknown } = self;
        writeln!(f, "{stored} stored, {refused} refused again, {dropped} dropped, {unknown} unknown")
    }
}

/// All letters.
pub async fn list<S: DeadLetterStore + ?Sized>(store: &S) -> Result<Letters, StoreError> {
    let mut letters = Letters::default();
    let mut after = None;
    loop {
        let step = store.dead_letters(after, STEP).await?;
        let Some(last) = step.last() else { return Ok(letters) };
        after = Some((last.at, last.id.clone()));
        letters.letters.extend(step.iter().map(Letter::from));
    }
}

/// Stores letters that could not be stored before: those named, or all.
pub async fn retry<S: DeadLetterStore + ArchiveStore + ?Sized>(
    store: &S,
    named: &[ArchiveId],
) -> Result<Done, StoreError> {
    let mut done = Done::default();
    if named.is_empty() {
        for letter in list(store).await?.letters {
            // The store has parsed this id before.
            if let Ok(id) = ArchiveId::parse(&letter.id) {
                retry_one(store, &id, &mut done).await?;
            }
        }
    }
    for id in named {
        retry_one(store, id, &mut done).await?;
    }
    Ok(done)
}

async fn retry_one<S: DeadLetterStore + ArchiveStore + ?Sized>(
    store: &S,
    id: &ArchiveId,
    done: &mut Done,
) -> Result<(), StoreError> {
    let Some(letter) = store.dead_letter(id).await? else {
        done.unknown = done.unknown.saturating_add(1);
        return Ok(());
    };
    match store.append(std::slice::from_ref(&letter.message)).await {
        Ok(_) => {
            store.drop_dead_letter(id).await?;
            done.stored = done.stored.saturating_add(1);
        }
        Err(error @ StoreError::Unavailable(_)) => return Err(error),
        Err(_) => done.refused = done.refused.saturating_add(1),
    }
    Ok(())
}

/// Deletes the letters named.
pub async fn drop_letters<S: DeadLetterStore + ?Sized>(store: &S, named: &[ArchiveId]) -> Result<Done, StoreError> {
    let mut done = Done::default();
    for id in named {
        let count = if store.drop_dead_letter(id).await? { &mut done.dropped } else { &mut done.unknown };
        *count = count.saturating_add(1);
    }
    Ok(done)
}
