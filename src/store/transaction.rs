//! How a transaction ends, and when it is run again: the same for every database.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::{Sqlite, SqliteConnection, Transaction};

use super::StoreError;

/// A transaction of one of the databases. Dropped without an end, it is rolled back.
pub(super) trait Ending: DerefMut<Target = Self::Connection> {
    type Connection;

    /// Makes everything durable.
    async fn commit(self) -> Result<(), sqlx::Error>;

    /// Makes everything as it was.
    async fn rollback(self) -> Result<(), sqlx::Error>;
}

impl Ending for Transaction<'_, Sqlite> {
    type Connection = SqliteConnection;

    async fn commit(self) -> Result<(), sqlx::Error> {
        Self::commit(self).await
    }

    async fn rollback(self) -> Result<(), sqlx::Error> {
        Self::rollback(self).await
    }
}

/// A transaction, with the answer that its end gives.
pub(super) struct Tx<T>(T);

/// What a transaction's work decided.
pub(super) enum End<T> {
    /// Commit, then give the answer.
    Commit(T),
    /// Roll back: the answer changes nothing.
    Abandon(T),
}

impl<T: Ending> Tx<T> {
    pub(super) fn new(transaction: T) -> Self {
        Self(transaction)
    }

    /// Makes everything durable, then gives the answer.
    pub(super) async fn commit<A>(self, answer: A) -> Result<A, StoreError> {
        self.0.commit().await?;
        Ok(answer)
    }

    /// Ends a transaction that changed nothing, or nothing that should stay.
    pub(super) async fn abandon<A>(self, answer: A) -> Result<A, StoreError> {
        self.0.rollback().await?;
        Ok(answer)
    }

    /// Ends a transaction that only read. It is rolled back as one that is dropped: who has read does not wait for that.
    pub(super) fn leave<A>(self, answer: A) -> A {
        drop(self.0);
        answer
    }

    /// Ends as decided.
    pub(super) async fn end<A>(self, end: End<A>) -> Result<A, StoreError> {
        match end {
            End::Commit(answer) => self.commit(answer).await,
            End::Abandon(answer) => self.abandon(answer).await,
        }
    }
}

impl<T: Ending> Deref for Tx<T> {
    type Target = T::Connection;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T: Ending> DerefMut for Tx<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// How often a transaction is run again after it lost against another one, before the caller is told.
pub(super) const RETRIES: u32 = 8;

/// How long to wait before a retry: longer each time, and different for those that collided with each other.
pub(super) fn pause(retry: u32) -> Duration {
    let mut random = [0_u8; 1];
    // Without randomness the pause is merely less well spread.
    let _ = getrandom::fill(&mut random);
    let [random] = random;
    Duration::from_micros(u64::from(random).saturating_mul(1 << retry.min(8)))
}
