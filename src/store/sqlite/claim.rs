//! Claims: one prekey to one requester (DESIGN, directory invariants 1 to 4 and 9). The write lock makes claims happen one
//! after the other, so a claim can look at everything first and write only what it is sure of.

use sqlx::SqliteConnection;

use crate::model::Timestamp;
use crate::store::allowance::{self, Charge};
use crate::store::columns::{self, BundleKeys};
use crate::store::{Claim, ClaimKind, ClaimLimit, ClaimOutcome, ClaimRules, NoticeKind, StoreError};

use super::bundle::Place;
use super::{account, epoch, notice};

/// How many of the newest messages with an account are looked at for one that the owner wrote.
const RECENT: i64 = 50;

const FRESH: &str = "
    UPDATE prekey SET issued_at = ?4, last_issued_at = ?4, claimant = ?5, superseded = 0, fresh_issues = fresh_issues + 1
    WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND key =
        (SELECT key FROM prekey WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND issued_at IS NULL
         ORDER BY upload LIMIT 1)
    RETURNING prekey_id, key";

const LAST_RESORT: &str = "
    UPDATE prekey SET last_issued_at = ?4, last_resorts = last_resorts + 1
    WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND key =
        (SELECT key FROM prekey WHERE account = ?1 AND protocol = ?2 AND device = ?3
         AND issued_at IS NOT NULL AND NOT withdrawn AND consumed_at IS NULL
         ORDER BY last_issued_at, upload LIMIT 1)
    RETURNING prekey_id, key";

/// Answers a claim, in the caller's transaction. Writes nothing unless it hands out a prekey.
pub(super) async fn claim(
    connection: &mut SqliteConnection,
    claim: &Claim,
    rules: &ClaimRules,
    now: Timestamp,
) -> Result<ClaimOutcome, StoreError> {
    let Some(account) = account::find(connection, &claim.owner).await? else { return Ok(ClaimOutcome::NoBundle) };
    if epoch::is_doubted(connection).await? {
        return Err(StoreError::Unconfirmed);
    }
    epoch::void(connection, Place { account, protocol: claim.protocol, device: claim.device }, now).await?;
    let claimant = claim.claimant.to_string();
    let mut claiming = Claiming { connection, claim, claimant, rules, account, now };
    let Some(bundle) = claiming.bundle().await? else { return Ok(ClaimOutcome::NoBundle) };
    if let Some(prekey) = claiming.repeat().await? {
        return outcome(prekey, bundle.keys, ClaimKind::Repeat);
    }
    let paid = match claiming.afford().await? {
        Ok(paid) => paid,
        Err(limit) => return Ok(ClaimOutcome::Limited(limit)),
    };
    let from_reserve = match claiming.enter_reserve(&bundle).await? {
        Ok(from_reserve) => from_reserve,
        Err(limit) => return Ok(ClaimOutcome::Limited(limit)),
    };
    let (prekey, kind) = if let Some(prekey) = claiming.take_fresh().await? {
        (prekey, ClaimKind::Fresh)
    } else if claim.strict {
        return Ok(ClaimOutcome::NoPrekey);
    } else if let Some(prekey) = claiming.take_last_resort().await? {
        (prekey, ClaimKind::LastResort)
    } else {
        return Ok(ClaimOutcome::NoPrekey);
    };
    claiming.pay(&paid, from_reserve).await?;
    claiming.tell_stock(&bundle).await?;
    outcome(prekey, bundle.keys, kind)
}

/// A prekey as its row has it: id and key.
type Taken = (i32, Vec<u8>);

/// A bundle, with what it says about its stock.
#[derive(sqlx::FromRow)]
struct Stocked {
    #[sqlx(flatten)]
    keys: BundleKeys,
    prekeys: i32,
    stock_told: i16,
    reserve_spent_until: i64,
}

/// A claim in the middle of its transaction.
struct Claiming<'a> {
    connection: &'a mut SqliteConnection,
    claim: &'a Claim,
    claimant: String,
    rules: &'a ClaimRules,
    account: i64,
    now: Timestamp,
}

impl Claiming<'_> {
    async fn bundle(&mut self) -> Result<Option<Stocked>, StoreError> {
        let bundle = sqlx::query_as(
            "SELECT item_id, identity_key, signed_prekey_id, signed_prekey, signed_prekey_signature, prekeys, stock_told,
                 reserve_spent_until
             FROM bundle WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND payload IS NOT NULL",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql());
        Ok(bundle.fetch_optional(&mut *self.connection).await?)
    }

    /// What the claimant got before, where that still holds.
    async fn repeat(&mut self) -> Result<Option<Taken>, StoreError> {
        let since = self.now.minus(self.rules.repeat_window).micros();
        let own = sqlx::query_as(
            "SELECT prekey_id, key FROM prekey INDEXED BY prekey_claimant
             WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND claimant = ?4 AND superseded = 0
             AND issued_at > ?5 AND NOT withdrawn AND consumed_at IS NULL",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql())
        .bind(&self.claimant)
        .bind(since);
        let own: Option<Taken> = own.fetch_optional(&mut *self.connection).await?;
        if own.is_some() || self.claim.strict {
            return Ok(own);
        }
        let shared = sqlx::query_as(
            "SELECT p.prekey_id, p.key FROM last_resort l
             JOIN prekey p ON p.account = l.account AND p.protocol = l.protocol AND p.device = l.device AND p.key = l.key
             WHERE l.account = ?1 AND l.protocol = ?2 AND l.device = ?3 AND l.claimant = ?4 AND l.claimed_at > ?5
             AND NOT p.withdrawn AND p.consumed_at IS NULL",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql())
        .bind(&self.claimant)
        .bind(since);
        Ok(shared.fetch_optional(&mut *self.connection).await?)
    }

    /// What one prekey leaves of each allowance of the claimant; or which one does not suffice.
    async fn afford(&mut self) -> Result<Result<Vec<(Charge, i64)>, ClaimLimit>, StoreError> {
        let mut paid = Vec::new();
        for charge in Charge::of(self.claim, self.rules) {
            let spent: Option<i64> =
                sqlx::query_scalar("SELECT spent_until FROM claim_budget WHERE scope = ?1 AND name = ?2")
                    .bind(charge.scope.code())
                    .bind(&charge.name)
                    .fetch_optional(&mut *self.connection)
                    .await?;
            match charge.spend(spent, self.now) {
                Some(until) => paid.push((charge, until)),
                None => return Ok(Err(charge.scope.limit())),
            }
        }
        let Some(payer) = allowance::payer(self.claim).filter(|_| self.rules.per_device != u32::MAX) else {
            return Ok(Ok(paid));
        };
        let had: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM prekey INDEXED BY prekey_claimant
                     WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND claimant >= ?4 AND claimant < ?4 || '0'
                     AND substr(claimant, length(?4) + 1, 1) IN ('', '/', ' ') AND issued_at > ?5)
                  + (SELECT count(*) FROM last_resort
                     WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND claimant >= ?4 AND claimant < ?4 || '0'
                     AND substr(claimant, length(?4) + 1, 1) IN ('', '/', ' ') AND claimed_at > ?5)",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql())
        .bind(payer.as_str())
        .bind(self.now.micros().saturating_sub(allowance::DAY))
        .fetch_one(&mut *self.connection)
        .await?;
        Ok(if had >= i64::from(self.rules.per_device) { Err(ClaimLimit::Device) } else { Ok(paid) })
    }

    /// Whether this claim takes what strangers may have of the reserve; or that it may not. Who finds the stock empty is let
    /// through, to the last resort.
    async fn enter_reserve(&mut self, bundle: &Stocked) -> Result<Result<bool, ClaimLimit>, StoreError> {
        let reserve = i64::from(allowance::reserve(self.rules, bundle.prekeys));
        let Some(payer) = allowance::payer(self.claim).filter(|_| reserve > 0) else { return Ok(Ok(false)) };
        let left = self.unissued(reserve.saturating_add(1)).await?;
        if left == 0 || left > reserve || self.owner_wrote_to(payer.as_str()).await? {
            return Ok(Ok(false));
        }
        Ok(if bundle.reserve_spent_until > self.now.micros() { Err(ClaimLimit::Reserve) } else { Ok(true) })
    }

    /// Whether one of the newest messages between the owner and an account is the owner's.
    async fn owner_wrote_to(&mut self, peer: &str) -> Result<bool, StoreError> {
        let wrote = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM (SELECT direction FROM entry WHERE account = ?1 AND peer = ?2
                                           ORDER BY sequence DESC LIMIT ?3)
                            WHERE direction = 1)",
        )
        .bind(self.account)
        .bind(peer)
        .bind(RECENT);
        Ok(wrote.fetch_one(&mut *self.connection).await?)
    }

    /// How many unissued prekeys there are, counted up to a limit.
    async fn unissued(&mut self, limit: i64) -> Result<i64, StoreError> {
        let unissued = sqlx::query_scalar(
            "SELECT count(*) FROM (SELECT 1 FROM prekey INDEXED BY prekey_stock
                                   WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND issued_at IS NULL LIMIT ?4)",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql())
        .bind(limit);
        Ok(unissued.fetch_one(&mut *self.connection).await?)
    }

    /// The oldest prekey that nobody has.
    async fn take_fresh(&mut self) -> Result<Option<Taken>, StoreError> {
        if self.unissued(1).await? == 0 {
            return Ok(None);
        }
        // What the claimant had before, it does not get again.
        sqlx::query(
            "UPDATE prekey SET superseded = upload + 1
             WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND claimant = ?4 AND superseded = 0",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql())
        .bind(&self.claimant)
        .execute(&mut *self.connection)
        .await?;
        let taken = sqlx::query_as(FRESH)
            .bind(self.account)
            .bind(self.claim.protocol.code())
            .bind(self.claim.device.to_sql())
            .bind(self.now.micros())
            .bind(&self.claimant);
        Ok(taken.fetch_optional(&mut *self.connection).await?)
    }

    /// The least recently issued prekey that was not seen consumed.
    async fn take_last_resort(&mut self) -> Result<Option<Taken>, StoreError> {
        let taken = sqlx::query_as(LAST_RESORT)
            .bind(self.account)
            .bind(self.claim.protocol.code())
            .bind(self.claim.device.to_sql())
            .bind(self.now.micros());
        let taken: Option<Taken> = taken.fetch_optional(&mut *self.connection).await?;
        if let Some((_, key)) = &taken {
            sqlx::query(
                "INSERT INTO last_resort (account, protocol, device, claimant, key, claimed_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (account, protocol, device, claimant) DO UPDATE SET key = excluded.key,
                     claimed_at = excluded.claimed_at",
            )
            .bind(self.account)
            .bind(self.claim.protocol.code())
            .bind(self.claim.device.to_sql())
            .bind(&self.claimant)
            .bind(key)
            .bind(self.now.micros())
            .execute(&mut *self.connection)
            .await?;
        }
        Ok(taken)
    }

    /// Writes down what the prekey has cost.
    async fn pay(&mut self, paid: &[(Charge, i64)], from_reserve: bool) -> Result<(), StoreError> {
        for (charge, until) in paid {
            sqlx::query(
                "INSERT INTO claim_budget (scope, name, spent_until, spent_day) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (scope, name) DO UPDATE SET spent_until = excluded.spent_until, spent_day = excluded.spent_day",
            )
            .bind(charge.scope.code())
            .bind(&charge.name)
            .bind(until)
            .bind(allowance::last_day(self.now))
            .execute(&mut *self.connection)
            .await?;
        }
        if from_reserve {
            sqlx::query(
                "UPDATE bundle SET reserve_spent_until = ?4 WHERE account = ?1 AND protocol = ?2 AND device = ?3",
            )
            .bind(self.account)
            .bind(self.claim.protocol.code())
            .bind(self.claim.device.to_sql())
            .bind(self.now.micros().saturating_add(allowance::reserve_pause(self.rules)))
            .execute(&mut *self.connection)
            .await?;
        }
        Ok(())
    }

    /// Has the device told that its stock is low, or empty: once each, until it is replenished.
    async fn tell_stock(&mut self, bundle: &Stocked) -> Result<(), StoreError> {
        let left = self.unissued(i64::from(self.rules.low_stock).saturating_add(1)).await?;
        let state = allowance::stock_state(self.rules, left);
        if state <= bundle.stock_told {
            return Ok(());
        }
        let Claim { protocol, device, .. } = *self.claim;
        sqlx::query("UPDATE bundle SET stock_told = ?4 WHERE account = ?1 AND protocol = ?2 AND device = ?3")
            .bind(self.account)
            .bind(protocol.code())
            .bind(device.to_sql())
            .bind(state)
            .execute(&mut *self.connection)
            .await?;
        notice::add(self.connection, self.account, protocol, Some(device), NoticeKind::LowStock, self.now).await
    }
}

fn outcome((id, key): Taken, bundle: BundleKeys, kind: ClaimKind) -> Result<ClaimOutcome, StoreError> {
    let (identity_key, signed_prekey, item_id) = bundle.into_parts()?;
    Ok(ClaimOutcome::Handed { identity_key, signed_prekey, prekey: columns::prekey(id, key)?, item_id, kind })
}

/// Deletes a few of the hand-outs and allowances that are older than a moment.
pub(super) async fn forget(
    connection: &mut SqliteConnection,
    before: Timestamp,
    limit: u32,
) -> Result<u64, StoreError> {
    let hand_outs = sqlx::query(
        "DELETE FROM last_resort WHERE (account, protocol, device, claimant) IN (
             SELECT account, protocol, device, claimant FROM last_resort WHERE claimed_at < ?1 ORDER BY claimed_at LIMIT ?2)",
    )
    .bind(before.micros())
    .bind(i64::from(limit))
    .execute(&mut *connection)
    .await?;
    let allowances = sqlx::query(
        "DELETE FROM claim_budget WHERE (scope, name) IN (
             SELECT scope, name FROM claim_budget WHERE spent_day < ?1 ORDER BY spent_day LIMIT ?2)",
    )
    .bind(allowance::day(before.micros()))
    .bind(i64::from(limit))
    .execute(connection)
    .await?;
    Ok(hand_outs.rows_affected().saturating_add(allowances.rows_affected()))
}
