//! Random schedules of sending, losing, reordering, repeating and crashing between two to six devices, in both
//! protocols.
//!
//! What must hold: whatever is delivered for the first time decrypts to what was sent, nothing decrypts twice, and a
//! crash at any moment neither loses a message nor uses a key twice. A thief of a device's state, at any moment, reads
//! nothing that the device had read before.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod support;

use std::collections::{HashMap, HashSet};

use multiend_crypto::{
    address::{Address, DeviceId},
    device::{Decrypted, Device},
    error::DecryptError,
    generation::{Legacy, Omemo2},
    keeper::{Keeper, KeeperError, Store},
    protocol::EncryptedElement,
};
use proptest::prelude::*;
use support::Spoken;

#[derive(Debug, Clone)]
enum Op {
    /// One device sends to some of the others, having started the sessions that it lacks.
    Send { from: usize, to: u8 },
    /// One device sends all empty messages that are due.
    Reply { from: usize },
    /// One device replaces its session with another one.
    Repair { from: usize, to: usize },
    /// Some message in flight arrives.
    Deliver { which: usize },
    /// Some message in flight is lost.
    Lose { which: usize },
    /// Some message that has arrived arrives again.
    Repeat { which: usize },
    /// Some message in flight arrives, but the device crashes before it has saved that.
    Crash { which: usize },
    /// One device is restarted.
    Restart { who: usize },
    /// The state of one device is stolen.
    Steal { who: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let index = || 0..6_usize;
    prop_oneof![
        6 => (index(), any::<u8>()).prop_map(|(from, to)| Op::Send { from, to }),
        2 => index().prop_map(|from| Op::Reply { from }),
        1 => (index(), index()).prop_map(|(from, to)| Op::Repair { from, to }),
        10 => any::<usize>().prop_map(|which| Op::Deliver { which }),
        1 => any::<usize>().prop_map(|which| Op::Lose { which }),
        2 => any::<usize>().prop_map(|which| Op::Repeat { which }),
        2 => any::<usize>().prop_map(|which| Op::Crash { which }),
        1 => index().prop_map(|who| Op::Restart { who }),
        1 => index().prop_map(|who| Op::Steal { who }),
    ]
}

/// A disk that can be made to fail.
#[derive(Default)]
struct Disk {
    state: Option<Vec<u8>>,
    fails: bool,
}

impl Store for Disk {
    type Error = ();

    fn save(&mut self, state: &[u8]) -> Result<(), ()> {
        if self.fails {
            return Err(());
        }
        self.state = Some(state.to_vec());
        Ok(())
    }

    fn load(&mut self) -> Result<Option<Vec<u8>>, ()> {
        Ok(self.state.clone())
    }
}

#[derive(Clone)]
struct Flying<P: Spoken> {
    from: usize,
    to: usize,
    message: P::Message,
    text: Option<Vec<u8>>,
}

struct World<P: Spoken> {
    devices: Vec<Keeper<Disk, P>>,
    /// The prekeys that the server has handed out, each once.
    issued: HashSet<Vec<u8>>,
    repairs: HashMap<(usize, usize), u8>,
    flying: Vec<Flying<P>>,
    arrived: Vec<Flying<P>>,
    sent: u32,
    /// The headers of everything that ever left a device: a repeated one would be a key used twice.
    headers: HashSet<Vec<u8>>,
}

impl<P: Spoken> World<P> {
    fn new(count: usize) -> Self {
        let device = |index: usize| {
            // Some are devices of one account.
            let jid = ["a@x.org", "a@x.org", "b@x.org", "c@x.org", "b@x.org", "d@x.org"][index];
            let id = DeviceId::new(u32::try_from(index).unwrap() + 1).unwrap();
            Keeper::open(Disk::default(), || Device::generate(jid, id, 0)).unwrap()
        };
        Self {
            devices: (0..count).map(device).collect(),
            issued: HashSet::new(),
            repairs: HashMap::new(),
            flying: Vec::new(),
            arrived: Vec::new(),
            sent: 0,
            headers: HashSet::new(),
        }
    }

    fn address(&self, index: usize) -> Address {
        let device = self.devices[index].device();
        Address::of_device(device.owner(), device.id()).unwrap()
    }

    fn start(&mut self, from: usize, to: usize) {
        let mut bundle = self.devices[to].device().bundle();
        bundle.prekeys.retain(|prekey| self.issued.insert(prekey.key.as_bytes().to_vec()));
        let others = bundle.prekeys.split_off(1);
        for other in others {
            self.issued.remove(other.key.as_bytes().as_slice());
        }
        let address = self.address(to);
        self.devices[from].change(|device| device.start_session(&address, &bundle)).unwrap();
    }

    fn fly(&mut self, from: usize, to: &[usize], message: &P::Message, text: Option<Vec<u8>>) {
        let mut message = P::Message::read(&message.write()).unwrap();
        for header in P::headers(&mut message) {
            assert!(self.headers.insert(header.data.clone()), "a key was used twice");
        }
        for to in to {
            self.flying.push(Flying { from, to: *to, message: message.clone(), text: text.clone() });
        }
    }

    fn send(&mut self, from: usize, to: &[usize]) {
        for to in to {
            if !self.devices[from].device().has_session(&self.address(*to)) {
                self.start(from, *to);
            }
        }
        self.sent += 1;
        let text = format!("message {}", self.sent).into_bytes();
        let addresses: Vec<_> = to.iter().map(|to| self.address(*to)).collect();
        let message = self.devices[from].change(|device| device.encrypt(&text, &addresses)).unwrap();
        self.fly(from, to, &message, Some(text));
    }

    fn reply(&mut self, from: usize) {
        for address in self.devices[from].device().replies_due() {
            let to = (0..self.devices.len()).find(|index| self.address(*index) == address).unwrap();
            let message = self.devices[from].change(|device| device.encrypt_empty(&address)).unwrap();
            self.fly(from, &[to], &message, None);
        }
    }

    fn read(&mut self, flying: &Flying<P>) -> Result<Decrypted<P>, KeeperError<DecryptError, ()>> {
        let from = self.address(flying.from);
        self.devices[flying.to].decrypt(from.jid(), &flying.message, |_| Ok(()))
    }

    fn deliver(&mut self, which: usize) {
        let flying = self.flying.remove(which);
        let decrypted = self.read(&flying).unwrap();
        assert_eq!(decrypted.plaintext.map(|text| text.to_vec()), flying.text);
        assert_eq!(decrypted.sender, self.address(flying.from));
        self.arrived.push(flying);
    }

    fn repeat(&mut self, which: usize) {
        let flying = self.arrived[which].clone();
        let before = self.devices[flying.to].device().to_state().unwrap();
        match self.read(&flying) {
            Err(KeeperError::Device(DecryptError::Duplicate)) => {}
            other => panic!("{:?}", other.map(|decrypted| decrypted.sender)),
        }
        assert_eq!(self.devices[flying.to].device().to_state().unwrap(), before);
    }

    /// Someone copies the state of a device and tries everything on it that the device has read.
    fn steal(&mut self, who: usize) {
        let state = self.devices[who].device().to_state().unwrap();
        let mut stolen = Device::<P>::from_state(&state).unwrap();
        for flying in self.arrived.iter().filter(|flying| flying.to == who) {
            let from = self.devices[flying.from].device().owner();
            assert!(stolen.decrypt(from, &flying.message).is_err(), "a stolen state opens what was read");
        }
    }

    fn restart(&mut self, who: usize) {
        let state = self.devices[who].store_mut().state.take();
        self.devices[who] =
            Keeper::open(Disk { state, fails: false }, || -> Result<Device<P>, ()> { panic!("not saved") }).unwrap();
    }

    fn run(&mut self, op: Op) {
        let count = self.devices.len();
        match op {
            Op::Send { from, to } => {
                let from = from % count;
                let mut to: Vec<_> = (0..count).filter(|index| *index != from && to & (1 << index) != 0).collect();
                if to.is_empty() {
                    to.push((from + 1) % count);
                }
                self.send(from, &to);
            }
            Op::Reply { from } => self.reply(from % count),
            Op::Repair { from, to } => {
                let (from, to) = (from % count, to % count);
                // More than a few in a short time would push sessions out that are still in use.
                if from != to && self.devices[from].device().has_session(&self.address(to)) {
                    let repairs = self.repairs.entry((from, to)).or_default();
                    *repairs += 1;
                    if *repairs == 1 {
                        self.start(from, to);
                    }
                }
            }
            Op::Deliver { which } if !self.flying.is_empty() => self.deliver(which % self.flying.len()),
            Op::Lose { which } if !self.flying.is_empty() => drop(self.flying.remove(which % self.flying.len())),
            Op::Repeat { which } if !self.arrived.is_empty() => self.repeat(which % self.arrived.len()),
            Op::Crash { which } if !self.flying.is_empty() => {
                let flying = self.flying[which % self.flying.len()].clone();
                self.devices[flying.to].store_mut().fails = true;
                assert!(matches!(self.read(&flying), Err(KeeperError::Store(()))));
                self.restart(flying.to);
            }
            Op::Restart { who } => self.restart(who % count),
            Op::Steal { who } => self.steal(who % count),
            _ => {}
        }
    }

    /// After everything has arrived and every reply was given, all that have spoken agree on their sessions.
    fn settle(&mut self) {
        for _ in 0..4 {
            while !self.flying.is_empty() {
                self.deliver(0);
            }
            (0..self.devices.len()).for_each(|index| self.reply(index));
        }
        assert!(self.flying.is_empty(), "replies to replies to replies");
        assert!(self.devices.iter().all(|device| device.device().replies_due().is_empty()));
        for from in 0..self.devices.len() {
            for to in 0..self.devices.len() {
                if self.devices[from].device().has_session(&self.address(to)) {
                    self.send(from, &[to]);
                    self.deliver(0);
                }
            }
        }
    }
}

/// Fewer cases than usual, for each has many messages; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let default = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { default } else { ProptestConfig { cases: 16, ..default } }
}

fn run<P: Spoken>(count: usize, ops: Vec<Op>) {
    let mut world = World::<P>::new(count);
    for op in ops {
        world.run(op);
    }
    world.settle();
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn omemo2(count in 2..=6_usize, ops in prop::collection::vec(op(), 0..150)) {
        run::<Omemo2>(count, ops);
    }

    #[test]
    fn legacy(count in 2..=6_usize, ops in prop::collection::vec(op(), 0..150)) {
        run::<Legacy>(count, ops);
    }
}
