//! Claims that come at the same time share a transaction: a commit waits for the disk, and can do so for many at once.
//!
//! A claim that comes alone goes alone. While others are being answered, the claims that come pile up, and are the next
//! batch as soon as they are as many as their share: half of all that wait or are being answered. So two batches of like
//! size take turns with the disk, instead of a large one and many small ones, each of which costs as much to begin. Nobody
//! waits for that longer than a batch takes when all is well.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

use super::{DirectoryMetrics, Settings};
use crate::model::{Claimant, Clock, DeviceId, Owner, Protocol, Requester, SessionJid, Setting};
use crate::store::{Claim, ClaimOutcome, ClaimRules, SharedStore, StoreError};

/// Claims that may wait; when it is full, who asks waits.
pub(super) const WAITING: usize = 4_096;
/// Most claims of one batch.
const BATCH: usize = 64;
/// Batches in flight at once: one that is slow must not hold up all others.
const IN_FLIGHT: usize = 2;
/// How long claims wait for others to join them, while a batch may be begun. A full one takes half as long.
const PATIENCE: Duration = Duration::from_millis(10);

/// A claim by somebody of whom it is not yet known which device it is.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) owner: Owner,
    pub(super) protocol: Protocol,
    pub(super) device: DeviceId,
    pub(super) requester: Requester,
    /// The account and session, where they are ours.
    pub(super) local: Option<(Owner, SessionJid)>,
    /// Whether its domain is none of ours.
    pub(super) foreign: bool,
    pub(super) strict: bool,
}

type Answer = Result<ClaimOutcome, StoreError>;

/// A claim, and the way back.
type Waiting = (Asked, oneshot::Sender<Answer>);

/// The way in. The task behind it ends with the queue.
pub(super) struct ClaimQueue {
    queue: mpsc::Sender<Waiting>,
    metrics: DirectoryMetrics,
}

impl ClaimQueue {
    /// Starts the task, on the current runtime.
    pub(super) fn start(
        store: SharedStore,
        clock: Arc<dyn Clock>,
        settings: Setting<Settings>,
        metrics: DirectoryMetrics,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING);
        tokio::spawn(run(store, clock, settings, metrics.clone(), waiting));
        Self { queue, metrics }
    }

    /// Answers claims, each in its place. What was handed out stays handed out, even if nobody waits for the answer any more.
    pub(super) async fn claim(&self, asked: Vec<Asked>) -> Vec<Answer> {
        let ended = || Err(StoreError::ended());
        let mut waiting = Vec::with_capacity(asked.len());
        for claim in asked {
            let (answer, answered) = oneshot::channel();
            // Counted when there is a place for it, so that nobody takes it before.
            let place = self.queue.reserve().await;
            waiting.push(place.is_ok().then_some(answered));
            if let Ok(place) = place {
                self.metrics.claim_waits();
                place.send((claim, answer));
            }
        }
        let mut answers = Vec::with_capacity(waiting.len());
        for answered in waiting {
            answers.push(match answered {
                Some(answered) => answered.await.unwrap_or_else(|_| ended()),
                None => ended(),
            });
        }
        answers
    }
}

async fn run(
    store: SharedStore,
    clock: Arc<dyn Clock>,
    settings: Setting<Settings>,
    metrics: DirectoryMetrics,
    mut waiting: mpsc::Receiver<Waiting>,
) {
    let (mut batch, mut due, mut closed) = (Vec::new(), Instant::now(), false);
    let mut in_flight = InFlight::default();
    while !closed || !batch.is_empty() {
        if !batch.is_empty() && in_flight.has_room() {
            join(&mut batch, &mut waiting).await;
            let share = in_flight.share(batch.len().saturating_add(waiting.len()));
            if in_flight.is_empty() || batch.len() >= share || closed || Instant::now() >= due {
                let rest = batch.split_off(share.min(batch.len()));
                let taken = std::mem::replace(&mut batch, rest);
                metrics.claims_taken(taken.len());
                let rules = settings.with(|settings| settings.claims);
                in_flight.begin(taken.len(), answer(store.clone(), clock.clone(), rules, taken));
                due = later();
                continue;
            }
        }
        let room = BATCH.saturating_sub(batch.len());
        let (is_empty, may_begin) = (batch.is_empty(), in_flight.has_room());
        tokio::select! {
            came = waiting.recv_many(&mut batch, room), if room > 0 && !closed => {
                closed = came == 0;
                if is_empty {
                    due = later();
                }
            }
            () = in_flight.ended(), if !in_flight.is_empty() => {}
            () = tokio::time::sleep_until(due), if !is_empty && may_begin => {}
        }
    }
    while !in_flight.is_empty() {
        in_flight.ended().await;
    }
}

fn later() -> Instant {
    let now = Instant::now();
    now.checked_add(PATIENCE).unwrap_or(now)
}

/// The batches that are being answered.
#[derive(Default)]
struct InFlight {
    batches: JoinSet<()>,
    sizes: HashMap<Id, usize>,
}

impl InFlight {
    fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    fn has_room(&self) -> bool {
        self.batches.len() < IN_FLIGHT
    }

    /// How many of those that wait make a batch, if batches share alike.
    fn share(&self, waiting: usize) -> usize {
        self.sizes.values().fold(waiting, |all, size| all.saturating_add(*size)).div_ceil(IN_FLIGHT).clamp(1, BATCH)
    }

    fn begin(&mut self, size: usize, batch: impl Future<Output = ()> + Send + 'static) {
        self.sizes.insert(self.batches.spawn(batch).id(), size);
    }

    /// Waits until one has ended.
    async fn ended(&mut self) {
        let ended = match self.batches.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => error.id(),
            None => return,
        };
        self.sizes.remove(&ended);
    }
}

async fn answer(store: SharedStore, clock: Arc<dyn Clock>, rules: ClaimRules, batch: Vec<Waiting>) {
    let (asked, answers): (Vec<Asked>, Vec<_>) = batch.into_iter().unzip();
    let outcomes = claim_together(&store, clock.as_ref(), &rules, asked).await;
    for (answer, outcome) in answers.into_iter().zip(outcomes) {
        // Who asked may have gone; when it asks again, it gets the same.
        let _ = answer.send(outcome);
    }
}

/// Lets those ask who are about to: who was answered with others often asks again with them. As long as any do, and no
/// longer, so that nobody waits for a claim that does not come.
async fn join(batch: &mut Vec<Waiting>, waiting: &mut mpsc::Receiver<Waiting>) {
    let mut before = 0;
    while batch.len() > before && batch.len() < BATCH {
        before = batch.len();
        tokio::task::yield_now().await;
        while batch.len() < BATCH
            && let Ok(claim) = waiting.try_recv()
        {
            batch.push(claim);
        }
    }
}

async fn claim_together(store: &SharedStore, clock: &dyn Clock, rules: &ClaimRules, asked: Vec<Asked>) -> Vec<Answer> {
    let sessions: Vec<(SessionJid, Protocol)> = asked
        .iter()
        .filter_map(|asked| asked.local.as_ref().map(|(_, session)| (session.clone(), asked.protocol)))
        .collect();
    let mut certain = Vec::new();
    if !sessions.is_empty() {
        match store.certain_devices(&sessions).await {
            Ok(devices) => certain = devices,
            Err(error) => return asked.iter().map(|_| Err(error.shared())).collect(),
        }
    }
    let mut certain = certain.into_iter();
    let claims: Vec<Claim> = asked
        .into_iter()
        .map(|asked| {
            let known = asked.local.and_then(|(account, _)| Some((account, certain.next()??)));
            Claim {
                owner: asked.owner,
                protocol: asked.protocol,
                device: asked.device,
                claimant: match known {
                    Some((account, device)) => Claimant::Device(account, device),
                    None => Claimant::Address(asked.requester),
                },
                foreign: asked.foreign,
                strict: asked.strict,
            }
        })
        .collect();
    store.claim_many(&claims, rules, clock.now()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn batches_share_alike_and_a_claim_that_comes_alone_goes_alone() {
        let mut in_flight = InFlight::default();
        assert_eq!((in_flight.share(1), in_flight.share(64), in_flight.share(1_000)), (1, 32, BATCH));
        in_flight.begin(32, std::future::pending());
        assert_eq!((in_flight.share(1), in_flight.share(32)), (17, 32));
        let (end, ended) = oneshot::channel::<()>();
        in_flight.begin(2, async { drop(ended.await) });
        assert!(!in_flight.has_room());
        drop(end);
        in_flight.ended().await;
        assert!(in_flight.has_room());
        assert_eq!(in_flight.share(2), 17);
    }

    #[tokio::test]
    async fn a_batch_that_panics_counts_no_longer() {
        let mut in_flight = InFlight::default();
        in_flight.begin(40, async { panic!("as a test") });
        in_flight.ended().await;
        assert!(in_flight.is_empty());
        assert_eq!(in_flight.share(2), 1);
    }
}
