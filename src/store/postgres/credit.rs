//! What accounts may claim before it is written down (DESIGN, directory invariant 9).
//!
//! To write each claim into the allowance of its account costs as much as the claim, and makes all claims from a foreign
//! domain wait for one row. So an account, and a domain, may owe a thousandth of its allowance, here in memory. Debts pass
//! with time, as allowances refill. Who owes as much as it may is charged in the database with the claim and all that it
//! owes; who has spent half of its allowance there has no credit until it has refilled. What is forgotten in a crash, and what
//! several instances lend to one account, is a thousandth each.
//!
//! It is also where the claims of one account take turns, because limits are counted from what is committed.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::Timestamp;
use crate::store::allowance::{self, Charge, DAY, Scope};
use crate::store::{Claim, ClaimRules};

/// What may be owed: a thousandth of any allowance.
const CREDIT: i64 = DAY / 1_000;
/// Debtors that are remembered. Beyond it nobody gets credit until debts have passed.
const DEBTORS: usize = 100_000;
/// How long, in microseconds, until it is looked again which debts have passed, when there are that many.
const SWEEP: i64 = 1_000_000;

/// Who owes what, and whose claims are being answered.
#[derive(Debug, Default)]
pub(super) struct Credit {
    books: Mutex<Books>,
    turn_ended: Notify,
}

#[derive(Debug, Default)]
struct Books {
    names: Names,
    claiming: HashSet<Name>,
    debts: HashMap<Name, Debt>,
    swept_at: i64,
}

/// What stands for an account or a domain: a keyed hash, so that strangers with long addresses take no more memory than
/// others. Two of the same hash share their credit.
type Name = u64;

#[derive(Debug, Default)]
struct Names(RandomState);

impl Names {
    fn of(&self, scope: Scope, name: &str) -> Name {
        self.0.hash_one((scope.code(), name))
    }

    fn charged(&self, charge: &Charge) -> Name {
        self.of(charge.scope, &charge.name)
    }

    /// The account whose limits a claim counts against, if there is one.
    fn payer(&self, claim: &Claim) -> Option<Name> {
        allowance::payer(claim).map(|payer| self.of(Scope::Requester, payer.as_str()))
    }
}

/// The debt of one allowance, as moments in microseconds, like the allowance itself.
#[derive(Debug, Default, Clone, Copy)]
struct Debt {
    /// Until then, what is owed has not passed.
    owed_until: i64,
    /// Until then there is no credit.
    denied_until: i64,
}

impl Credit {
    /// Takes up the claims of a statement: those whose accounts have credit and whose turn it is.
    pub(super) fn admit(&self, claims: &[Claim], rules: &ClaimRules, now: Timestamp) -> Admitted<'_> {
        let mut books = self.books();
        let mut turns = Vec::new();
        let mut admitted = Vec::with_capacity(claims.len());
        for claim in claims {
            let Some(payer) = books.names.payer(claim) else {
                admitted.push(true);
                continue;
            };
            let its_turn = turns.contains(&payer) || !books.claiming.contains(&payer);
            let admit = its_turn && books.lend(&Charge::of(claim, rules), now);
            if admit && books.claiming.insert(payer) {
                turns.push(payer);
            }
            admitted.push(admit);
        }
        Admitted { turn: Turn { credit: self, accounts: turns }, admitted }
    }

    /// Waits until no other claim of the account is being answered.
    pub(super) async fn turn(&self, claim: &Claim) -> Turn<'_> {
        let Some(payer) = self.books().names.payer(claim) else { return Turn { credit: self, accounts: Vec::new() } };
        loop {
            let ended = self.turn_ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.books().claiming.insert(payer) {
                return Turn { credit: self, accounts: vec![payer] };
            }
            ended.await;
        }
    }

    /// What a claim costs when it is charged in the database: each charge with what is owed besides.
    pub(super) fn bill(&self, claim: &Claim, rules: &ClaimRules, now: Timestamp) -> Vec<Charge> {
        let books = self.books();
        let with_debt =
            |charge: Charge| Charge { cost: charge.cost.saturating_add(books.debt(&charge).owed(now)), ..charge };
        Charge::of(claim, rules).into_iter().map(with_debt).collect()
    }

    /// A bill was paid: until when the allowance is now spent in the database.
    pub(super) fn paid(&self, bill: &[Charge], spent_until: &[i64], now: Timestamp) {
        let mut books = self.books();
        for (charge, spent_until) in bill.iter().zip(spent_until) {
            let denied_until = spent_until.saturating_sub(DAY / 2);
            let name = books.names.charged(charge);
            if denied_until > now.micros() {
                books.debts.insert(name, Debt { owed_until: 0, denied_until });
            } else {
                books.debts.remove(&name);
            }
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Each change is whole when it is made.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn debt(&self, charge: &Charge) -> Debt {
        self.debts.get(&self.names.charged(charge)).copied().unwrap_or_default()
    }

    /// Lends all that a claim costs, or nothing.
    fn lend(&mut self, charges: &[Charge], now: Timestamp) -> bool {
        if self.debts.len() >= DEBTORS && !charges.is_empty() {
            if self.swept_at > now.micros().saturating_sub(SWEEP) {
                return false;
            }
            self.swept_at = now.micros();
            self.debts.retain(|_, debt| debt.owed_until.max(debt.denied_until) > now.micros());
        }
        let suffices = |charge: &Charge| {
            let debt = self.debt(charge);
            debt.denied_until <= now.micros() && debt.owed(now).saturating_add(charge.cost) <= CREDIT
        };
        if !charges.iter().all(suffices) {
            return false;
        }
        for charge in charges {
            let debt = self.debts.entry(self.names.charged(charge)).or_default();
            debt.owed_until = debt.owed_until.max(now.micros()).saturating_add(charge.cost);
        }
        true
    }
}

impl Debt {
    fn owed(self, now: Timestamp) -> i64 {
        self.owed_until.saturating_sub(now.micros()).max(0)
    }
}

/// The turn of some accounts, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    credit: &'a Credit,
    accounts: Vec<Name>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.accounts.is_empty() {
            return;
        }
        let mut books = self.credit.books();
        for account in &self.accounts {
            books.claiming.remove(account);
        }
        drop(books);
        self.credit.turn_ended.notify_waiters();
    }
}

/// Claims that are being answered on credit.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    turn: Turn<'a>,
    admitted: Vec<bool>,
}

impl Admitted<'_> {
    /// Whether the claim in this place is one of them.
    pub(super) fn has(&self, place: usize) -> bool {
        self.admitted.get(place).copied().unwrap_or(false)
    }

    /// A claim came to nothing new: it costs nothing.
    pub(super) fn give_back(&self, claim: &Claim, rules: &ClaimRules) {
        let mut books = self.turn.credit.books();
        for charge in Charge::of(claim, rules) {
            let name = books.names.charged(&charge);
            if let Some(debt) = books.debts.get_mut(&name) {
                debt.owed_until = debt.owed_until.saturating_sub(charge.cost);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Claimant, DeviceId, Owner, Protocol, Requester};

    fn claim(requester: &str) -> Claim {
        Claim {
            owner: Owner::parse("bob@example.org").unwrap(),
            protocol: Protocol::Omemo2,
            device: DeviceId::new(1).unwrap(),
            claimant: Claimant::Address(Requester::parse(requester).unwrap()),
            foreign: false,
            strict: false,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    /// How many claims of an account are lent at a moment.
    fn lent(credit: &Credit, rules: &ClaimRules, second: i64) -> usize {
        (0..1_000).take_while(|_| credit.admit(&[claim("alice@example.org/a")], rules, at(second)).has(0)).count()
    }

    #[test]
    fn a_thousandth_is_lent_and_lent_again_when_it_has_passed() {
        let (credit, rules) = (Credit::default(), ClaimRules { per_requester: 20_000, ..ClaimRules::default() });
        assert_eq!(lent(&credit, &rules, 100), 20);
        assert_eq!(lent(&credit, &rules, 100), 0);
        // One of 20,000 refills in 4.32 seconds.
        assert_eq!(lent(&credit, &rules, 105), 1);
        assert_eq!(lent(&credit, &rules, 1_000), 20);
    }

    #[test]
    fn a_small_allowance_is_never_lent() {
        let rules = ClaimRules { per_requester: 500, ..ClaimRules::default() };
        assert_eq!(lent(&Credit::default(), &rules, 100), 0);
    }

    #[test]
    fn what_is_owed_is_billed_and_who_has_spent_half_gets_no_credit() {
        let (credit, rules) = (Credit::default(), ClaimRules { per_requester: 20_000, ..ClaimRules::default() });
        lent(&credit, &rules, 0);
        let alice = claim("alice@example.org/b");
        let bill = credit.bill(&alice, &rules, at(0));
        assert_eq!(bill[0].cost, 21 * DAY / 20_000);
        credit.paid(&bill, &[bill[0].cost], at(0));
        assert_eq!(lent(&credit, &rules, 0), 20, "nothing is owed any more");
        let bill = credit.bill(&alice, &rules, at(0));
        credit.paid(&bill, &[DAY / 2 + 60_000_000], at(0));
        assert_eq!(lent(&credit, &rules, 59), 0);
        assert_eq!(lent(&credit, &rules, 60), 20);
    }

    #[test]
    fn what_came_to_nothing_costs_nothing() {
        let (credit, rules) = (Credit::default(), ClaimRules { per_requester: 1_000, ..ClaimRules::default() });
        let claims = [claim("alice@example.org/a")];
        credit.admit(&claims, &rules, at(0)).give_back(&claims[0], &rules);
        assert_eq!(lent(&credit, &rules, 0), 1);
    }

    #[tokio::test]
    async fn claims_of_one_account_take_turns() {
        let (credit, rules) = (Credit::default(), ClaimRules::default());
        let claims = [claim("alice@example.org/a"), claim("alice@example.org/b"), claim("carol@example.org/c")];
        let first = credit.admit(&claims, &rules, at(0));
        assert!((0..3).all(|place| first.has(place)));
        let second = credit.admit(&[claim("alice@example.org/c"), claim("dave@example.org/d")], &rules, at(0));
        assert!(!second.has(0) && second.has(1));
        let mut waiting = Box::pin(credit.turn(&claims[0]));
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("two claims of one account at once"),
            () = std::future::ready(()) => {}
        }
        drop(first);
        drop(waiting.await);
        assert!(credit.admit(&claims, &rules, at(0)).has(0));
    }
}
