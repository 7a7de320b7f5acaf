//! Takes stanzas from the link in order and brings each to its door.
//!
//! Messages go through one by one: the archive keeps the order of the stream. Requests go to one of a few lanes, always the
//! same for one account, so that what one client asks is answered in the order asked, while clients do not wait for each
//! other. A lane that is full refuses with a wait error: one client that floods cannot stop the stream.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::alias::{AliasDoor, MessageDoor};
use crate::link::{LONGEST_STANZA, Outbox, RawStanza, SendError};
use crate::stanza::error::{Condition, StanzaError};
use crate::stanza::incoming::{Incoming, Kind};
use crate::stanza::tree::push_attribute;

/// How many lanes. More than this many requests never touch the database at once.
const LANES: usize = 64;
/// Requests waiting in one lane.
const LANE_LENGTH: usize = 64;

/// Runs until the link gives no more; returns when everything taken in has been answered.
pub async fn run(
    mut inbound: mpsc::Receiver<RawStanza>,
    outbox: Outbox,
    requests: Arc<AliasDoor>,
    messages: MessageDoor,
) {
    let mut running = JoinSet::new();
    let lanes: Vec<mpsc::Sender<Bytes>> = (0..LANES)
        .map(|_| {
            let (sender, receiver) = mpsc::channel(LANE_LENGTH);
            running.spawn(lane(receiver, outbox.clone(), requests.clone()));
            sender
        })
        .collect();
    while let Some(stanza) = inbound.recv().await {
        let replies = take(&stanza.bytes, &lanes, &messages).await;
        send(&outbox, replies).await;
    }
    drop(lanes);
    while running.join_next().await.is_some() {}
}

/// Brings one stanza to its door. What is given back is to be sent at once.
async fn take(bytes: &Bytes, lanes: &[mpsc::Sender<Bytes>], messages: &MessageDoor) -> Option<String> {
    let incoming = match Incoming::parse(bytes) {
        Ok(incoming) => incoming,
        Err(error) => {
            tracing::debug!(%error, "dropped a stanza that nobody can be told about");
            return None;
        }
    };
    match incoming.kind {
        Kind::Message(_) => match messages.accept(&incoming).await {
            Ok(reply) => reply,
            Err(error) => Some(incoming.error(&error)),
        },
        Kind::IqGet | Kind::IqSet => {
            let mut hasher = DefaultHasher::new();
            incoming.from.to_bare().hash(&mut hasher);
            let lane =
                usize::try_from(hasher.finish().checked_rem(LANES as u64).unwrap_or_default()).unwrap_or_default();
            match lanes.get(lane).map(|lane| lane.try_send(bytes.clone())) {
                Some(Ok(())) => None,
                _ => Some(incoming.error(&StanzaError::new(
                    Condition::ResourceConstraint,
                    "too many requests are waiting; try again",
                ))),
            }
        }
        Kind::IqReply => None,
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

/// Answers requests one after the other.
async fn lane(mut waiting: mpsc::Receiver<Bytes>, outbox: Outbox, requests: Arc<AliasDoor>) {
    while let Some(bytes) = waiting.recv().await {
        let Ok(incoming) = Incoming::parse(&bytes) else { continue };
        let mut replies = requests.answer(&incoming).await;
        if replies.iter().any(|reply| reply.len() > LONGEST_STANZA) {
            let text = "the answer would be too long for one stanza; ask for less at once";
            replies = vec![incoming.error(&StanzaError::new(Condition::NotAcceptable, text))];
        }
        send(&outbox, replies).await;
    }
}

async fn send(outbox: &Outbox, stanzas: impl IntoIterator<Item = String>) {
    for stanza in stanzas {
        match outbox.send(Bytes::from(stanza)).await {
            Ok(()) => {}
            Err(SendError::Closed) => {
                tracing::debug!("the link is closed; an answer is dropped");
                return;
            }
            Err(error @ SendError::TooLong) => tracing::error!(%error, "an answer is dropped"),
        }
    }
}
