//! Claims that come at the same time share a transaction: a commit waits for the disk, and can do so for many at once.
//!
//! Nothing is held back to wait for more. While the transactions in flight commit, the claims that come pile up and are the
//! next batch; a claim that comes alone goes alone.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{DirectoryMetrics, Settings};
use crate::model::{Claimant, Clock, DeviceId, Owner, Protocol, Requester, SessionJid, Setting};
use crate::store::{Claim, ClaimOutcome, ClaimRules, SharedStore, StoreError};

/// Claims that may wait; when it is full, who asks waits.
pub(super) const WAITING: usize = 4_096;
/// Most claims of one batch.
const BATCH: usize = 64;
/// Batches in flight at once: one that is slow must not hold up all others.
const IN_FLIGHT: usize = 2;

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

/// The way in. The task behind it ends with the queue.
pub(super) struct ClaimQueue {
    queue: mpsc::Sender<(Asked, oneshot::Sender<Answer>)>,
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
    mut waiting: mpsc::Receiver<(Asked, oneshot::Sender<Answer>)>,
) {
    let free = Arc::new(Semaphore::new(IN_FLIGHT));
    while let Ok(turn) = Arc::clone(&free).acquire_owned().await {
        let mut batch = Vec::new();
        if waiting.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        join(&mut batch, &mut waiting).await;
        metrics.claims_taken(batch.len());
        let (store, clock) = (store.clone(), clock.clone());
        let rules = settings.with(|settings| settings.claims);
        tokio::spawn(async move {
            let (asked, answers): (Vec<Asked>, Vec<_>) = batch.into_iter().unzip();
            let outcomes = claim_together(&store, clock.as_ref(), &rules, asked).await;
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                // Who asked may have gone; when it asks again, it gets the same.
                let _ = answer.send(outcome);
            }
            drop(turn);
        });
    }
}

/// Lets those ask who are about to: who was answered with others often asks again with them. As long as any do, and no
/// longer, so that nobody waits for a claim that does not come.
async fn join<T>(batch: &mut Vec<T>, waiting: &mut mpsc::Receiver<T>) {
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
