//! Whether the server lets the messages of a page through to the client.
//!
//! A server answers a message that it does not let through with an error, and one that it does with nothing. So behind the
//! messages of each page goes a ping: what the server has against them comes before the answer to that. Only then is the
//! client told that it has the page. Otherwise it would take the page for read and never ask for those messages again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// All ids of ours begin so.
const PREFIX: &str = "page-";

/// What became of the messages of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// They are on their way to the client.
    LetThrough,
    /// At least one was not.
    Refused,
    /// The server has not answered.
    Unknown,
}

/// The pages that are under way.
#[derive(Debug, Default)]
pub(super) struct Passages(Mutex<Pending>);

#[derive(Debug, Default)]
struct Pending {
    last: u64,
    pages: HashMap<u64, oneshot::Sender<Outcome>>,
}

/// One page under way. Dropping it is giving up.
#[derive(Debug)]
pub(super) struct Passage<'p> {
    passages: &'p Passages,
    number: u64,
    outcome: oneshot::Receiver<Outcome>,
}

impl Passages {
    /// Begins with a page.
    pub(super) fn begin(&self) -> Passage<'_> {
        let (sender, outcome) = oneshot::channel();
        let mut pending = self.pending();
        pending.last = pending.last.wrapping_add(1);
        let number = pending.last;
        pending.pages.insert(number, sender);
        Passage { passages: self, number, outcome }
    }

    /// The server did not let through what had this id. Whether that was of a page, now or before.
    pub(super) fn refused(&self, id: &str) -> bool {
        let Some(number) = number(id) else { return false };
        self.end(number, Outcome::Refused);
        true
    }

    /// The server has answered the ping of this id.
    pub(super) fn answered(&self, id: &str) {
        if let Some(number) = number(id) {
            self.end(number, Outcome::LetThrough);
        }
    }

    fn end(&self, number: u64, outcome: Outcome) {
        if let Some(page) = self.pending().pages.remove(&number) {
            // Who has given up does not listen.
            let _ = page.send(outcome);
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number(id: &str) -> Option<u64> {
    id.strip_prefix(PREFIX)?.parse().ok()
}

impl Passage<'_> {
    /// The id of its messages and of the ping behind them.
    pub(super) fn id(&self) -> String {
        format!("{PREFIX}{}", self.number)
    }

    /// Waits for the server's word, so long and no longer.
    pub(super) async fn outcome(mut self, patience: Duration) -> Outcome {
        match timeout(patience, &mut self.outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Outcome::Unknown,
        }
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        self.passages.pending().pages.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_page_ends_with_the_first_word_about_it() {
        let passages = Passages::default();
        let (one, other, third) = (passages.begin(), passages.begin(), passages.begin());
        let (one_id, other_id) = (one.id(), other.id());
        assert_ne!(one_id, other_id);
        assert!(passages.refused(&one_id), "one of its messages came back");
        passages.answered(&one_id);
        passages.answered(&other_id);
        let patience = Duration::from_millis(20);
        assert_eq!(one.outcome(patience).await, Outcome::Refused);
        assert_eq!(other.outcome(patience).await, Outcome::LetThrough);
        assert_eq!(third.outcome(patience).await, Outcome::Unknown, "a server that says nothing");
        assert!(passages.pending().pages.is_empty(), "nothing is left behind");
        assert!(passages.refused(&one_id), "a late one is still one of ours");
        assert!(!passages.refused("something else") && !passages.refused("page-x"));
    }
}
