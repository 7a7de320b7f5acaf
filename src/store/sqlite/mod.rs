//! The store on SQLite: the embedded default, for one machine.
//!
//! One connection writes, in transactions that take the write lock at once, so that a transaction never fails half-way for
//! want of it; further connections read beside it (WAL). Other programs on the same file, such as an operator's command,
//! are waited for. A commit reaches the disk before it is acknowledged (`synchronous = FULL`).

mod account;
mod append;
mod archive;
mod bundle;
mod bundle_room;
mod census;
mod claim;
mod claims;
mod consume;
mod cursor;
mod dead_letter;
mod device;
mod device_list;
mod directory;
mod epoch;
mod erase;
mod file;
mod history;
mod life;
mod lifecycle;
mod notice;
mod page;
mod preferences;
mod purge;
mod retire;
mod session;
mod subscription;

use std::time::{Duration, Instant};

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Sqlite, Transaction};

use super::transaction::Tx;
use super::{Connections, Store, StoreError, StoreMetrics, schema};

static MIGRATOR: Migrator = sqlx::migrate!("./migrations/sqlite");

/// How long an operation waits for another program's write lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before asking once more for what does not wait by itself.
const BUSY_RETRY: Duration = Duration::from_millis(20);
/// How long an operation waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Statements that a connection keeps prepared: those that write several rows are other ones for each number of rows.
const STATEMENTS: usize = 300;
/// Connections that read beside the one that writes.
const READERS: u32 = 4;

/// One writer and a few readers on one file.
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    metrics: StoreMetrics,
}

impl SqliteStore {
    /// Opens the file behind `sqlite:PATH`, and checks the schema.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let path = file::path(url)?;
        if !path.exists() {
            schema::check(&[], &MIGRATOR)?;
        }
        let options = connect_options(path);
        let pool = |connections| {
            // Idle connections are kept: opening one anew costs more than holding it.
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let writer = pool(1).connect_with(options.clone()).await?;
        let mut connection = writer.acquire().await?;
        schema::check(&applied(&mut connection).await?, &MIGRATOR)?;
        drop(connection);
        let readers = pool(READERS).connect_with(options.pragma("query_only", "ON")).await?;
        Ok(Self { writer, readers, metrics: StoreMetrics::new()? })
    }

    /// Runs a transaction that writes.
    async fn transaction<T, F, W>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(Tx<Transaction<'static, Sqlite>>) -> W,
        W: Future<Output = Result<T, StoreError>>,
    {
        self.run(operation, &self.writer, "BEGIN IMMEDIATE", work).await
    }

    /// Reads with one or more statements that see one state of the database.
    async fn snapshot<T, F, W>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(Tx<Transaction<'static, Sqlite>>) -> W,
        W: Future<Output = Result<T, StoreError>>,
    {
        self.run(operation, &self.readers, "BEGIN DEFERRED", work).await
    }

    async fn run<T, F, W>(
        &self,
        operation: &'static str,
        pool: &SqlitePool,
        begin: &'static str,
        work: F,
    ) -> Result<T, StoreError>
    where
        F: FnOnce(Tx<Transaction<'static, Sqlite>>) -> W,
        W: Future<Output = Result<T, StoreError>>,
    {
        let started = Instant::now();
        let result = async {
            let begun = async {
                match pool.begin_with(begin).await {
                    // Where the disk is full, SQLite has ended the transaction itself, of which sqlx does not know.
                    Err(sqlx::Error::InvalidSavePointStatement) => {
                        pool.acquire().await?.close().await?;
                        pool.begin_with(begin).await
                    }
                    begun => begun,
                }
            };
            let transaction = self.metrics.connection(begun).await?;
            work(Tx::new(transaction)).await
        }
        .await;
        self.metrics.ended(operation, started.elapsed(), result.is_err());
        result
    }
}

impl Store for SqliteStore {
    fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    fn schema_version(&self) -> i64 {
        schema::newest(&MIGRATOR)
    }

    fn connections(&self) -> Connections {
        let idle = self.writer.num_idle().saturating_add(self.readers.num_idle());
        Connections {
            open: self.writer.size().saturating_add(self.readers.size()),
            idle: u32::try_from(idle).unwrap_or(u32::MAX),
            most: READERS.saturating_add(1),
        }
    }
}

/// Makes the file if there is none, readable by its owner only, and brings the schema up to date.
pub(super) async fn migrate(url: &str) -> Result<(), StoreError> {
    let path = file::path(url)?;
    file::create(path)?;
    // Going over to the write-ahead log needs the file alone and, unlike all else, does not wait for it by itself.
    let started = Instant::now();
    loop {
        match migrate_file(path).await {
            Err(StoreError::Unavailable(_)) if started.elapsed() < BUSY_TIMEOUT => {
                tokio::time::sleep(BUSY_RETRY).await;
            }
            result => return result,
        }
    }
}

async fn migrate_file(path: &std::path::Path) -> Result<(), StoreError> {
    let mut connection = connect_options(path).connect().await?;
    // One transaction around all, since SQLite has no lock to keep two programs from migrating at once.
    let mut transaction = connection.begin_with("BEGIN EXCLUSIVE").await?;
    MIGRATOR.run(&mut *transaction).await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(())
}

fn connect_options(path: &std::path::Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(STATEMENTS)
        .disable_statement_logging()
}

/// The migrations that were applied; none, if the database has never been migrated.
async fn applied(connection: &mut SqliteConnection) -> Result<Vec<schema::Applied>, StoreError> {
    let exists: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'")
        .fetch_one(&mut *connection)
        .await?;
    if exists == 0 {
        return Ok(Vec::new());
    }
    Ok(sqlx::query_as(schema::APPLIED).fetch_all(connection).await?)
}
