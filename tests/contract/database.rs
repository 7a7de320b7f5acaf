//! A fresh database for one test, on either engine.

use multiend::store::{self, SharedStore, StoreError};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;

use crate::support::postgres::Postgres;

/// Connections of one instance: enough for real concurrency.
const POOL: u32 = 8;

/// A database; the files of an SQLite one go with it.
pub struct Database {
    pub url: String,
    pub dir: Option<TempDir>,
}

impl Database {
    pub async fn postgres() -> Self {
        let empty = Self::empty_postgres().await;
        store::migrate(&empty.url).await.unwrap();
        empty
    }

    pub async fn sqlite() -> Self {
        let empty = Self::empty_sqlite();
        store::migrate(&empty.url).await.unwrap();
        empty
    }

    /// Another database on the same engine, without a schema.
    pub async fn empty_sibling(&self) -> Self {
        if self.is_sqlite() { Self::empty_sqlite() } else { Self::empty_postgres().await }
    }

    async fn empty_postgres() -> Self {
        Self { url: Postgres::shared().fresh_database().await, dir: None }
    }

    fn empty_sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("multiend.db").display());
        Self { url, dir: Some(dir) }
    }

    pub fn is_sqlite(&self) -> bool {
        self.dir.is_some()
    }

    /// One more instance on this database.
    pub async fn open(&self) -> SharedStore {
        self.try_open().await.unwrap()
    }

    pub async fn try_open(&self) -> Result<SharedStore, StoreError> {
        store::open(&self.url, POOL).await
    }

    /// Runs a statement behind the store's back.
    pub async fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        if self.is_sqlite() {
            let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::query(sql).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        } else {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            sqlx::query(sql).execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        }
    }

    /// Everything that is in it, row by row.
    pub async fn dump(&self) -> Vec<String> {
        let mut rows = Vec::new();
        if self.is_sqlite() {
            let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
            let tables: Vec<(String, String)> = sqlx::query_as(
                "SELECT m.name, (SELECT group_concat('quote(\"' || c.name || '\")', '||'',''||') FROM pragma_table_info(m.name) c)
                 FROM sqlite_master m WHERE m.type = 'table' ORDER BY m.name",
            )
            .fetch_all(&mut connection)
            .await
            .unwrap();
            for (table, columns) in tables {
                let sql = AssertSqlSafe(format!("SELECT '{table} ' || {columns} AS row FROM \"{table}\" ORDER BY 1"));
                let table_rows: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap();
                rows.extend(table_rows);
            }
        } else {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            let tables: Vec<String> =
                sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
                    .fetch_all(&mut connection)
                    .await
                    .unwrap();
            for table in tables {
                let sql = AssertSqlSafe(format!("SELECT '{table} ' || t::text FROM \"{table}\" t ORDER BY 1"));
                let table_rows: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap();
                rows.extend(table_rows);
            }
        }
        rows
    }
}
