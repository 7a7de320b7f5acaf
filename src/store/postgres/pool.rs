//! The connections of an instance: opened when they are needed, and kept for the operations after.
//!
//! A connection goes back as it is: asking the server after each operation whether it is still there would be one round
//! trip more for each. It is tried before its next use instead, where there is a reason: nobody has used it for a while, or
//! what used it last did not end well. A transaction that was left without an end is rolled back at once.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::managed::{Manager, Metrics, Object, Pool as Managed, PoolError, QueueMode, RecycleError, RecycleResult};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tracing::debug;

use crate::store::Connections;
use crate::store::transaction::{Ending, pause};

/// How long an operation waits for a free connection, or for a server that does not take any yet.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// After so long without a use a connection is tried before the next.
const TRIED_AFTER: Duration = Duration::from_secs(1);
/// How long the trial may take.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// After so long a connection is replaced: a server's process keeps the memory of all that it has ever planned.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// The connections to one database.
pub(super) struct Pool(Managed<Connector>);

impl Pool {
    /// Of at most `size` connections; none is opened yet.
    pub(super) fn new(options: PgConnectOptions, size: u32) -> Result<Self, sqlx::Error> {
        Managed::builder(Connector { options })
            .max_size(usize::try_from(size.max(1)).unwrap_or(usize::MAX))
            .queue_mode(QueueMode::Lifo)
            .wait_timeout(Some(ACQUIRE_TIMEOUT))
            .recycle_timeout(Some(TRIAL_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .map(Self)
            .map_err(|error| sqlx::Error::Configuration(Box::new(error)))
    }

    /// A connection that nobody else has, until it is dropped.
    pub(super) async fn lease(&self) -> Result<Lease, sqlx::Error> {
        let link = self.0.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Closed => sqlx::Error::PoolClosed,
            PoolError::Timeout(_) | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                sqlx::Error::PoolTimedOut
            }
        })?;
        let connection = link.connection.clone().lock_owned().await;
        Ok(Lease { connection, link })
    }

    /// A connection in a transaction that the statement begins.
    pub(super) async fn begin(&self, statement: &'static str) -> Result<Open, sqlx::Error> {
        let mut open = Open { lease: self.lease().await?, ended: false };
        open.execute(statement).await?;
        Ok(open)
    }

    pub(super) fn connections(&self) -> Connections {
        let status = self.0.status();
        let count = |connections| u32::try_from(connections).unwrap_or(u32::MAX);
        Connections { open: count(status.size), idle: count(status.available), most: count(status.max_size) }
    }
}

/// Opens connections, and tries them.
struct Connector {
    options: PgConnectOptions,
}

/// A connection, and what is known of the state that it was left in.
struct Link {
    connection: Arc<Mutex<PgConnection>>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Which use of the connection has not ended well yet; 0: none.
    unsettled: AtomicU64,
    /// A transaction was left without an end, and is not rolled back yet.
    left_open: AtomicBool,
}

impl State {
    /// Rolls back what was left open.
    async fn tidy(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.left_open.load(Ordering::Acquire) {
            connection.execute("ROLLBACK").await?;
            self.left_open.store(false, Ordering::Release);
        }
        Ok(())
    }
}

impl Manager for Connector {
    type Type = Link;
    type Error = sqlx::Error;

    /// Opens a connection; waits for a server that is starting, or has as many connections as it takes.
    async fn create(&self) -> Result<Link, sqlx::Error> {
        let until = Instant::now().checked_add(ACQUIRE_TIMEOUT);
        let late =
            |pause: Duration| until.is_none_or(|until| Instant::now().checked_add(pause).is_none_or(|at| at > until));
        let mut retries = 0;
        loop {
            let attempt = tokio::time::timeout(ACQUIRE_TIMEOUT, self.options.connect()).await;
            match attempt.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                Ok(connection) => {
                    return Ok(Link { connection: Arc::new(Mutex::new(connection)), state: Arc::default() });
                }
                Err(error) if will_pass(&error) && !late(pause(retries)) => {
                    tokio::time::sleep(pause(retries)).await;
                    retries = retries.saturating_add(1);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn recycle(&self, link: &mut Link, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if metrics.age() > LIFETIME {
            return Err(RecycleError::message("it has been open for long"));
        }
        let mut connection = link.connection.lock().await;
        link.state.tidy(&mut connection).await?;
        if metrics.last_used() > TRIED_AFTER || link.state.unsettled.load(Ordering::Acquire) != 0 {
            connection.ping().await?;
        }
        Ok(())
    }
}

/// Whether a server that does not take a connection may take one soon.
fn will_pass(error: &sqlx::Error) -> bool {
    use std::io::ErrorKind;
    match error {
        sqlx::Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
        ),
        // PostgreSQL's appendix A: too_many_connections, cannot_connect_now.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| matches!(code.as_ref(), "53300" | "57P03")),
        _ => false,
    }
}

/// A connection in use.
pub(super) struct Lease {
    // Dropped first: who gets the connection next locks it.
    connection: OwnedMutexGuard<PgConnection>,
    link: Object<Connector>,
}

impl Lease {
    /// Begins a use of it, which counts as ended well when it is [`settled`](Use::settled), and not if that is never said.
    pub(super) fn begin_use(&self) -> Use {
        static USES: AtomicU64 = AtomicU64::new(1);
        let number = USES.fetch_add(1, Ordering::Relaxed);
        self.link.state.unsettled.store(number, Ordering::Release);
        Use { number, state: self.link.state.clone() }
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

/// One use of a connection, which may be over before this is.
#[must_use]
pub(super) struct Use {
    number: u64,
    state: Arc<State>,
}

impl Use {
    /// It ended well: no answer of the server is still to come.
    pub(super) fn settled(self) {
        // Somebody else may have the connection by now: their use is theirs to settle.
        let _ = self.state.unsettled.compare_exchange(self.number, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// A transaction. Dropped without an end, it is rolled back.
pub(super) struct Open {
    lease: Lease,
    ended: bool,
}

impl Open {
    /// Also of the lease: what it is used for.
    pub(super) fn begin_use(&self) -> Use {
        self.lease.begin_use()
    }
}

impl Ending for Open {
    type Connection = PgConnection;

    async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.lease.execute("COMMIT").await?;
        self.ended = true;
        Ok(())
    }

    async fn rollback(mut self) -> Result<(), sqlx::Error> {
        self.lease.execute("ROLLBACK").await?;
        self.ended = true;
        Ok(())
    }
}

impl Deref for Open {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.lease
    }
}

impl DerefMut for Open {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.lease
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let Link { connection, state } = &*self.lease.link;
        state.left_open.store(true, Ordering::Release);
        // Its locks must not last until somebody happens to use this connection. Without a runtime the program ends.
        if let Ok(runtime) = Handle::try_current() {
            let (connection, state) = (connection.clone(), state.clone());
            runtime.spawn(async move {
                if let Err(error) = state.tidy(&mut *connection.lock().await).await {
                    debug!(%error, "a transaction was not rolled back; its connection is closed before its next use");
                }
            });
        }
    }
}
