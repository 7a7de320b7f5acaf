//! Whether a database has the schema that this program knows. A program never works on another one: it would misread it,
//! or write what a newer program no longer understands.

use sqlx::migrate::Migrator;

use super::StoreError;

/// Compares the newest applied migration with the newest known one.
pub(super) fn check(found: i64, known: &Migrator) -> Result<(), StoreError> {
    let needed = known.iter().map(|migration| migration.version).max().unwrap_or(0);
    let advice = match found.cmp(&needed) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Less if found == 0 => {
            "`multiend migrate` makes one, and so does the first `multiend serve`"
        }
        std::cmp::Ordering::Less => "run `multiend migrate`",
        std::cmp::Ordering::Greater => "it was migrated by a newer multiend: run that version",
    };
    Err(StoreError::Schema { found, needed, advice })
}
