//! The history of an owner's devices (docs/protocol.md, "History"): open for reading like the lists and keys that it tells
//! of, so that whoever was given one of those can see whether everybody else was given the same.

use super::{Directory, DirectoryError};
use crate::model::{HistoryChange, HistoryEntry, HistoryHead, Owner};
use crate::store::HistoryRead;

/// Most entries in one answer.
const MAX_ENTRIES: u32 = 200;
/// Most bytes of entries in one answer, about; the first entry is given even if it is larger.
const MAX_BYTES: usize = 128 * 1024;

/// A part of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// How far the history has come.
    pub head: HistoryHead,
    /// What follows what is known. The newest has the head's index, or there is more to ask for.
    pub entries: Vec<HistoryEntry>,
}

impl Directory {
    /// What followed `known` in an owner's history, at most `max` entries. A head that the history never had is
    /// [`DirectoryError::NotOnChain`]: who got it from here has proof that one of the two answers is a lie, or that the
    /// history was lost.
    pub async fn history(
        &self,
        owner: &Owner,
        known: &HistoryHead,
        max: Option<u32>,
    ) -> Result<HistoryPage, DirectoryError> {
        let limit = max.unwrap_or(MAX_ENTRIES).clamp(1, MAX_ENTRIES);
        let read = self.store.history(owner, known, limit, self.clock.now()).await?;
        self.metrics.history_read(read != HistoryRead::NotOnChain);
        match read {
            HistoryRead::Entries { head, mut entries } => {
                entries.truncate(fitting(&entries));
                Ok(HistoryPage { head, entries })
            }
            HistoryRead::NotOnChain => Err(DirectoryError::NotOnChain),
        }
    }
}

/// How many of the entries fit into an answer.
fn fitting(entries: &[HistoryEntry]) -> usize {
    let sizes = entries.iter().map(|entry| match &entry.change {
        HistoryChange::List { devices, .. } => devices.len().saturating_mul(26).saturating_add(250),
        HistoryChange::NoList | HistoryChange::Identity { .. } => 250,
    });
    let totals = sizes.scan(0_usize, |total, size| {
        *total = total.saturating_add(size);
        Some(*total)
    });
    totals.take_while(|total| *total <= MAX_BYTES).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DeviceId, Protocol, Timestamp};

    #[test]
    fn an_answer_is_bounded_in_bytes_but_never_empty() {
        let entries = |devices: u32| {
            let devices = (1..=devices).map(|id| DeviceId::new(id).unwrap()).collect();
            let change = HistoryChange::List { devices, labels: None };
            let (at, protocol) = (Timestamp::from_micros(0), Protocol::Omemo2);
            vec![HistoryEntry { index: 1, at, protocol, change }; 200]
        };
        assert_eq!(fitting(&entries(3)), 200);
        assert_eq!(fitting(&entries(500)), 9);
        assert_eq!(fitting(&entries(100_000)), 1);
    }
}
