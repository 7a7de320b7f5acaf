//! `multiend admin stats`: what the database holds.

use std::fmt;

use serde::Serialize;

use super::table::Table;
use crate::store::{Store, StoreError};

/// Figures over everything.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Stats {
    /// Of the directory.
    pub directory: DirectoryStats,
    /// Of the archive.
    pub archive: ArchiveStats,
}

/// Figures of the directory.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct DirectoryStats {
    /// Devices with a bundle, over both protocols.
    pub bundles: u64,
    /// Prekeys ever handed out as fresh.
    pub issued: u64,
    /// Claims answered by the last resort.
    pub last_resort: u64,
    /// Prekeys handed out as fresh to more than one requester: 0, always.
    pub issued_twice: u64,
}

/// Figures of the archive.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ArchiveStats {
    /// Copies with a body.
    pub copies: u64,
    /// Copies whose body has gone.
    pub placeholders: u64,
    /// Bodies, each shared by its copies.
    pub bodies: u64,
    /// Their bytes.
    pub body_bytes: u64,
}

/// Reads the figures. May scan tables.
pub async fn stats<S: Store + ?Sized>(store: &S) -> Result<Stats, StoreError> {
    let directory = store.directory_totals().await?;
    let archive = store.archive_totals().await?;
    Ok(Stats {
        directory: DirectoryStats {
            bundles: directory.bundles,
            issued: directory.issued,
            last_resort: directory.last_resort,
            issued_twice: directory.issued_twice,
        },
        archive: ArchiveStats {
            copies: archive.copies,
            placeholders: archive.placeholders,
            bodies: archive.bodies,
            body_bytes: archive.body_bytes,
        },
    })
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { directory, archive } = self;
        let mut table = Table::new(["figure", "value"]);
        table.row([&"devices with a bundle", &directory.bundles]);
        table.row([&"prekeys handed out", &directory.issued]);
        table.row([&"last resorts", &directory.last_resort]);
        table.row([&"prekeys handed out twice", &directory.issued_twice]);
        table.row([&"copies", &archive.copies]);
        table.row([&"placeholders", &archive.placeholders]);
        table.row([&"bodies", &archive.bodies]);
        table.row([&"bytes of bodies", &archive.body_bytes]);
        table.fmt(f)
    }
}
