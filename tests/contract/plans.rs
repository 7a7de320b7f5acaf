//! How the databases mean to run what the store asks of them.
use super::database::Database;
pub async fn every_statement_of_a_page_uses_an_index(database: Database) {
    let _ = database;
}
