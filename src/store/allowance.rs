//! Allowances that refill with time (DESIGN, directory invariant 9): the same arithmetic on every database.
//!
//! An allowance of so many a day is kept as one moment: the one until which it has been spent. Each use moves it on by a
//! share of the day, and it never lies further ahead than a day.

use jid::BareJid;

use crate::model::Timestamp;
use crate::store::{Claim, ClaimLimit, ClaimRules};

/// Microseconds in a day.
pub(super) const DAY: i64 = 24 * 60 * 60 * 1_000_000;
/// Microseconds in an hour.
const HOUR: i64 = 60 * 60 * 1_000_000;

/// Whose allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// An account that claims.
    Requester,
    /// All accounts of a foreign domain.
    Domain,
}

impl Scope {
    /// The number that stands for it in the database.
    pub(super) fn code(self) -> i16 {
        match self {
            Self::Requester => 1,
            Self::Domain => 2,
        }
    }

    /// What a claimant is told when it is spent.
    pub(super) fn limit(self) -> ClaimLimit {
        match self {
            Self::Requester => ClaimLimit::Requester,
            Self::Domain => ClaimLimit::Domain,
        }
    }
}

/// What one new prekey costs one allowance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Charge {
    /// Whose allowance.
    pub(super) scope: Scope,
    /// Its name: a bare JID or a domain.
    pub(super) name: String,
    /// The share of the day, in microseconds.
    pub(super) cost: i64,
}

impl Charge {
    /// What a claim costs: in the order in which the rows are locked. Nothing for the owner's own devices.
    pub(super) fn of(claim: &Claim, rules: &ClaimRules) -> Vec<Self> {
        let Some(payer) = payer(claim) else { return Vec::new() };
        let domain = claim.foreign.then(|| payer.domain().as_str().to_owned());
        let charges = [
            (Scope::Requester, Some(payer.as_str().to_owned()), rules.per_requester),
            (Scope::Domain, domain, rules.per_domain),
        ];
        let charge =
            |(scope, name, limit): (Scope, Option<String>, u32)| Some(Self { scope, name: name?, cost: cost(limit)? });
        charges.into_iter().filter_map(charge).collect()
    }

    /// The moment until which the allowance is spent after this, if it suffices.
    pub(super) fn spend(&self, spent_until: Option<i64>, now: Timestamp) -> Option<i64> {
        let from = spent_until.unwrap_or(i64::MIN).max(now.micros());
        let until = from.saturating_add(self.cost);
        (until.saturating_sub(now.micros()) <= DAY).then_some(until)
    }
}

/// The account whose limits a claim counts against; none for the owner's own.
pub(super) fn payer(claim: &Claim) -> Option<BareJid> {
    (!claim.claimant.is_of(&claim.owner)).then(|| claim.claimant.account())
}

/// The share of a day that one of so many costs; `None` where there is no limit.
fn cost(limit: u32) -> Option<i64> {
    (limit != u32::MAX).then(|| DAY.checked_div(i64::from(limit)).unwrap_or(i64::MAX))
}

/// How long a stranger's prekey from a reserve keeps the next stranger waiting, in microseconds.
pub(super) fn reserve_pause(rules: &ClaimRules) -> i64 {
    HOUR.checked_div(i64::from(rules.reserve_per_hour)).unwrap_or(i64::MAX)
}

/// How many unissued prekeys of a bundle of this size are its reserve.
pub(super) fn reserve(rules: &ClaimRules, prekeys: i32) -> u32 {
    rules.reserve.min(u32::try_from(prekeys).unwrap_or(0) / 5)
}

/// How many unissued prekeys are plenty: a claim that leaves so many needs no further look at the stock.
pub(super) fn plenty(rules: &ClaimRules) -> i32 {
    i32::try_from(rules.low_stock.max(rules.reserve)).unwrap_or(i32::MAX).saturating_add(1)
}

/// How many prekeys of one device an account gets before each is counted with care: half of what it may have.
pub(super) fn plainly_per_device(rules: &ClaimRules) -> i64 {
    if rules.per_device == u32::MAX { i64::MAX } else { i64::from(rules.per_device / 2) }
}

/// The day in which a moment lies.
pub(super) fn day(micros: i64) -> i32 {
    i32::try_from(micros.div_euclid(DAY)).unwrap_or(if micros < 0 { i32::MIN } else { i32::MAX })
}

/// The last day in which an allowance can have been spent that is used now. Written beside it, so that it can be found when
/// it is full again, and changes once a day.
pub(super) fn last_day(now: Timestamp) -> i32 {
    day(now.micros().saturating_add(DAY))
}

/// What a device was told, or is to be told, about its stock: 0 nothing, 1 that it is low, 2 that it is empty.
pub(super) fn stock_state(rules: &ClaimRules, left: i64) -> i16 {
    match left {
        0 => 2,
        left if left <= i64::from(rules.low_stock) => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_spent_at_once_and_refills_with_time() {
        let charge = Charge { scope: Scope::Requester, name: String::new(), cost: cost(4).unwrap() };
        let at = |hours: i64| Timestamp::from_micros(hours * HOUR);
        let mut spent = None;
        for _ in 0..4 {
            spent = Some(charge.spend(spent, at(0)).unwrap());
        }
        assert_eq!(charge.spend(spent, at(0)), None);
        assert_eq!(charge.spend(spent, at(5)), None);
        spent = Some(charge.spend(spent, at(6)).unwrap());
        assert_eq!(charge.spend(spent, at(6)), None);
        // After two days it is full again, and no more than full.
        for _ in 0..4 {
            spent = Some(charge.spend(spent, at(100)).unwrap());
        }
        assert_eq!(charge.spend(spent, at(100)), None);
    }

    #[test]
    fn no_limit_costs_nothing_and_a_limit_of_none_lets_nothing_through() {
        assert_eq!(cost(u32::MAX), None);
        let charge = Charge { scope: Scope::Domain, name: String::new(), cost: cost(0).unwrap() };
        assert_eq!(charge.spend(None, Timestamp::from_micros(5)), None);
    }
}
