//! The connections to PostgreSQL: an operation that is given up half way leaves nothing locked and no connection spoilt, and
//! connections that the server has closed are replaced.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

#[path = "support"]
#[allow(dead_code, unreachable_pub)]
mod support {
    pub mod ports;
    pub mod postgres;
    pub mod process;
}

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use multiend::model::{Device, DeviceId, DeviceList, Owner, Protocol, SessionJid, Timestamp};
use multiend::store::{self, SharedStore, StoreError};
use sqlx::{Connection, PgConnection};
use support::postgres::{Fsync, Postgres};

/// Fewer than what is done at once.
const POOL: u32 = 2;
/// More steps than an operation takes.
const STEPS: u32 = 60;
/// Operations that are given up after each number of steps.
const ROUNDS: u32 = 5;
/// How long anything may take before the test fails.
const DEADLINE: Duration = Duration::from_secs(20);

struct World {
    store: SharedStore,
    admin: PgConnection,
    _postgres: Postgres,
}

impl World {
    async fn start() -> Self {
        let postgres = Postgres::start(Fsync::Off);
        let url = postgres.fresh_database().await;
        store::migrate(&url).await.unwrap();
        let admin = PgConnection::connect(&url).await.unwrap();
        Self { store: store::open(&url, POOL).await.unwrap(), admin, _postgres: postgres }
    }

    /// What the other connections are doing.
    async fn others(&mut self, state: &str) -> i64 {
        sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE $1",
        )
        .bind(state)
        .fetch_one(&mut self.admin)
        .await
        .unwrap()
    }
}

async fn publish(store: &SharedStore, number: u32) -> Result<(), StoreError> {
    let owner = Owner::parse("alice@example.org").unwrap();
    let session = SessionJid::parse("alice@example.org/phone").unwrap();
    let list = DeviceList::new(vec![Device::unlabelled(DeviceId::new(number + 1).unwrap())]).unwrap();
    let now = Timestamp::from_micros(1_780_000_000_000_000 + i64::from(number));
    store.publish_device_list(&owner, Protocol::Omemo2, &session, &list, 32, now).await.map(drop)
}

/// Drives a future by so many steps, and gives it up unless it has ended by then.
async fn give_up_after<F: Future>(steps: u32, future: F) -> Option<F::Output> {
    let (mut future, mut left) = (pin!(future), steps);
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_is_given_up_leaves_nothing_behind() {
    let mut world = World::start().await;
    publish(&world.store, 0).await.unwrap();
    let (mut number, mut finished) = (1, 0);
    for steps in (0..STEPS).cycle().take((STEPS * ROUNDS) as usize) {
        if give_up_after(steps, publish(&world.store, number)).await.is_some() {
            finished += 1;
        }
        number += 1;
    }
    assert!(finished > 0 && finished < number - 1, "{finished} of {number} were not given up");
    // Every publish of the account locks the same rows.
    tokio::time::timeout(DEADLINE, publish(&world.store, number)).await.expect("no lock is left").unwrap();
    let ended = async {
        while world.others("idle in transaction%").await > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, ended).await.expect("no transaction is left open");
    let connections = world.store.connections();
    assert!(connections.open <= POOL && connections.idle == connections.open, "{connections:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_server_has_closed_are_replaced() {
    let mut world = World::start().await;
    publish(&world.store, 0).await.unwrap();
    let ended: i64 = sqlx::query_scalar(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .fetch_one(&mut world.admin)
    .await
    .unwrap();
    assert!(ended > 0);
    // Who finds a closed connection is told to try again; each is found once.
    let mut refused = 0;
    while let Err(error) = publish(&world.store, 1).await {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        refused += 1;
        assert!(refused <= ended, "a closed connection is used again");
    }
}
