//! Whether a database has the schema that this program knows. A program never works on another one: it would misread it,
//! or write what a newer program no longer understands.
//!
//! What counts is each migration by its number and its checksum, not only the newest number: migrations that were made on
//! different branches may come in any order.

use std::collections::BTreeMap;

use sqlx::migrate::Migrator;

use super::StoreError;

/// A migration as a database remembers it: its number, whether it succeeded, and the checksum of its text.
pub(super) type Applied = (i64, bool, Vec<u8>);

/// What is read of a database that has been migrated at least once.
pub(super) const APPLIED: &str = "SELECT version, success, checksum FROM _sqlx_migrations ORDER BY version";

/// The number of the newest migration that a program has.
pub(super) fn newest(known: &Migrator) -> i64 {
    known.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Compares the migrations of a database, in their order, with those that the program has.
pub(super) fn check(applied: &[Applied], known: &Migrator) -> Result<(), StoreError> {
    let needed = newest(known);
    let found = applied.last().map_or(0, |(version, ..)| *version);
    let fault = |version, fault| Err(StoreError::Migrated { version, fault });
    let known: BTreeMap<i64, &[u8]> =
        known.iter().map(|migration| (migration.version, migration.checksum.as_ref())).collect();
    if found == 0 {
        let advice = "`multiend migrate` makes one, and so does the first `multiend serve`";
        return Err(StoreError::Schema { found, needed, advice });
    }
    for (version, success, checksum) in applied {
        match known.get(version) {
            None if *version > needed => {
                let advice = "it was migrated by a newer multiend: run that version";
                return Err(StoreError::Schema { found, needed, advice });
            }
            None => return fault(*version, "is in the database and not in this program: it is another program's"),
            Some(_) if !success => return fault(*version, "has failed half-way: restore the backup made before it"),
            Some(expected) if *expected != checksum.as_slice() => {
                return fault(*version, "is another one in the database than in this program");
            }
            Some(_) => {}
        }
    }
    match known.keys().find(|version| !applied.iter().any(|(applied, ..)| applied == *version)) {
        None => Ok(()),
        Some(version) if *version > found => {
            Err(StoreError::Schema { found, needed, advice: "run `multiend migrate`" })
        }
        Some(version) => fault(*version, "is missing in the database, which has later ones: run `multiend migrate`"),
    }
}
