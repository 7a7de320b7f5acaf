//! The one path on which copies get into the archive (DESIGN, archive invariants 1 and 2).
//!
//! Messages wait in a bounded queue; one task takes them out, in batches, and stores each batch in one transaction. Only
//! then comes the [`Committed`] word that allows an acknowledgement, in the order in which the messages were submitted. A
//! full queue makes [`IngestHandle::submit`] wait: who submits stops reading from the server, and nothing piles up in
//! memory. While the database is away the writer tries again for ever and everything behind it waits; a message that the
//! database will never take is rejected alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time;

use super::metrics::ArchiveMetrics;
use crate::model::ArchivedMessage;
use crate::store::{Appended, ArchiveStore, StoreError};

/// Sizes and times of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestSettings {
    /// Most messages that wait; at least 1.
    pub queue: usize,
    /// Most messages of one transaction; at least 1.
    pub batch_max: usize,
    /// A transaction takes no further message once its bodies have this many bytes together.
    pub batch_bytes: usize,
    /// How long the first message of a batch waits for others.
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

/// A message that was submitted, with what became of it. Durable when this is there.
#[derive(Debug)]
pub struct Committed<T> {
    /// What was submitted with it.
    pub token: T,
    /// One result per copy; or the message will never be stored.
    pub result: Result<Vec<Appended>, Rejected>,
}

/// The database refuses this very message. Nothing of it was stored.
#[derive(Debug, thiserror::Error)]
#[error("the message cannot be stored: {0}")]
pub struct Rejected(#[source] pub StoreError);

/// The writer has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the archive's writer has ended")]
pub struct IngestClosed;

enum Work<T> {
    Message(ArchivedMessage, T),
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
    /// Accepts a message; waits while the queue is full. One without copies is not stored, but keeps its place: its word
    /// comes after that of the messages before it. `token` comes back in [`Committed`]. Not accepted if this is
    /// cancelled.
    pub async fn submit(&self, message: ArchivedMessage, token: T) -> Result<(), IngestClosed> {
        let place = self.queue.reserve().await.map_err(|_| IngestClosed)?;
        self.metrics.queued();
        place.send(Work::Message(message, token));
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
    /// In the order submitted, each with whether one of `messages` belongs to it.
    tokens: Vec<(T, bool)>,
    barrier: Option<oneshot::Sender<()>>,
}

impl<T: Send + 'static, S: ArchiveStore + ?Sized + 'static> Ingest<T, S> {
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
            let mut results = self.commit(&batch.messages).await.into_iter();
            self.metrics.done(batch.tokens.len());
            if let Some(barrier) = batch.barrier {
                // Who waited may have gone.
                let _ = barrier.send(());
            }
            for (token, stored) in batch.tokens {
                let result = if stored { results.next() } else { None }.unwrap_or_else(|| Ok(Vec::new()));
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
        let deadline = time::Instant::now().checked_add(self.settings.batch_delay);
        loop {
            match work {
                Work::Message(message, token) => {
                    let has_copies = !message.copies.is_empty();
                    batch.tokens.push((token, has_copies));
                    if has_copies {
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
                Err(_) => {
                    let Some(deadline) = deadline else { return Some(batch) };
                    match time::timeout_at(deadline, self.queue.recv()).await {
                        Ok(Some(work)) => work,
                        Ok(None) | Err(_) => return Some(batch),
                    }
                }
            };
        }
    }

    /// Stores a batch; if the database refuses it, message by message, so that one bad message spoils no other.
    async fn commit(&self, messages: &[ArchivedMessage]) -> Vec<Result<Vec<Appended>, Rejected>> {
        if messages.is_empty() {
            return Vec::new();
        }
        if let Ok(results) = self.append(messages).await {
            for (message, copies) in messages.iter().zip(&results) {
                self.metrics.appended(message.class, copies);
            }
            return results.into_iter().map(Ok).collect();
        }
        let mut results = Vec::with_capacity(messages.len());
        for message in messages {
            let result = match self.append(std::slice::from_ref(message)).await {
                Ok(copies) => {
                    let copies: Vec<_> = copies.into_iter().flatten().collect();
                    self.metrics.appended(message.class, &copies);
                    Ok(copies)
                }
                Err(error) => {
                    tracing::error!(
                        class = message.class.name(),
                        bytes = message.body.len(),
                        %error,
                        "a message cannot be stored and is rejected"
                    );
                    self.metrics.rejected(message.class, message.copies.len());
                    Err(Rejected(error))
                }
            };
            results.push(result);
        }
        results
    }

    /// One transaction, tried again for as long as the database is away. An error is one of the messages themselves.
    async fn append(&self, messages: &[ArchivedMessage]) -> Result<Vec<Vec<Appended>>, StoreError> {
        let mut wait = self.settings.retry_first;
        let mut attempts = 0_u32;
        loop {
            let started = Instant::now();
            match self.store.append(messages).await {
                Ok(results) if results.len() == messages.len() => {
                    self.metrics.batch(messages.len(), started.elapsed());
                    if attempts > 0 {
                        tracing::info!(attempts, "the database takes messages again");
                    }
                    return Ok(results);
                }
                Ok(_) => return Err(StoreError::Corrupt("not one result per message")),
                Err(error) if is_about_messages(&error) => return Err(error),
                Err(error) => {
                    attempts = attempts.saturating_add(1);
                    self.metrics.append_retry();
                    tracing::error!(
                        attempts,
                        messages = messages.len(),
                        %error,
                        "messages cannot be stored now; nothing is acknowledged until they are"
                    );
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
