//! `multiend admin owners`: who is known here, page by page.

use std::fmt;

use serde::Serialize;

use super::table::Table;
use crate::model::Owner;
use crate::store::{LifecycleStore, StoreError};

/// One page of owners.
#[derive(Debug, Clone, Serialize)]
pub struct Owners {
    /// In the order of their JIDs.
    pub owners: Vec<OwnerLine>,
    /// What to give as `--after` for the next page; `None`: this was the last.
    pub next: Option<String>,
}

/// One owner.
#[derive(Debug, Clone, Serialize)]
pub struct OwnerLine {
    /// The bare JID.
    pub owner: String,
    /// Devices in the legacy list.
    pub legacy: u64,
    /// Devices in the omemo2 list.
    pub omemo2: u64,
    /// Devices in quarantine, over both protocols.
    pub quarantined: u64,
    /// Bundles, over both protocols.
    pub bundles: u64,
}

/// At most `limit` owners after one.
pub async fn owners<S: LifecycleStore + ?Sized>(
    store: &S,
    after: Option<&Owner>,
    limit: u32,
) -> Result<Owners, StoreError> {
    let records = store.owner_records(after, limit).await?;
    let full = u32::try_from(records.len()).is_ok_and(|read| read >= limit);
    let next = records.last().filter(|_| full).map(|last| last.owner.as_str().to_owned());
    let lines = records.into_iter().map(|record| {
        let [legacy, omemo2] = record.listed;
        let owner = record.owner.as_str().to_owned();
        OwnerLine { owner, legacy, omemo2, quarantined: record.quarantined, bundles: record.bundles }
    });
    Ok(Owners { owners: lines.collect(), next })
}

impl fmt::Display for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["owner", "legacy", "omemo2", "quarantined", "bundles"]);
        for line in &self.owners {
            table.row([&line.owner, &line.legacy, &line.omemo2, &line.quarantined, &line.bundles]);
        }
        table.fmt(f)?;
        match &self.next {
            Some(next) => writeln!(f, "more: --after {next}"),
            None => Ok(()),
        }
    }
}
