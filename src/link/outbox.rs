//! Stanzas on their way out: bounded in number and bytes, kept while the link is down.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Where to put stanzas for the server. Clones share one queue; the order of each sender's stanzas is kept.
#[derive(Clone, Debug)]
pub struct Outbox {
    queue: mpsc::Sender<Outgoing>,
    budget: Arc<Semaphore>,
    budget_bytes: u32,
}

/// The longest stanza that is sent, in bytes. Prosody ends the stream of a component that sends a longer one
/// (`component_stanza_size_limit`), and would end the next one for the same stanza.
pub const LONGEST_STANZA: usize = 512 * 1024;

/// Why a stanza is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Nothing will be sent any more.
    #[error("the link to the server has ended")]
    Closed,
    /// Longer than [`LONGEST_STANZA`].
    #[error("the stanza is longer than servers take")]
    TooLong,
}

impl Outbox {
    /// Queues one whole stanza, waiting for room while the queue is full. What is queued survives a reconnect; what was
    /// being written when the connection broke is written again, what was written before may be lost with it.
    pub async fn send(&self, stanza: Bytes) -> Result<(), SendError> {
        if stanza.is_empty() {
            return Ok(());
        }
        if stanza.len() > LONGEST_STANZA {
            return Err(SendError::TooLong);
        }
        // A stanza that is longer than the whole budget takes all of it.
        let bytes = u32::try_from(stanza.len()).unwrap_or(u32::MAX).min(self.budget_bytes);
        let room = Arc::clone(&self.budget).acquire_many_owned(bytes).await.map_err(|_| SendError::Closed)?;
        self.queue.send(Outgoing { stanza, _room: Some(room) }).await.map_err(|_| SendError::Closed)
    }

    /// How many stanzas wait to be written, now and at any later time; 0 once the link has ended. Whoever asks does not keep
    /// the link alive.
    pub fn length(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let queue = self.queue.downgrade();
        move || queue.upgrade().map_or(0, |queue| queue.max_capacity().saturating_sub(queue.capacity()))
    }

    /// How many stanzas may wait.
    pub fn limit(&self) -> usize {
        self.queue.max_capacity()
    }

    /// An outbox that is not connected to a link, and the other end of it. For tests of what sends.
    pub fn detached(capacity: usize) -> (Self, mpsc::Receiver<Bytes>) {
        let (outbox, mut queue) = outbox(capacity, u32::MAX >> 3);
        let (forward, stanzas) = mpsc::channel(capacity.max(1));
        tokio::spawn(async move {
            while let Some(outgoing) = queue.waiting.recv().await {
                if forward.send(outgoing.stanza).await.is_err() {
                    return queue.close();
                }
            }
        });
        (outbox, stanzas)
    }
}

/// A stanza with its share of the byte budget, given back once it is written.
#[derive(Debug)]
pub(super) struct Outgoing {
    stanza: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Stanzas that one system call writes at most.
const WRITTEN_AT_ONCE: usize = 64;
/// Replies of the link itself that may wait to be written before it stops reading.
const OWN_REPLIES: usize = 256;

/// The link's end of the outbox.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: mpsc::Receiver<Outgoing>,
    /// Where `recv_many` puts stanzas, while `writing` is being written.
    taken: Vec<Outgoing>,
    budget: Arc<Semaphore>,
    writing: VecDeque<Outgoing>,
    /// Bytes of the first of `writing` that this connection has taken.
    written: usize,
    ended: bool,
}

/// A queue of this many stanzas and this many bytes.
pub(super) fn outbox(capacity: usize, budget_bytes: u32) -> (Outbox, Queue) {
    let (queue, waiting) = mpsc::channel(capacity.max(1));
    let budget_bytes = budget_bytes.clamp(1, u32::MAX >> 3);
    let budget = Arc::new(Semaphore::new(usize::try_from(budget_bytes).unwrap_or(usize::MAX)));
    let outbox = Outbox { queue, budget: Arc::clone(&budget), budget_bytes };
    let queue = Queue { waiting, taken: Vec::new(), budget, writing: VecDeque::new(), written: 0, ended: false };
    (outbox, queue)
}

impl Queue {
    /// Writes what is there to be written, or takes in more: whatever is possible first. Returns the bytes written, to be
    /// told to [`Self::wrote`]. May be abandoned at any time.
    pub async fn progress(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<usize> {
        let room = self.room();
        let count = tokio::select! {
            count = self.waiting.recv_many(&mut self.taken, room), if room > 0 => count,
            result = async { to.write_vectored(&slices(&self.writing, self.written)).await }, if !self.writing.is_empty() => {
                return match result? {
                    0 => Err(std::io::ErrorKind::WriteZero.into()),
                    count => Ok(count),
                };
            }
            else => std::future::pending().await,
        };
        self.take_in(count);
        Ok(0)
    }

    /// Takes in what is waiting, without a connection to write it to. May be abandoned at any time.
    pub async fn fill(&mut self) {
        let room = self.room();
        if room == 0 {
            return std::future::pending().await;
        }
        let count = self.waiting.recv_many(&mut self.taken, room).await;
        self.take_in(count);
    }

    fn room(&self) -> usize {
        if self.ended { 0 } else { WRITTEN_AT_ONCE.saturating_sub(self.writing.len()) }
    }

    /// After `count` stanzas were received. 0 means that every [`Outbox`] is gone.
    fn take_in(&mut self, count: usize) {
        self.ended |= count == 0;
        self.writing.extend(self.taken.drain(..));
    }

    /// Queues a stanza of the link's own.
    pub fn push(&mut self, stanza: Bytes) {
        self.writing.push_back(Outgoing { stanza, _room: None });
    }

    /// Whether the link has so many replies of its own unwritten that it should stop making more.
    pub fn is_congested(&self) -> bool {
        self.writing.len() >= OWN_REPLIES
    }

    /// Whether a stanza was written in part, so that nothing else may be written now.
    pub fn is_inside_stanza(&self) -> bool {
        self.written > 0
    }

    /// After `count` bytes were written: calls `sent` with each stanza that is complete with them.
    pub fn wrote(&mut self, count: usize, mut sent: impl FnMut(&[u8])) {
        self.written = self.written.saturating_add(count);
        while let Some(first) = self.writing.front() {
            let Some(rest) = self.written.checked_sub(first.stanza.len()) else { return };
            sent(&first.stanza);
            self.written = rest;
            self.writing.pop_front();
        }
    }

    /// A new connection: what the last one took in part is written again from its beginning, and the link's own replies
    /// with what else was not written.
    pub fn begin_again(&mut self) {
        self.written = 0;
    }

    /// Whether everything that can come has been written. With `no_more`, the users have said that nothing will come
    /// though they still hold an [`Outbox`].
    pub fn is_finished(&self, no_more: bool) -> bool {
        (self.ended || (no_more && self.waiting.is_empty())) && self.writing.is_empty()
    }

    /// Stanzas that have not been written.
    pub fn unwritten(&self) -> usize {
        self.waiting.len().saturating_add(self.writing.len())
    }

    /// Refuses all further stanzas, also those that wait for room.
    pub fn close(&mut self) {
        self.waiting.close();
        self.budget.close();
    }
}

/// The bytes to write next.
fn slices(writing: &VecDeque<Outgoing>, written: usize) -> [IoSlice<'_>; WRITTEN_AT_ONCE] {
    let mut slices = [IoSlice::new(&[]); WRITTEN_AT_ONCE];
    let mut skip = written;
    for (slice, outgoing) in slices.iter_mut().zip(writing) {
        *slice = IoSlice::new(outgoing.stanza.get(skip..).unwrap_or_default());
        skip = 0;
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(outbox: &Outbox, stanza: &'static str) {
        outbox.send(Bytes::from_static(stanza.as_bytes())).await.unwrap();
    }

    #[tokio::test]
    async fn a_stanza_written_in_part_is_written_again_on_the_next_connection() {
        let (outbox, mut queue) = outbox(100, 1_000);
        for stanza in ["<a/>", "<bb/>", "<c/>"] {
            put(&outbox, stanza).await;
        }
        queue.fill().await;
        let mut first = Vec::new();
        let count = queue.progress(&mut (&mut first as &mut (dyn AsyncWrite + Unpin))).await.unwrap();
        assert_eq!((first.as_slice(), count), (&b"<a/><bb/><c/>"[..], 13), "one system call writes them all");
        let mut sent = Vec::new();
        queue.wrote(6, |stanza| sent.push(stanza.to_vec()));
        assert_eq!(sent, [b"<a/>"]);
        assert!(queue.is_inside_stanza());
        queue.begin_again();
        let mut second = Vec::new();
        queue.progress(&mut (&mut second as &mut (dyn AsyncWrite + Unpin))).await.unwrap();
        assert_eq!(second, b"<bb/><c/>");
    }

    #[tokio::test]
    async fn senders_wait_for_bytes_and_learn_of_the_end() {
        let (outbox, mut queue) = outbox(100, 10);
        put(&outbox, "12345678").await;
        let second = tokio::spawn({
            let outbox = outbox.clone();
            async move { put(&outbox, "a longer one than all of the budget").await }
        });
        tokio::task::yield_now().await;
        assert_eq!(queue.unwritten(), 1);
        queue.fill().await;
        queue.wrote(8, |_| {});
        second.await.unwrap();
        assert_eq!(queue.unwritten(), 1);
        let third = tokio::spawn(async move { outbox.send(Bytes::from_static(b"x")).await });
        tokio::task::yield_now().await;
        queue.close();
        assert_eq!(third.await.unwrap(), Err(SendError::Closed));
    }

    #[tokio::test]
    async fn what_the_server_would_end_the_stream_for_is_not_queued() {
        let (outbox, queue) = outbox(100, u32::MAX);
        assert_eq!(outbox.send(Bytes::from(vec![b'x'; LONGEST_STANZA + 1])).await, Err(SendError::TooLong));
        assert_eq!(outbox.send(Bytes::from(vec![b'x'; LONGEST_STANZA])).await, Ok(()));
        assert_eq!(queue.unwritten(), 1);
    }

    #[tokio::test]
    async fn finished_means_that_nobody_can_send_and_all_is_written() {
        let (outbox, mut queue) = outbox(100, 1_000);
        put(&outbox, "<a/>").await;
        assert!(!queue.is_finished(true), "one is waiting");
        queue.fill().await;
        queue.wrote(4, |_| {});
        assert!(queue.is_finished(true) && !queue.is_finished(false));
        drop(outbox);
        queue.fill().await;
        assert!(queue.is_finished(false));
    }
}
