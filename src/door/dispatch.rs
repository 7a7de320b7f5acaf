//! Takes stanzas from the link in order and brings each to its door.
//!
//! Messages go through one by one: the archive keeps the order of the stream. Requests go to one of a few lanes, always the
//! same for one account, so that what one client asks is answered in the order asked, while clients do not wait for each
//! other. A lane that is full refuses with a wait error: one client that floods cannot stop the stream.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::alias::{AliasDoor, MessageDoor};
use super::commands::Commands;
use super::delegation::DelegationDoor;
use super::metrics::{Door, DoorMetrics};
use super::plugin::{CopyDoor, PluginDoor, Said};
use crate::link::{LONGEST_STANZA, Outbox, RawStanza, SendError};
use crate::stanza::error::{Condition, StanzaError};
use crate::stanza::incoming::{Incoming, Kind};
use crate::stanza::tree::push_attribute;

/// How many lanes. More than this many requests never touch the database at once.
const LANES: usize = 64;
/// Requests waiting in one lane.
const LANE_LENGTH: usize = 64;
/// Bytes of requests waiting in one lane.
const LANE_BYTES: u32 = 1024 * 1024;
/// Requests waiting in all lanes.
pub const REQUESTS_WAITING: usize = LANES * LANE_LENGTH;

/// All doors.
pub struct Doors {
    /// For what clients ask.
    pub requests: AliasDoor,
    /// For what clients write.
    pub messages: MessageDoor,
    /// For what servers ask for their clients.
    pub plugin: PluginDoor,
    /// For what servers have seen written.
    pub copies: CopyDoor,
    /// For what servers ask for their clients with stock modules.
    pub delegation: DelegationDoor,
    /// For what administrators ask.
    pub commands: Box<dyn Commands>,
    /// What is counted.
    pub metrics: DoorMetrics,
}

/// Runs until the link gives no more; returns when everything taken in has been answered.
pub async fn run(mut inbound: mpsc::Receiver<RawStanza>, outbox: Outbox, doors: Doors) {
    let doors = Arc::new(doors);
    let mut running = JoinSet::new();
    let lanes: Vec<Lane> = (0..LANES)
        .map(|_| {
            let (lane, waiting) = Lane::new(doors.metrics.clone());
            running.spawn(answer(waiting, outbox.clone(), doors.clone()));
            lane
        })
        .collect();
    // Not the same in every process: nobody can choose an address for its lane.
    let hashes = RandomState::new();
    while let Some(stanza) = inbound.recv().await {
        let replies = take(&stanza.bytes, &lanes, &hashes, &doors).await;
        send(&outbox, &doors.metrics, replies).await;
    }
    drop(lanes);
    drop(doors);
    while running.join_next().await.is_some() {}
}

/// Brings one stanza to its door. What is given back is to be sent at once.
async fn take(bytes: &Bytes, lanes: &[Lane], hashes: &RandomState, doors: &Doors) -> Option<String> {
    let incoming = match Incoming::parse(bytes) {
        Ok(incoming) => incoming,
        Err(error) => {
            tracing::debug!(%error, "dropped a stanza that nobody can be told about");
            doors.metrics.dropped();
            return None;
        }
    };
    match incoming.kind {
        Kind::Message(_) => match doors.delegation.hear(&incoming) {
            Some(heard) => heard.err().map(|error| incoming.error(&error)),
            None => match doors.messages.accept(&incoming).await {
                Ok(reply) => reply,
                Err(error) => Some(incoming.error(&error)),
            },
        },
        Kind::IqGet | Kind::IqSet => {
            let request = match doors.delegation.recognise(&incoming) {
                Some(recognised) => Some(recognised.map(Said::Request)),
                None => doors.plugin.recognise(&incoming),
            };
            let account = match request {
                None => incoming.from.to_bare(),
                Some(Ok(Said::Request(account))) => account,
                Some(Ok(Said::Copies)) => {
                    return doors.copies.accept(&incoming).await.unwrap_or_else(|error| Some(incoming.error(&error)));
                }
                Some(Err(error)) => return Some(incoming.error(&error)),
            };
            let hash = hashes.hash_one(account);
            let lane = usize::try_from(hash.checked_rem(LANES as u64).unwrap_or_default()).unwrap_or_default();
            match lanes.get(lane).map(|lane| lane.put(bytes.clone())) {
                Some(true) => None,
                _ => {
                    let text = "too many requests are waiting; try again";
                    let error = StanzaError::new(Condition::ResourceConstraint, text);
                    Some(doors.delegation.refuse(&incoming, &error))
                }
            }
        }
        Kind::IqReply => {
            doors.delegation.answered(&incoming);
            None
        }
        Kind::Presence => refuse_subscription(&incoming),
        Kind::BadType => {
            Some(incoming.error(&StanzaError::new(Condition::BadRequest, "there is no stanza of this type")))
        }
    }
}

/// An alias shows no presence: who asks for it is told so.
fn refuse_subscription(presence: &Incoming<'_>) -> Option<String> {
    if presence.element.attribute("type") != Some("subscribe") {
        return None;
    }
    let mut out = String::from("<presence type='unsubscribed'");
    push_attribute(&mut out, "from", presence.to.to_bare().as_str());
    push_attribute(&mut out, "to", presence.from.to_bare().as_str());
    out.push_str("/>");
    Some(out)
}

/// Requests that wait for each other, bounded in number and bytes.
struct Lane {
    waiting: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    metrics: DoorMetrics,
}

/// A request in a lane, with its share of the room.
struct Waiting {
    bytes: Bytes,
    since: Instant,
    _room: OwnedSemaphorePermit,
}

impl Lane {
    fn new(metrics: DoorMetrics) -> (Self, mpsc::Receiver<Waiting>) {
        let (sender, receiver) = mpsc::channel(LANE_LENGTH);
        let room = usize::try_from(LANE_BYTES).unwrap_or(usize::MAX);
        (Self { waiting: sender, room: Arc::new(Semaphore::new(room)), metrics }, receiver)
    }

    /// Puts a request into the lane; `false` if it has no room.
    fn put(&self, request: Bytes) -> bool {
        let bytes = u32::try_from(request.len()).unwrap_or(u32::MAX).min(LANE_BYTES);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(bytes) else { return false };
        let Ok(place) = self.waiting.try_reserve() else { return false };
        self.metrics.waits();
        place.send(Waiting { bytes: request, since: Instant::now(), _room: room });
        true
    }
}

/// Answers the requests of a lane one after the other.
async fn answer(mut waiting: mpsc::Receiver<Waiting>, outbox: Outbox, doors: Arc<Doors>) {
    while let Some(Waiting { bytes, since, _room }) = waiting.recv().await {
        doors.metrics.taken();
        let Ok(incoming) = Incoming::parse(&bytes) else { continue };
        let (door, mut replies) = match doors.plugin.recognise(&incoming) {
            _ if doors.delegation.recognise(&incoming).is_some() => {
                (Door::Delegation, doors.delegation.answer(&incoming, &outbox).await)
            }
            Some(_) => (Door::Plugin, doors.plugin.answer(&incoming).await),
            None if doors.commands.recognises(&incoming) => {
                let answer = doors.commands.answer(&incoming).await;
                let reply = answer.map_or_else(|error| incoming.error(&error), |payload| incoming.result(&payload));
                (Door::Commands, vec![reply])
            }
            None => {
                let mut replies = doors.requests.answer(&incoming).await;
                let owner = doors.requests.owner(&incoming);
                replies.extend(owner.and_then(|owner| doors.plugin.news(&incoming, &owner)));
                (Door::Alias, replies)
            }
        };
        if replies.iter().any(|reply| reply.len() > LONGEST_STANZA) {
            let text = "the answer would be too long for one stanza; ask for less at once";
            replies = vec![incoming.error(&StanzaError::new(Condition::NotAcceptable, text))];
        }
        send(&outbox, &doors.metrics, replies).await;
        doors.metrics.answered(door, since.elapsed());
    }
}

async fn send(outbox: &Outbox, metrics: &DoorMetrics, stanzas: impl IntoIterator<Item = String>) {
    for stanza in stanzas {
        metrics.sent(&stanza);
        match outbox.send(Bytes::from(stanza)).await {
            Ok(()) => {}
            Err(SendError::Closed) => {
                tracing::debug!("the link is closed; an answer is dropped");
                return;
            }
            Err(error @ SendError::TooLong) => tracing::error!(%error, "an answer is dropped"),
        }
        // Between two messages of a page, others get their word in.
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lane_is_bounded_in_bytes_and_takes_more_when_there_is_room_again() {
        let metrics = DoorMetrics::register(&prometheus::Registry::new()).unwrap();
        let (lane, mut waiting) = Lane::new(metrics);
        let large = || Bytes::from(vec![b'x'; 600 * 1024]);
        assert!(lane.put(large()));
        assert!(!lane.put(large()));
        drop(waiting.recv().await);
        assert!(lane.put(large()));
        drop(waiting.recv().await);
        assert!(
            lane.put(Bytes::from(vec![b'x'; 2 * 1024 * 1024])),
            "one that is longer than all of the room takes all of it"
        );
        drop(waiting.recv().await);
        for _ in 0..LANE_LENGTH {
            assert!(lane.put(Bytes::from_static(b"<iq/>")));
        }
        assert!(!lane.put(Bytes::from_static(b"<iq/>")));
    }
}
