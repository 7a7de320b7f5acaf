//! Claims that come at the same time share a transaction: a commit waits for the disk, and can do so for many at once.
//!
//! A claim that comes alone goes alone. While others are being answered, the claims that come pile up, and are the next
//! batch as soon as they are as many as their share: half of all that wait or are being answered. So two batches of like
//! size take turns with the disk, instead of a large one and many small ones, each of which costs as much to begin. Nobody
//! waits for that longer than a batch takes when all is well.
//!
//! No two batches at once are for one account: the store answers claims of one account one after the other, because limits
//! are counted from what is committed. What an account asks for while a batch of its own is answered is the next.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
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
/// How many of those that wait are looked at for the next batch.
const LOOKED_AT: usize = 1_024;
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
struct Waiting {
    asked: Asked,
    answer: oneshot::Sender<Answer>,
    /// Whom the claim is for, if that is not the owner, who is under no limit.
    account: Option<Name>,
}

/// What stands for an account: a keyed hash. Two of the same hash wait for each other.
type Name = u64;

/// The way in. The task behind it ends with the queue.
pub(super) struct ClaimQueue {
    queue: mpsc::Sender<Waiting>,
    names: RandomState,
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
        Self { queue, names: RandomState::new(), metrics }
    }

    /// Answers claims, each in its place. What was handed out stays handed out, even if nobody waits for the answer any more.
    pub(super) async fn claim(&self, asked: Vec<Asked>) -> Vec<Answer> {
        let ended = || Err(StoreError::ended());
        let mut waiting = Vec::with_capacity(asked.len());
        for asked in asked {
            let account = asked.requester.jid().to_bare();
            let account = (account.as_str() != asked.owner.as_str()).then(|| self.names.hash_one(&account));
            let (answer, answered) = oneshot::channel();
            // Counted when there is a place for it, so that nobody takes it before.
            let place = self.queue.reserve().await;
            waiting.push(place.is_ok().then_some(answered));
            if let Ok(place) = place {
                self.metrics.claim_waits();
                place.send(Waiting { asked, answer, account });
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
    let (mut next, mut due, mut closed) = (Vec::new(), Instant::now(), false);
    let mut in_flight = InFlight::default();
    while !closed || !next.is_empty() {
        let mut may_begin = false;
        if !next.is_empty() && in_flight.has_room() {
            join(&mut next, &mut waiting).await;
            let free = in_flight.free(&next);
            let share = in_flight.share(next.len().saturating_add(waiting.len()));
            // Of those that wait for a batch in flight there are no more to come.
            let enough = share.saturating_mul(free).div_ceil(next.len());
            may_begin = free > 0;
            if may_begin && (in_flight.is_empty() || free >= enough || closed || Instant::now() >= due) {
                let (flight, batch) = in_flight.take(&mut next, share);
                metrics.claims_taken(batch.len());
                let rules = settings.with(|settings| settings.claims);
                in_flight.begin(flight, answer(store.clone(), clock.clone(), rules, batch));
                due = later();
                continue;
            }
        }
        let room = LOOKED_AT.saturating_sub(next.len());
        let is_empty = next.is_empty();
        tokio::select! {
            came = waiting.recv_many(&mut next, room), if room > 0 && !closed => {
                closed = came == 0;
                if is_empty {
                    due = later();
                }
            }
            () = in_flight.ended(), if !in_flight.is_empty() => {}
            () = tokio::time::sleep_until(due), if may_begin => {}
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

/// A batch that is being answered.
#[derive(Default)]
struct Flight {
    size: usize,
    accounts: HashSet<Name>,
}

impl Flight {
    fn add(&mut self, waiting: &Waiting) {
        self.size = self.size.saturating_add(1);
        self.accounts.extend(waiting.account);
    }

    fn has_account_of(&self, waiting: &Waiting) -> bool {
        waiting.account.is_some_and(|account| self.accounts.contains(&account))
    }
}

/// The batches that are being answered.
#[derive(Default)]
struct InFlight {
    batches: JoinSet<()>,
    flights: HashMap<Id, Flight>,
}

impl InFlight {
    fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    fn has_room(&self) -> bool {
        self.batches.len() < IN_FLIGHT
    }

    fn is_free(&self, waiting: &Waiting) -> bool {
        !self.flights.values().any(|flight| flight.has_account_of(waiting))
    }

    /// How many of those that wait need not wait for a batch in flight.
    fn free(&self, next: &[Waiting]) -> usize {
        next.iter().filter(|waiting| self.is_free(waiting)).count()
    }

    /// Takes a share of those, as they came, and with them what else is for their accounts: it would wait for them.
    fn take(&self, next: &mut Vec<Waiting>, share: usize) -> (Flight, Vec<Waiting>) {
        let mut flight = Flight::default();
        let take = |waiting: &mut Waiting| {
            let joins = flight.size < share || (flight.size < BATCH && flight.has_account_of(waiting));
            let takes = joins && self.is_free(waiting);
            if takes {
                flight.add(waiting);
            }
            takes
        };
        let batch = next.extract_if(.., take).collect();
        (flight, batch)
    }

    /// How many of those that wait make a batch, if batches share alike.
    fn share(&self, waiting: usize) -> usize {
        let all = self.flights.values().fold(waiting, |all, flight| all.saturating_add(flight.size));
        all.div_ceil(IN_FLIGHT).clamp(1, BATCH)
    }

    fn begin(&mut self, flight: Flight, batch: impl Future<Output = ()> + Send + 'static) {
        self.flights.insert(self.batches.spawn(batch).id(), flight);
    }

    /// Waits until one has ended.
    async fn ended(&mut self) {
        let ended = match self.batches.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => error.id(),
            None => return,
        };
        self.flights.remove(&ended);
    }
}

async fn answer(store: SharedStore, clock: Arc<dyn Clock>, rules: ClaimRules, batch: Vec<Waiting>) {
    let (asked, answers): (Vec<Asked>, Vec<_>) =
        batch.into_iter().map(|waiting| (waiting.asked, waiting.answer)).unzip();
    let outcomes = claim_together(&store, clock.as_ref(), &rules, asked).await;
    for (answer, outcome) in answers.into_iter().zip(outcomes) {
        // Who asked may have gone; when it asks again, it gets the same.
        let _ = answer.send(outcome);
    }
}

/// Lets those ask who are about to: who was answered with others often asks again with them. As long as any do, and no
/// longer, so that nobody waits for a claim that does not come.
async fn join(next: &mut Vec<Waiting>, waiting: &mut mpsc::Receiver<Waiting>) {
    let mut before = 0;
    while next.len() > before && next.len() < LOOKED_AT {
        before = next.len();
        tokio::task::yield_now().await;
        while next.len() < LOOKED_AT
            && let Ok(claim) = waiting.try_recv()
        {
            next.push(claim);
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

    fn waiting(account: Name) -> Waiting {
        let asked = Asked {
            owner: Owner::parse("alice@example.org").unwrap(),
            protocol: Protocol::Omemo2,
            device: DeviceId::new(1).unwrap(),
            requester: Requester::parse("bob@example.org/phone").unwrap(),
            local: None,
            foreign: false,
            strict: false,
        };
        Waiting { asked, answer: oneshot::channel().0, account: Some(account) }
    }

    fn flight(size: usize) -> Flight {
        Flight { size, ..Flight::default() }
    }

    fn accounts(batch: &[Waiting]) -> Vec<Name> {
        batch.iter().filter_map(|waiting| waiting.account).collect()
    }

    #[tokio::test]
    async fn batches_share_alike_and_a_claim_that_comes_alone_goes_alone() {
        let mut in_flight = InFlight::default();
        assert_eq!((in_flight.share(1), in_flight.share(64), in_flight.share(1_000)), (1, 32, BATCH));
        in_flight.begin(flight(32), std::future::pending());
        assert_eq!((in_flight.share(1), in_flight.share(32)), (17, 32));
        let (end, ended) = oneshot::channel::<()>();
        in_flight.begin(flight(2), async { drop(ended.await) });
        assert!(!in_flight.has_room());
        drop(end);
        in_flight.ended().await;
        assert!(in_flight.has_room());
        assert_eq!(in_flight.share(2), 17);
    }

    #[tokio::test]
    async fn what_is_for_one_account_is_in_one_batch_at_a_time() {
        let mut in_flight = InFlight::default();
        let mut next: Vec<Waiting> = [1, 2, 3, 1, 4, 1].map(waiting).into();
        let (flight, batch) = in_flight.take(&mut next, 2);
        assert_eq!((accounts(&batch), accounts(&next)), (vec![1, 2, 1, 1], vec![3, 4]));
        assert_eq!(flight.size, 4);
        in_flight.begin(flight, std::future::ready(()));
        next.extend([2, 5, 1].map(waiting));
        assert_eq!(in_flight.free(&next), 3);
        let (_, batch) = in_flight.take(&mut next, 9);
        assert_eq!((accounts(&batch), accounts(&next)), (vec![3, 4, 5], vec![2, 1]));
        in_flight.ended().await;
        assert_eq!(in_flight.free(&next), 2);
        let mut many: Vec<Waiting> = (0..100).map(|_| waiting(7)).collect();
        assert_eq!(in_flight.take(&mut many, 1).1.len(), BATCH, "a batch is never larger");
    }

    #[tokio::test]
    async fn a_batch_that_panics_counts_no_longer() {
        let mut in_flight = InFlight::default();
        in_flight.begin(flight(40), async { panic!("as a test") });
        in_flight.ended().await;
        assert!(in_flight.is_empty());
        assert_eq!(in_flight.share(2), 1);
    }
}
