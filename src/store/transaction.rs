//! How a transaction ends, and when it is run again: the same for every database.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::{Database, Transaction};

use super::StoreError;

/// A transaction on a connection of the pool. Dropped without an end, it is rolled back.
pub(super) struct Tx<DB: Database>(Transaction<'static, DB>);

/// What a transaction's work decided.
pub(super) enum End<T> {
    /// Commit, then give the answer.
    Commit(T),
    /// Roll back: the answer changes nothing.
    Abandon(T),
}

impl<DB: Database> Tx<DB> {
    pub(super) fn new(transaction: Transaction<'static, DB>) -> Self {
        Self(transaction)
    }

    /// Makes everything durable, then gives the answer.
    pub(super) async fn commit<T>(self, answer: T) -> Result<T, StoreError> {
        self.0.commit().await?;
        Ok(answer)
    }

    /// Ends a transaction that changed nothing, or nothing that should stay.
    pub(super) async fn abandon<T>(self, answer: T) -> Result<T, StoreError> {
        self.0.rollback().await?;
        Ok(answer)
    }

    /// Ends a transaction that only read. It is rolled back when its connection goes back into the pool, together with what
    /// is sent then anyway: who has read does not wait for that.
    pub(super) fn leave<T>(self, answer: T) -> T {
        drop(self.0);
        answer
    }

    /// Ends as decided.
    pub(super) async fn end<T>(self, end: End<T>) -> Result<T, StoreError> {
        match end {
            End::Commit(answer) => self.commit(answer).await,
            End::Abandon(answer) => self.abandon(answer).await,
        }
    }
}

impl<DB: Database> Deref for Tx<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<DB: Database> DerefMut for Tx<DB> {
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
