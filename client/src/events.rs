//! The queue of events between the tasks and the caller.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::event::Event;

/// How many events may wait before no more live messages are taken in.
const ROOM: usize = 4_096;

/// Events in order. A message has a number; the caller has had it once it asks for the next event.
#[derive(Default)]
pub(crate) struct Events {
    queue: Mutex<Queue>,
    arrived: Notify,
    taken: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Option<u64>, Event)>,
    /// The number of the message that the caller is dealing with.
    in_hand: Option<u64>,
    /// Messages up to this number have been dealt with.
    had: u64,
}

impl Events {
    /// Adds events; those of messages come with their numbers.
    pub(crate) fn push(&self, events: impl IntoIterator<Item = (Option<u64>, Event)>) {
        self.queue().waiting.extend(events);
        self.arrived.notify_one();
    }

    /// The next event. The one before it has been dealt with.
    pub(crate) async fn next(&self) -> Event {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            self.arrived.notified().await;
        }
    }

    /// The next event, if one waits. The one before it has been dealt with.
    pub(crate) fn try_next(&self) -> Option<Event> {
        let mut queue = self.queue();
        if let Some(number) = queue.in_hand.take() {
            queue.had = queue.had.max(number);
        }
        let (number, event) = queue.waiting.pop_front()?;
        queue.in_hand = number;
        self.taken.notify_one();
        Some(event)
    }

    /// Up to which number the caller has dealt with messages.
    pub(crate) fn had(&self) -> u64 {
        self.queue().had
    }

    /// Waits until the caller has taken enough.
    pub(crate) async fn room(&self) {
        while self.queue().waiting.len() >= ROOM {
            self.taken.notified().await;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
