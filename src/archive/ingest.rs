//! The one path on which copies get into the archive (DESIGN, archive invariants 1 and 2).
//!
//! Messages wait in a bounded queue; one task takes them out, in batches, and stores each batch in one transaction. Only
//! then comes the [`Committed`] word that allows an acknowledgement, in the order in which the messages were submitted. A
//! full queue makes [`IngestHandle::submit`] wait: who submits stops reading from the server, and nothing piles up in
//! memory. While the database is away the writer tries again for ever and everything behind it waits; a message that the
//! database will never take is set aside alone, as a dead letter.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time;

use super::metrics::ArchiveMetrics;
use crate::model::{ArchivedMessage, Clock, SystemClock};
use crate::store::{Appended, ArchiveStore, DeadLetterStore, StoreError};

/// Sizes and times of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestSettings {
    /// Most messages that wait; at least 1.
    pub queue: usize,
    /// Most messages of one transaction; at least 1.
    pub batch_max: usize,
    /// A transaction takes no further message once its bodies have this many bytes together.
    pub batch_bytes: usize,
    /// How long the first message of a batch waits for others while those keep coming. It waits no longer once none has come
    /// for a fifth of that, or once a quarter of [`Self::batch_max`] is there: there is nothing to wait for then.
    pub batch_delay: Duration,
    /// How long to wait before the first further attempt when the database is away; doubled each time.
    pub retry_first: Duration,
    /// The longest wait between two attempts.
    pub retry_max: Duration,
}

impl Default for IngestSettings {
    fn default() -> Self {
        Self {
            queue: 1_024,
            batch_max: 256,
            batch_bytes: 1 << 20,
            batch_delay: Duration::from_millis(2),
            retry_first: Duration::from_millis(100),
            retry_max: Duration::from_secs(5),
        }
    }
}

/// How many pauses make the longest wait of a batch.
const PAUSES: u32 = 5;
/// A batch of this part of the most waits for nothing.
const ENOUGH: usize = 4;

/// A message that was submitted, with what became of it. Durable when this is there.
#[derive(Debug)]
pub struct Committed<T> {
    /// What was submitted with it.
    pub token: T,
    /// One result per copy; or the message will never be stored.
    pub result: Result<Vec<Appended>, Rejected>,
}

/// The database refuses this very message. Nothing of it is in an archive.
#[derive(Debug, thiserror::Error)]
#[error("the message cannot be stored: {error}")]
pub struct Rejected {
    /// Why.
    #[source]
    pub error: StoreError,
    /// Whether it is among the dead letters: who would bring it again for ever (the journal of a server) may count it as
    /// handled. Who can be told (a client) is told that it is not archived.
    pub set_aside: bool,
}

/// The writer has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the archive's writer has ended")]
pub struct IngestClosed;

enum Work<T> {
    /// With the moment at which it was accepted.
    Message(ArchivedMessage, T, Instant),
    Barrier(oneshot::Sender<()>),
}

/// The way in. When the last handle is dropped, the writer stores what was accepted and ends, which closes the receiver of
/// [`Committed`].
#[derive(Debug)]
pub struct IngestHandle<T> {
    queue: mpsc::Sender<Work<T>>,
    metrics: ArchiveMetrics,
}

impl<T> Clone for IngestHandle<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), metrics: self.metrics.clone() }
    }
}

impl<T> IngestHandle<T> {
    /// Accepts a message; waits while the queue is full. One without copies and key exchanges is not stored, but keeps its place: its word
    /// comes after that of the messages before it. `token` comes back in [`Committed`]. Not accepted if this is
    /// cancelled.
    pub async fn submit(&self, message: ArchivedMessage, token: T) -> Result<(), IngestClosed> {
        let place = self.queue.reserve().await.map_err(|_| IngestClosed)?;
        self.metrics.queued();
        place.send(Work::Message(message, token, Instant::now()));
        Ok(())
    }

    /// Waits until everything that was submitted before is stored or rejected: a query after this sees it. As long as
    /// nobody takes the [`Committed`] words, this may wait, so it must not be called by who takes them.
    pub async fn barrier(&self) -> Result<(), IngestClosed> {
        let (reached, wait) = oneshot::channel();
        self.queue.send(Work::Barrier(reached)).await.map_err(|_| IngestClosed)?;
        wait.await.map_err(|_| IngestClosed)
    }
}

/// The writer.
pub struct Ingest<T, S: ?Sized> {
    store: Arc<S>,
    settings: IngestSettings,
    metrics: ArchiveMetrics,
    queue: mpsc::Receiver<Work<T>>,
    committed: mpsc::Sender<Committed<T>>,
}

/// What goes into one transaction, and what is said of it afterwards.
struct Batch<T> {
    messages: Vec<ArchivedMessage>,
    /// In the order submitted.
    tokens: Vec<Submitted<T>>,
    barrier: Option<oneshot::Sender<()>>,
}

/// What is left of a message while it is stored.
struct Submitted<T> {
    token: T,
    /// Whether one of the messages of the batch belongs to it.
    is_written: bool,
    accepted: Instant,
}

impl<T: Send + 'static, S: ArchiveStore + DeadLetterStore + ?Sized + 'static> Ingest<T, S> {
    /// Starts the writer on the current runtime. The [`Committed`] words must be taken: the writer waits for that, too.
    /// Dropping the receiver stops no storing.
    pub fn start(
        store: Arc<S>,
        settings: IngestSettings,
        metrics: ArchiveMetrics,
    ) -> (IngestHandle<T>, mpsc::Receiver<Committed<T>>) {
        let (queue_in, queue) = mpsc::channel(settings.queue.max(1));
        let (committed, committed_out) = mpsc::channel(settings.queue.max(1));
        let handle = IngestHandle { queue: queue_in, metrics: metrics.clone() };
        tokio::spawn(Self { store, settings, metrics, queue, committed }.run());
        (handle, committed_out)
    }

    async fn run(mut self) {
        while let Some(batch) = self.next_batch().await {
            self.metrics.storing(batch.tokens.first().map(|submitted| submitted.accepted));
            let mut results = self.commit(&batch.messages).await.into_iter();
            let stored = Instant::now();
            self.metrics.storing(None);
            self.metrics.done(batch.tokens.len());
            if let Some(barrier) = batch.barrier {
                // Who waited may have gone.
                let _ = barrier.send(());
            }
            for Submitted { token, is_written, accepted } in batch.tokens {
                self.metrics.lagged(stored.duration_since(accepted));
                let result = if is_written { results.next() } else { None }.unwrap_or_else(|| Ok(Vec::new()));
                // Without anybody to hear it the message is stored all the same.
                let _ = self.committed.send(Committed { token, result }).await;
            }
        }
    }

    /// The next messages, up to a limit or a barrier; `None` when there will be no more.
    async fn next_batch(&mut self) -> Option<Batch<T>> {
        let mut batch = Batch { messages: Vec::new(), tokens: Vec::new(), barrier: None };
        let mut work = self.queue.recv().await?;
        let mut bytes = 0_usize;
        let (begun, delay) = (time::Instant::now(), self.settings.batch_delay);
        loop {
            match work {
                Work::Message(message, token, accepted) => {
                    let is_written = !message.copies.is_empty() || !message.key_exchanges.is_empty();
                    batch.tokens.push(Submitted { token, is_written, accepted });
                    if is_written {
                        bytes = bytes.saturating_add(message.body.len());
                        batch.messages.push(message);
                    }
                }
                Work::Barrier(reached) => {
                    batch.barrier = Some(reached);
                    return Some(batch);
                }
            }
            if batch.tokens.len() >= self.settings.batch_max || bytes >= self.settings.batch_bytes {
                return Some(batch);
            }
            work = match self.queue.try_recv() {
                Ok(work) => work,
                // Many have come while the batch before was stored: as many will come while this one is.
                Err(_) if batch.tokens.len() >= self.settings.batch_max.div_ceil(ENOUGH) => return Some(batch),
                Err(_) => {
                    let wait = delay.saturating_sub(begun.elapsed()).min(delay.checked_div(PAUSES).unwrap_or_default());
                    match time::timeout(wait, self.queue.recv()).await {
                        Ok(Some(work)) => work,
                        Ok(None) | Err(_) => return Some(batch),
                    }
                }
            };
        }
    }

    /// Stores a batch. One that the database refuses is halved until the message is alone for whose sake it does, so that
    /// one bad message spoils no other; nothing is reordered.
    async fn commit(&self, messages: &[ArchivedMessage]) -> Vec<Result<Vec<Appended>, Rejected>> {
        let mut results = Vec::with_capacity(messages.len());
        let mut parts = vec![messages];
        while let Some(part) = parts.pop().filter(|part| !part.is_empty()) {
            match (self.append(part).await, part) {
                (Ok(appended), _) => {
                    for (message, copies) in part.iter().zip(&appended) {
                        self.metrics.appended(message.class, copies);
                    }
                    results.extend(appended.into_iter().map(Ok));
                }
                (Err(error), [message]) => results.push(Err(self.set_aside(message, error).await)),
                (Err(_), _) => {
                    let (first, second) = part.split_at(part.len().div_euclid(2));
                    parts.push(second);
                    parts.push(first);
                }
            }
        }
        results
    }

    /// Puts a message that cannot be stored where an operator finds it.
    async fn set_aside(&self, message: &ArchivedMessage, error: StoreError) -> Rejected {
        let (class, bytes) = (message.class.name(), message.body.len());
        tracing::error!(class, bytes, %error, "a message cannot be stored and is set aside");
        self.metrics.rejected(message.class, message.copies.len());
        let reason = error.to_string();
        let set_aside = self.patiently(1, || self.store.set_aside(message, &reason, SystemClock.now())).await;
        if let Err(error) = &set_aside {
            tracing::error!(class, bytes, %error, "a message that cannot be stored cannot be set aside either");
        }
        self.metrics.dead_letter(set_aside.is_ok());
        Rejected { error, set_aside: set_aside.is_ok() }
    }

    /// One transaction, tried again for as long as the database is away. An error is one of the messages themselves.
    async fn append(&self, messages: &[ArchivedMessage]) -> Result<Vec<Vec<Appended>>, StoreError> {
        let append = async || {
            let started = Instant::now();
            let results = self.store.append(messages).await?;
            if results.len() != messages.len() {
                return Err(StoreError::Corrupt("not one result per message"));
            }
            self.metrics.batch(messages.len(), started.elapsed());
            Ok(results)
        };
        self.patiently(messages.len(), append).await
    }

    /// Writes, again and again for as long as the database is away.
    async fn patiently<A, W>(&self, messages: usize, write: impl Fn() -> W) -> Result<A, StoreError>
    where
        W: Future<Output = Result<A, StoreError>>,
    {
        let mut wait = self.settings.retry_first;
        let mut attempts = 0_u32;
        loop {
            match write().await {
                Err(error) if !is_about_messages(&error) => {
                    attempts = attempts.saturating_add(1);
                    self.metrics.append_retry();
                    tracing::error!(
                        attempts,
                        messages,
                        %error,
                        "messages cannot be stored now; nothing is acknowledged until they are"
                    );
                }
                written => {
                    if attempts > 0 && written.is_ok() {
                        tracing::info!(attempts, "the database takes messages again");
                    }
                    return written;
                }
            }
            time::sleep(wait).await;
            wait = wait.saturating_mul(2).min(self.settings.retry_max);
        }
    }
}

/// Whether another message might fare better. A database that is away, or has the wrong schema, takes none.
fn is_about_messages(error: &StoreError) -> bool {
    match error {
        StoreError::Corrupt(_) | StoreError::Range(_) | StoreError::Database(_) => true,
        StoreError::Unavailable(_)
        | StoreError::Schema { .. }
        | StoreError::Migrated { .. }
        | StoreError::Migration(_)
        | StoreError::File { .. }
        | StoreError::TooManyBundles
        | StoreError::Random
        | StoreError::TooManyChanges
        | StoreError::Unconfirmed
        | StoreError::Metrics(_) => false,
    }
}

#[cfg(test)]
mod tests;
