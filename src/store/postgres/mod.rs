//! The store on PostgreSQL: for several instances at once, and for large archives.
//!
//! Every write is one transaction at READ COMMITTED whose rules rest on row locks, never on the isolation level. The order
//! of locks that rules out deadlocks is: accounts by JID, then rows of the directory, then prekeys. A claim takes no lock
//! on the account, so that claims of different requesters never wait for each other.

mod account;
mod address;
mod append;
mod archive;
mod block;
mod bundle;
mod bundle_room;
mod census;
mod claim;
mod claim_batch;
mod claim_one;
mod claims;
mod consume;
mod conversation;
mod credit;
mod cursor;
mod dead_letter;
mod device;
mod device_list;
mod directory;
mod entry;
mod epoch;
mod erase;
mod history;
mod life;
mod lifecycle;
mod notice;
mod origin;
mod page;
mod plain_stock;
mod pool;
mod preferences;
mod purge;
mod retire;
mod session;
mod subscription;

use std::str::FromStr;
use std::time::Instant;

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tracing::debug;

use self::credit::Credit;
use self::pool::{Lease, Open, Pool};
use super::transaction::{RETRIES, Tx, pause};
use super::{Connections, Store, StoreError, StoreMetrics, schema};

static MIGRATOR: Migrator = sqlx::migrate!("./migrations/postgres");

/// Set on every connection. A claim and an append are durable when they are acknowledged, whatever the server's default;
/// no statement and no transaction of an instance that hangs holds up the others for long. Every statement of a request
/// reads a few rows in the order of an index, so the planner is kept from ways that read everything and sort: it takes
/// them where it thinks an archive small. What is turned off counts as dear, and what is dear would be compiled each time:
/// longer work than running it. And each statement is planned once a connection: left to itself PostgreSQL plans the claim of
/// a single prekey anew each time, which takes ten times as long as the claim.
const SETTINGS: [(&str, &str); 9] = [
    ("synchronous_commit", "on"),
    ("statement_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// A pool of connections to one database.
pub struct PostgresStore {
    pool: Pool,
    metrics: StoreMetrics,
    credit: Credit,
}

impl PostgresStore {
    /// Connects with at most `pool_size` connections, and checks the schema.
    pub async fn open(url: &str, pool_size: u32) -> Result<Self, StoreError> {
        let pool = Pool::new(connect_options(url)?.options(SETTINGS), pool_size)?;
        schema::check(&applied(&mut *pool.lease().await?).await?, &MIGRATOR)?;
        Ok(Self { pool, metrics: StoreMetrics::new()?, credit: Credit::default() })
    }

    /// Runs a transaction; again if it lost against another one.
    async fn transaction<T, F, W>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        F: Fn(Tx<Open>) -> W,
        W: Future<Output = Result<T, StoreError>>,
    {
        self.run(operation, "BEGIN ISOLATION LEVEL READ COMMITTED", work).await
    }

    /// Reads with several statements that see one state of the database.
    async fn snapshot<T, F, W>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        F: Fn(Tx<Open>) -> W,
        W: Future<Output = Result<T, StoreError>>,
    {
        self.run(operation, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", work).await
    }

    /// Runs statements each of which stands for itself.
    async fn each<T, F, W>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(Lease) -> W,
        W: Future<Output = Result<T, StoreError>>,
    {
        let started = Instant::now();
        let result = async {
            let lease = self.metrics.connection(self.pool.lease()).await?;
            let used = lease.begin_use();
            let result = work(lease).await?;
            used.settled();
            Ok(result)
        }
        .await;
        self.metrics.ended(operation, started.elapsed(), result.is_err());
        result
    }

    async fn run<T, F, W>(&self, operation: &'static str, begin: &'static str, work: F) -> Result<T, StoreError>
    where
        F: Fn(Tx<Open>) -> W,
        W: Future<Output = Result<T, StoreError>>,
    {
        let started = Instant::now();
        let attempt = async || {
            let open = self.metrics.connection(self.pool.begin(begin)).await?;
            let used = open.begin_use();
            let result = work(Tx::new(open)).await?;
            used.settled();
            Ok::<_, StoreError>(result)
        };
        let mut retries = 0;
        let result = loop {
            match attempt().await {
                Err(error) if error.is_conflict() && retries < RETRIES => {
                    retries = retries.saturating_add(1);
                    self.metrics.retried(operation);
                    debug!(operation, retries, "the transaction lost against another one and is run again");
                    tokio::time::sleep(pause(retries)).await;
                }
                result => break result,
            }
        };
        self.metrics.ended(operation, started.elapsed(), result.is_err());
        result
    }
}

impl Store for PostgresStore {
    fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    fn schema_version(&self) -> i64 {
        schema::newest(&MIGRATOR)
    }

    fn connections(&self) -> Connections {
        self.pool.connections()
    }
}

/// Brings the schema up to date, under a lock that makes two programs do so one after the other.
pub(super) async fn migrate(url: &str) -> Result<(), StoreError> {
    let mut connection = connect_options(url)?.connect().await?;
    MIGRATOR.run(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// Parses the URL. Neither the options nor the URL are ever printed: they hold the password.
fn connect_options(url: &str) -> Result<PgConnectOptions, StoreError> {
    Ok(PgConnectOptions::from_str(url)?.application_name("multiend").disable_statement_logging())
}

/// The migrations that were applied; none, if the database has never been migrated.
async fn applied(connection: &mut PgConnection) -> Result<Vec<schema::Applied>, StoreError> {
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *connection).await?;
    if !exists {
        return Ok(Vec::new());
    }
    Ok(sqlx::query_as(schema::APPLIED).fetch_all(connection).await?)
}
