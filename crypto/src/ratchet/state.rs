//! The ratchet itself: one root chain, one chain to send with, one to receive with.

use serde::{Deserialize, Serialize};

use super::{
    RatchetError, STALE_COUNTER,
    chain_key::ChainKey,
    received::{Header, PastChains, ReceivingChain},
    root_key::RootKey,
    skipped::{SkippedKey, SkippedKeys},
};
use crate::{
    curve25519::{PublicKey, SecretKey},
    generation::Generation,
    secret::Secret32,
};

/// One side of a Double Ratchet of generation `G`.
///
/// Cloning a ratchet and using both would use keys twice, so it is not `Clone`. Serialised only as part of a device.
#[derive(Debug, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Ratchet<G> {
    root: RootKey<G>,
    own: SecretKey,
    sending: Option<ChainKey>,
    previous_sent: u32,
    receiving: Option<ReceivingChain>,
    past: PastChains,
    skipped: SkippedKeys,
}

/// What one message would lead to. Nothing has changed until it is given to [`Ratchet::commit`].
#[derive(Debug)]
pub struct Advance<G> {
    /// The key of the message.
    pub message_key: Secret32,
    step: Step<G>,
}

#[derive(Debug)]
enum Step<G> {
    /// The message is one that was skipped before.
    Skipped { ratchet_key: PublicKey, counter: u32 },
    /// The message is in the chain in use, behind the given skipped ones.
    Chain { chain: ChainKey, skipped: Vec<SkippedKey>, counter: u32 },
    /// The message begins a new chain of the peer.
    Turn(Box<Turn<G>>),
}

#[derive(Debug)]
struct Turn<G> {
    root: RootKey<G>,
    own: SecretKey,
    sending: ChainKey,
    receiving: ReceivingChain,
    skipped: Vec<SkippedKey>,
    counter: u32,
}

/// What a committed message meant for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The peer has sent [`STALE_COUNTER`] messages on one ratchet key: a heartbeat is due. Said once per ratchet key.
    pub stale: bool,
}

impl<G> Advance<G> {
    /// Whether the message is newer than all that were received in its chain.
    #[must_use]
    pub const fn is_news(&self) -> bool {
        !matches!(self.step, Step::Skipped { .. })
    }

    /// Whether the message begins a new chain: the peer has received something since its last one.
    #[must_use]
    pub const fn is_turn(&self) -> bool {
        matches!(self.step, Step::Turn(_))
    }
}

impl<G: Generation> Ratchet<G> {
    /// The active side: knows the shared secret of X3DH and the peer's signed prekey, its first ratchet key.
    ///
    /// # Errors
    /// [`RatchetError::Random`] or [`RatchetError::NonContributory`].
    pub fn initiate(shared: Secret32, peer: &PublicKey) -> Result<Self, RatchetError> {
        let own = SecretKey::generate()?;
        let (root, sending) = RootKey::new(shared).step(&own, peer)?;
        Ok(Self {
            root,
            own,
            sending: Some(sending),
            previous_sent: 0,
            receiving: None,
            past: PastChains::default(),
            skipped: SkippedKeys::default(),
        })
    }

    /// The passive side: its signed prekey is its first ratchet key. It can send once it has received.
    #[must_use]
    pub fn respond(shared: Secret32, signed_prekey: SecretKey) -> Self {
        Self {
            root: RootKey::new(shared),
            own: signed_prekey,
            sending: None,
            previous_sent: 0,
            receiving: None,
            past: PastChains::default(),
            skipped: SkippedKeys::default(),
        }
    }

    /// The header and key for the next message to send. They are never given again.
    ///
    /// # Errors
    /// [`RatchetError::NothingReceived`] or [`RatchetError::Exhausted`].
    pub fn next_to_send(&mut self) -> Result<(Header, Secret32), RatchetError> {
        let sending = self.sending.as_mut().ok_or(RatchetError::NothingReceived)?;
        let (counter, key) = sending.next().ok_or(RatchetError::Exhausted)?;
        Ok((Header { ratchet_key: self.own.public_key(), previous: self.previous_sent, counter }, key))
    }

    /// Whether the peer's ratchet key is known: if not, a message with it begins a new chain, or belongs elsewhere.
    #[must_use]
    pub fn knows(&self, ratchet_key: &PublicKey) -> bool {
        self.past.contains(ratchet_key)
            || self.receiving.as_ref().is_some_and(|chain| chain.ratchet_key == *ratchet_key)
    }

    /// Finds the key of a received message without changing anything.
    ///
    /// # Errors
    /// [`RatchetError`]; none of them says anything about who made the message.
    pub fn advance(&self, header: &Header) -> Result<Advance<G>, RatchetError> {
        if let Some(found) = self.skipped.find(&header.ratchet_key, header.counter) {
            let step = Step::Skipped { ratchet_key: header.ratchet_key, counter: header.counter };
            return Ok(Advance { message_key: found.key.clone(), step });
        }
        match &self.receiving {
            Some(receiving) if receiving.ratchet_key == header.ratchet_key => {
                let mut chain = receiving.chain.clone();
                let (skipped, message_key) = run_to::<G>(&mut chain, &header.ratchet_key, header.counter)?;
                Ok(Advance { message_key, step: Step::Chain { chain, skipped, counter: header.counter } })
            }
            _ if self.past.contains(&header.ratchet_key) => Err(RatchetError::Duplicate),
            _ => self.turn(header),
        }
    }

    /// Makes an [`Advance`] so, after its message proved genuine.
    pub fn commit(&mut self, advance: Advance<G>) -> Progress {
        let counter = match advance.step {
            Step::Skipped { ratchet_key, counter } => {
                self.skipped.remove(&ratchet_key, counter);
                return Progress { stale: false };
            }
            Step::Chain { chain, skipped, counter } => {
                self.skipped.extend(skipped, G::MAX_SKIP);
                if let Some(receiving) = &mut self.receiving {
                    receiving.chain = chain;
                }
                counter
            }
            Step::Turn(turn) => {
                self.skipped.extend(turn.skipped, G::MAX_SKIP);
                if let Some(left) = self.receiving.replace(turn.receiving)
                    && let Some(forgotten) = self.past.push(left.ratchet_key)
                {
                    self.skipped.forget_chain(&forgotten);
                }
                self.previous_sent = self.sending.as_ref().map_or(0, ChainKey::counter);
                self.sending = Some(turn.sending);
                self.root = turn.root;
                self.own = turn.own;
                turn.counter
            }
        };
        let stale = counter >= STALE_COUNTER
            && self.receiving.as_mut().is_some_and(|receiving| !core::mem::replace(&mut receiving.stale, true));
        Progress { stale }
    }

    /// The Diffie-Hellman step: the peer has a new ratchet key, so both chains begin anew.
    fn turn(&self, header: &Header) -> Result<Advance<G>, RatchetError> {
        let mut skipped = self.rest_of_chain(header.previous.saturating_add(G::PREVIOUS_SHORTFALL));

        let (root, mut chain) = self.root.step(&self.own, &header.ratchet_key)?;
        let (skipped_in_new, message_key) = run_to::<G>(&mut chain, &header.ratchet_key, header.counter)?;
        skipped.extend(skipped_in_new);

        let own = SecretKey::generate()?;
        let (root, sending) = root.step(&own, &header.ratchet_key)?;
        let receiving = ReceivingChain { ratchet_key: header.ratchet_key, chain, stale: false };
        let turn = Turn { root, own, sending, receiving, skipped, counter: header.counter };
        Ok(Advance { message_key, step: Step::Turn(Box::new(turn)) })
    }

    /// The keys of the messages that are still to come on the chain in use, which had `length` messages in all.
    ///
    /// When they are more than [`Generation::MAX_SKIP`] they are given up, rather than the session with them: the number is in
    /// every later message too, so that refusing it would end the conversation.
    fn rest_of_chain(&self, length: u32) -> Vec<SkippedKey> {
        let Some(receiving) = &self.receiving else { return Vec::new() };
        let mut chain = receiving.chain.clone();
        let to_come = length.saturating_sub(chain.counter());
        if to_come > G::MAX_SKIP {
            return Vec::new();
        }
        let ratchet_key = receiving.ratchet_key;
        (0..to_come)
            .map_while(|_| chain.next())
            .map(|(counter, key)| SkippedKey { ratchet_key, counter, key })
            .collect()
    }
}

/// Runs a chain until it has given the key numbered `counter`. Gives the keys skipped on the way, and that one.
fn run_to<G: Generation>(
    chain: &mut ChainKey,
    ratchet_key: &PublicKey,
    counter: u32,
) -> Result<(Vec<SkippedKey>, Secret32), RatchetError> {
    let to_skip = counter.checked_sub(chain.counter()).ok_or(RatchetError::Duplicate)?;
    if to_skip > G::MAX_SKIP {
        return Err(RatchetError::CounterJump { skipped: to_skip });
    }
    let mut skipped = Vec::with_capacity(usize::try_from(to_skip).unwrap_or_default());
    loop {
        let (number, key) = chain.next().ok_or(RatchetError::Exhausted)?;
        if number == counter {
            return Ok((skipped, key));
        }
        skipped.push(SkippedKey { ratchet_key: *ratchet_key, counter: number, key });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        generation::{Legacy, Omemo2},
        ratchet::MAX_PAST_CHAINS,
    };

    const MAX_SKIP: u32 = Omemo2::MAX_SKIP;

    fn pair() -> (Ratchet<Omemo2>, Ratchet<Omemo2>) {
        let signed_prekey = SecretKey::from_bytes([3; 32]);
        let alice = Ratchet::initiate(Secret32::new([9; 32]), &signed_prekey.public_key()).unwrap();
        (alice, Ratchet::respond(Secret32::new([9; 32]), signed_prekey))
    }

    fn receive(ratchet: &mut Ratchet<Omemo2>, header: &Header) -> Result<Secret32, RatchetError> {
        let advance = ratchet.advance(header)?;
        let key = advance.message_key.clone();
        ratchet.commit(advance);
        Ok(key)
    }

    fn exchange(from: &mut Ratchet<Omemo2>, to: &mut Ratchet<Omemo2>) -> Header {
        let (header, key) = from.next_to_send().unwrap();
        assert_eq!(receive(to, &header), Ok(key));
        header
    }

    #[test]
    fn keys_agree_across_turns() {
        let (mut alice, mut bob) = pair();
        assert_eq!(bob.next_to_send().unwrap_err(), RatchetError::NothingReceived);
        for _ in 0..5 {
            exchange(&mut alice, &mut bob);
            exchange(&mut alice, &mut bob);
            exchange(&mut bob, &mut alice);
        }
    }

    #[test]
    fn advance_alone_changes_nothing() {
        let (mut alice, mut bob) = pair();
        exchange(&mut alice, &mut bob);
        let before = serde_json::to_string(&bob).unwrap();
        let (header, _) = alice.next_to_send().unwrap();
        bob.advance(&header).unwrap();
        bob.advance(&Header { ratchet_key: SecretKey::from_bytes([8; 32]).public_key(), previous: 9, counter: 9 })
            .unwrap();
        assert_eq!(serde_json::to_string(&bob).unwrap(), before);
    }

    #[test]
    fn late_messages_of_a_left_chain_are_found_once() {
        let (mut alice, mut bob) = pair();
        exchange(&mut alice, &mut bob);
        let late: Vec<_> = (0..3).map(|_| alice.next_to_send().unwrap()).collect();
        exchange(&mut bob, &mut alice);
        exchange(&mut alice, &mut bob);
        for (header, key) in late {
            assert_eq!(receive(&mut bob, &header), Ok(key));
            assert_eq!(receive(&mut bob, &header), Err(RatchetError::Duplicate));
        }
    }

    /// libsignal says in `pn` the counter of the last message, not how many there were.
    #[test]
    fn the_last_message_of_a_chain_of_libsignal_can_be_late() {
        let signed_prekey = SecretKey::from_bytes([3; 32]);
        let mut alice = Ratchet::<Legacy>::initiate(Secret32::new([9; 32]), &signed_prekey.public_key()).unwrap();
        let mut bob = Ratchet::<Legacy>::respond(Secret32::new([9; 32]), signed_prekey);
        let accept = |ratchet: &mut Ratchet<Legacy>, header: &Header| {
            let advance = ratchet.advance(header).unwrap();
            let key = advance.message_key.clone();
            ratchet.commit(advance);
            key
        };
        accept(&mut bob, &alice.next_to_send().unwrap().0);
        let (late, late_key) = alice.next_to_send().unwrap();
        accept(&mut alice, &bob.next_to_send().unwrap().0);
        let (header, key) = alice.next_to_send().unwrap();
        assert_eq!(header.previous, 2);
        assert_eq!(accept(&mut bob, &Header { previous: header.previous - 1, ..header }), key);
        assert_eq!(accept(&mut bob, &late), late_key);
    }

    #[test]
    fn counters_are_bounded() {
        let (mut alice, mut bob) = pair();
        let header = exchange(&mut alice, &mut bob);
        let at = |counter| Header { counter, ..header };
        assert!(bob.advance(&at(1 + MAX_SKIP)).is_ok());
        assert_eq!(bob.advance(&at(2 + MAX_SKIP)).unwrap_err(), RatchetError::CounterJump { skipped: MAX_SKIP + 1 });
        assert_eq!(bob.advance(&at(u32::MAX)).unwrap_err(), RatchetError::CounterJump { skipped: u32::MAX - 1 });
    }

    #[test]
    fn skipped_keys_are_bounded_first_in_first_out() {
        let (mut alice, mut bob) = pair();
        let mut headers: Vec<_> = (0..1600).map(|_| alice.next_to_send().unwrap()).collect();
        receive(&mut bob, &headers[800].0).unwrap();
        receive(&mut bob, &headers[1599].0).unwrap();
        assert_eq!(bob.skipped.len(), 1000);
        assert_eq!(receive(&mut bob, &headers[0].0), Err(RatchetError::Duplicate));
        let (header, key) = headers.remove(1000);
        assert_eq!(receive(&mut bob, &header), Ok(key));
    }

    #[test]
    fn losing_more_than_the_bound_before_a_turn_does_not_end_the_session() {
        let (mut alice, mut bob) = pair();
        exchange(&mut alice, &mut bob);
        for _ in 0..=MAX_SKIP {
            alice.next_to_send().unwrap();
        }
        exchange(&mut bob, &mut alice);
        exchange(&mut alice, &mut bob);
        assert_eq!(bob.skipped.len(), 0);
    }

    #[test]
    fn skipped_keys_go_with_their_chain() {
        let (mut alice, mut bob) = pair();
        exchange(&mut alice, &mut bob);
        let (late, _) = alice.next_to_send().unwrap();
        for _ in 0..=MAX_PAST_CHAINS {
            exchange(&mut bob, &mut alice);
            exchange(&mut alice, &mut bob);
        }
        assert_eq!(bob.skipped.len(), 0);
        // The chain itself is forgotten too, so that this looks like a new one, which authentication will refuse.
        assert!(!bob.knows(&late.ratchet_key));
    }

    #[test]
    fn stale_is_said_once_per_ratchet_key() {
        let (mut alice, mut bob) = pair();
        for turn in 0..2 {
            let mut said = Vec::new();
            for counter in 0..60 {
                let (header, _) = alice.next_to_send().unwrap();
                let advance = bob.advance(&header).unwrap();
                if bob.commit(advance).stale {
                    said.push(counter);
                }
            }
            assert_eq!(said, [STALE_COUNTER], "turn {turn}");
            exchange(&mut bob, &mut alice);
        }
    }

    /// What a thief of the state learns: nothing that lets it read what was received before.
    #[test]
    fn forward_secrecy() {
        let (mut alice, mut bob) = pair();
        let mut keys = Vec::new();
        for _ in 0..3 {
            let (header, key) = alice.next_to_send().unwrap();
            receive(&mut bob, &header).unwrap();
            keys.push((header, key));
        }
        let stolen: Ratchet<Omemo2> = serde_json::from_str(&serde_json::to_string(&bob).unwrap()).unwrap();
        let text = serde_json::to_string(&stolen).unwrap();
        for (header, key) in keys {
            assert!(stolen.advance(&header).is_err());
            assert!(!text.contains(&serde_json::to_string(&key).unwrap()));
        }
    }
}
