//! One claim, with care: whatever [`super::claim_batch`] leaves aside because it is not plainly a prekey out of a full
//! stock (DESIGN, directory invariants 1 to 4 and 9).
//!
//! The bundle's row is locked first, so that such claims of one device, and publishes, happen one after the other: what is
//! left of the stock, what strangers may still have of it and what the device was told are then exact. Claims in batches
//! take no such lock; they may hold prekeys here, for a moment, and are waited for before the stock counts as empty.

use sqlx::PgConnection;

use crate::model::Timestamp;
use crate::store::allowance::{self, Charge};
use crate::store::columns::{self, BundleKeys};
use crate::store::transaction::End;
use crate::store::{Claim, ClaimKind, ClaimLimit, ClaimOutcome, ClaimRules, NoticeKind, StoreError};

use super::bundle::Place;
use super::conversation::conversation;
use super::{account, notice, plain_stock};

/// How many of the newest messages with an account are looked at for one that the owner wrote.
const RECENT: i64 = 50;

const FRESH: &str = "
    WITH picked AS MATERIALIZED (
        SELECT key FROM prekey
        WHERE account = $1 AND protocol = $2 AND device = $3 AND issued_at IS NULL
        ORDER BY upload LIMIT 1 FOR UPDATE SKIP LOCKED)
    UPDATE prekey p SET issued_at = $4, last_issued_at = $4, claimant = $5, superseded = 0, fresh_issues = fresh_issues + 1
    FROM picked
    WHERE p.account = $1 AND p.protocol = $2 AND p.device = $3 AND p.key = picked.key
    RETURNING p.prekey_id, p.key";

/// The same, but waits for the prekeys that others have locked: they may yet roll back.
const FRESH_WAITING: &str = "
    WITH picked AS MATERIALIZED (
        SELECT key FROM prekey
        WHERE account = $1 AND protocol = $2 AND device = $3 AND issued_at IS NULL
        ORDER BY upload LIMIT 1 FOR UPDATE)
    UPDATE prekey p SET issued_at = $4, last_issued_at = $4, claimant = $5, superseded = 0, fresh_issues = fresh_issues + 1
    FROM picked
    WHERE p.account = $1 AND p.protocol = $2 AND p.device = $3 AND p.key = picked.key
    RETURNING p.prekey_id, p.key";

const LAST_RESORT: &str = "
    WITH picked AS MATERIALIZED (
        SELECT key FROM prekey
        WHERE account = $1 AND protocol = $2 AND device = $3
        AND issued_at IS NOT NULL AND NOT withdrawn AND consumed_at IS NULL
        ORDER BY last_issued_at, upload LIMIT 1 FOR UPDATE),
    remembered AS (
        INSERT INTO last_resort (account, protocol, device, claimant, key, claimed_at)
        SELECT $1, $2, $3, $5, key, $4 FROM picked
        ON CONFLICT (account, protocol, device, claimant) DO UPDATE SET key = excluded.key,
            claimed_at = excluded.claimed_at)
    UPDATE prekey p SET last_issued_at = $4, last_resorts = last_resorts + 1 FROM picked
    WHERE p.account = $1 AND p.protocol = $2 AND p.device = $3 AND p.key = picked.key
    RETURNING p.prekey_id, p.key";

/// What became of a claim.
pub(super) enum Claimed {
    /// An answer that cost nothing.
    Free(ClaimOutcome),
    /// A prekey that was charged: until when each allowance of the bill is now spent.
    Charged(ClaimOutcome, Vec<i64>),
    /// The device's stock is from before a restore; it is to be made void ([`super::epoch::void`]), in another transaction,
    /// before it is claimed from.
    VoidIsDue,
}

/// Answers a claim, in a transaction of its own, and charges the bill for it.
pub(super) async fn claim(
    connection: &mut PgConnection,
    claim: &Claim,
    bill: &[Charge],
    rules: &ClaimRules,
    now: Timestamp,
) -> Result<End<Claimed>, StoreError> {
    let free = |outcome| Ok(End::Abandon(Claimed::Free(outcome)));
    let Some(account) = account::find(connection, &claim.owner).await? else {
        return free(ClaimOutcome::NoBundle);
    };
    let claimant = claim.claimant.to_string();
    let mut claiming = Claiming { connection, claim, claimant, rules, account, now };
    let Some(bundle) = claiming.lock_bundle().await? else {
        return free(ClaimOutcome::NoBundle);
    };
    if bundle.doubted {
        return Err(StoreError::Unconfirmed);
    }
    if bundle.void_is_due {
        return Ok(End::Abandon(Claimed::VoidIsDue));
    }
    let held = claiming.held().await?;
    if let Some(prekey) = claiming.repeat(held.as_ref()).await? {
        return free(outcome(prekey, bundle.keys, ClaimKind::Repeat)?);
    }
    let spent_until = match claiming.charge(bill).await? {
        Ok(spent_until) => spent_until,
        Err(limit) => return free(ClaimOutcome::Limited(limit)),
    };
    if claiming.had_its_share().await? {
        return free(ClaimOutcome::Limited(ClaimLimit::Device));
    }
    if let Some(limit) = claiming.enter_reserve(&bundle).await? {
        return free(ClaimOutcome::Limited(limit));
    }
    let (prekey, kind) = if let Some(prekey) = claiming.take_fresh(held).await? {
        (prekey, ClaimKind::Fresh)
    } else if claim.strict {
        return free(ClaimOutcome::NoPrekey);
    } else if let Some(prekey) = claiming.take_last_resort().await? {
        (prekey, ClaimKind::LastResort)
    } else {
        return free(ClaimOutcome::NoPrekey);
    };
    claiming.tell_stock(&bundle).await?;
    if !bundle.plain {
        claiming.draw_boundary().await?;
    }
    Ok(End::Commit(Claimed::Charged(outcome(prekey, bundle.keys, kind)?, spent_until)))
}

/// A prekey as its row has it: id and key.
pub(super) type Taken = (i32, Vec<u8>);

/// A locked bundle, with what it says about its stock.
#[derive(sqlx::FromRow)]
struct Locked {
    #[sqlx(flatten)]
    keys: BundleKeys,
    prekeys: i32,
    stock_told: i16,
    reserve_spent_until: i64,
    doubted: bool,
    void_is_due: bool,
    /// There is a boundary up to which the next claims need no such care.
    plain: bool,
}

/// A prekey that a claimant has, and whether it is still good for it.
#[derive(sqlx::FromRow)]
struct Held {
    prekey_id: i32,
    key: Vec<u8>,
    good: bool,
}

/// A claim in the middle of its transaction.
struct Claiming<'a> {
    connection: &'a mut PgConnection,
    claim: &'a Claim,
    claimant: String,
    rules: &'a ClaimRules,
    account: i64,
    now: Timestamp,
}

impl Claiming<'_> {
    async fn lock_bundle(&mut self) -> Result<Option<Locked>, StoreError> {
        let bundle = sqlx::query_as(
            "SELECT item_id, identity_key, signed_prekey_id, signed_prekey, signed_prekey_signature, prekeys, stock_told,
                 reserve_spent_until, plain_rest = $4 AND plain_upload = next_upload AS plain, (SELECT doubted FROM deployment WHERE one) AS doubted,
                 void_epoch < (SELECT epoch FROM deployment WHERE one) AS void_is_due
             FROM bundle WHERE account = $1 AND protocol = $2 AND device = $3 AND payload IS NOT NULL FOR NO KEY UPDATE",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql())
        .bind(allowance::plenty(self.rules));
        Ok(bundle.fetch_optional(&mut *self.connection).await?)
    }

    /// The prekey that the claimant has of the device.
    async fn held(&mut self) -> Result<Option<Held>, StoreError> {
        let held = sqlx::query_as(
            "SELECT prekey_id, key, issued_at > $5 AND NOT withdrawn AND consumed_at IS NULL AS good FROM prekey
             WHERE account = $1 AND protocol = $2 AND device = $3 AND claimant = $4 AND superseded = 0",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql())
        .bind(&self.claimant)
        .bind(self.now.minus(self.rules.repeat_window).micros());
        Ok(held.fetch_optional(&mut *self.connection).await?)
    }

    /// What the claimant got before, where that still holds.
    async fn repeat(&mut self, held: Option<&Held>) -> Result<Option<Taken>, StoreError> {
        let own = held.filter(|held| held.good).map(|held| (held.prekey_id, held.key.clone()));
        if own.is_some() || self.claim.strict {
            return Ok(own);
        }
        let shared = sqlx::query_as(
            "SELECT p.prekey_id, p.key FROM last_resort l
             JOIN prekey p ON p.account = $1 AND p.protocol = $2 AND p.device = $3 AND p.key = l.key
             WHERE l.account = $1 AND l.protocol = $2 AND l.device = $3 AND l.claimant = $4 AND l.claimed_at > $5
             AND NOT p.withdrawn AND p.consumed_at IS NULL",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql())
        .bind(&self.claimant)
        .bind(self.now.minus(self.rules.repeat_window).micros());
        Ok(shared.fetch_optional(&mut *self.connection).await?)
    }

    /// Charges the claimant's allowances: until when each is now spent, or the one that does not suffice.
    async fn charge(&mut self, bill: &[Charge]) -> Result<Result<Vec<i64>, ClaimLimit>, StoreError> {
        let mut spent_until = Vec::with_capacity(bill.len());
        for charge in bill {
            // A row that is there is locked here: claims of one account are counted one after the other.
            let paid: Option<i64> = sqlx::query_scalar(
                "INSERT INTO claim_budget AS b (scope, name, spent_until, spent_day)
                 SELECT $1::smallint, $2::text, $3::bigint + $4::bigint, $6::integer WHERE $4 <= $5
                 ON CONFLICT (scope, name) DO UPDATE SET spent_until = greatest(b.spent_until, $3) + $4, spent_day = $6
                 WHERE greatest(b.spent_until, $3) + $4 - $3 <= $5
                 RETURNING spent_until",
            )
            .bind(charge.scope.code())
            .bind(&charge.name)
            .bind(self.now.micros())
            .bind(charge.cost)
            .bind(allowance::DAY)
            .bind(allowance::last_day(self.now))
            .fetch_optional(&mut *self.connection)
            .await?;
            match paid {
                Some(moment) => spent_until.push(moment),
                None => return Ok(Err(charge.scope.limit())),
            }
        }
        Ok(Ok(spent_until))
    }

    /// Whether the claimant's account has had as many of the device's prekeys as it may.
    async fn had_its_share(&mut self) -> Result<bool, StoreError> {
        let Some(payer) = allowance::payer(self.claim).filter(|_| self.rules.per_device != u32::MAX) else {
            return Ok(false);
        };
        let had: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM prekey
                     WHERE account = $1 AND protocol = $2 AND device = $3 AND claimant >= $4 AND claimant < $4 || '0'
                     AND substr(claimant, length($4) + 1, 1) IN ('', '/', ' ') AND issued_at > $5)
                  + (SELECT count(*) FROM last_resort
                     WHERE account = $1 AND protocol = $2 AND device = $3 AND claimant >= $4 AND claimant < $4 || '0'
                     AND substr(claimant, length($4) + 1, 1) IN ('', '/', ' ') AND claimed_at > $5)",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql())
        .bind(payer.as_str())
        .bind(self.now.micros().saturating_sub(allowance::DAY))
        .fetch_one(&mut *self.connection)
        .await?;
        Ok(had >= i64::from(self.rules.per_device))
    }

    /// Lets a stranger into the reserve, or not. Who finds the stock empty is let through, to the last resort.
    async fn enter_reserve(&mut self, bundle: &Locked) -> Result<Option<ClaimLimit>, StoreError> {
        let reserve = i64::from(allowance::reserve(self.rules, bundle.prekeys));
        let Some(payer) = allowance::payer(self.claim).filter(|_| reserve > 0) else { return Ok(None) };
        let left = self.unissued(reserve.saturating_add(1)).await?;
        if left == 0 || left > reserve || self.owner_wrote_to(payer.as_str()).await? {
            return Ok(None);
        }
        if bundle.reserve_spent_until > self.now.micros() {
            return Ok(Some(ClaimLimit::Reserve));
        }
        sqlx::query("UPDATE bundle SET reserve_spent_until = $4 WHERE account = $1 AND protocol = $2 AND device = $3")
            .bind(self.account)
            .bind(self.claim.protocol.code())
            .bind(self.claim.device.to_sql())
            .bind(self.now.micros().saturating_add(allowance::reserve_pause(self.rules)))
            .execute(&mut *self.connection)
            .await?;
        Ok(None)
    }

    /// Whether one of the newest messages between the owner and an account is the owner's.
    async fn owner_wrote_to(&mut self, peer: &str) -> Result<bool, StoreError> {
        let wrote = sqlx::query_scalar(concat!(
            "SELECT EXISTS (SELECT FROM (SELECT number FROM address WHERE account = $1 AND jid = $2) named
                            CROSS JOIN LATERAL (SELECT kind FROM entry WHERE ",
            conversation!("account", "peer"),
            " = ",
            conversation!("$1", "named.number"),
            " AND account + 0 = $1 AND peer = named.number ORDER BY sequence DESC LIMIT $3) newest
                            WHERE kind::integer & 1 = 0)",
        ))
        .bind(self.account)
        .bind(peer)
        .bind(RECENT);
        Ok(wrote.fetch_one(&mut *self.connection).await?)
    }

    /// How many unissued prekeys there are, counted up to a limit.
    async fn unissued(&mut self, limit: i64) -> Result<i64, StoreError> {
        let unissued = sqlx::query_scalar(
            "SELECT count(*) FROM (SELECT FROM prekey WHERE account = $1 AND protocol = $2 AND device = $3
                                   AND issued_at IS NULL LIMIT $4) stock",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql())
        .bind(limit);
        Ok(unissued.fetch_one(&mut *self.connection).await?)
    }

    /// The oldest prekey that nobody has, in place of the one that the claimant has. One that it was given meanwhile,
    /// elsewhere, stays: this claim then fails at the key `prekey_claimant`, and finds it when it is run again.
    async fn take_fresh(&mut self, held: Option<Held>) -> Result<Option<Taken>, StoreError> {
        if let Some(held) = &held {
            self.supersede(held, true).await?;
        }
        for statement in [FRESH, FRESH_WAITING] {
            let taken = sqlx::query_as(statement)
                .bind(self.account)
                .bind(self.claim.protocol.code())
                .bind(self.claim.device.to_sql())
                .bind(self.now.micros())
                .bind(&self.claimant);
            if let Some(prekey) = taken.fetch_optional(&mut *self.connection).await? {
                return Ok(Some(prekey));
            }
        }
        if let Some(held) = &held {
            self.supersede(held, false).await?;
        }
        Ok(None)
    }

    async fn supersede(&mut self, held: &Held, superseded: bool) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE prekey SET superseded = CASE WHEN $5 THEN upload + 1 ELSE 0 END
             WHERE account = $1 AND protocol = $2 AND device = $3 AND key = $4",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql())
        .bind(&held.key)
        .bind(superseded)
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// The least recently issued prekey that was not seen consumed.
    async fn take_last_resort(&mut self) -> Result<Option<Taken>, StoreError> {
        let taken = sqlx::query_as(LAST_RESORT)
            .bind(self.account)
            .bind(self.claim.protocol.code())
            .bind(self.claim.device.to_sql())
            .bind(self.now.micros())
            .bind(&self.claimant);
        Ok(taken.fetch_optional(&mut *self.connection).await?)
    }

    async fn draw_boundary(&mut self) -> Result<(), StoreError> {
        let place = Place { account: self.account, protocol: self.claim.protocol, device: self.claim.device };
        plain_stock::draw(self.connection, place, allowance::plenty(self.rules)).await
    }

    /// Has the device told that its stock is low, or empty: once each, until it is replenished.
    async fn tell_stock(&mut self, bundle: &Locked) -> Result<(), StoreError> {
        let left = self.unissued(i64::from(self.rules.low_stock).saturating_add(1)).await?;
        let state = allowance::stock_state(self.rules, left);
        if state <= bundle.stock_told {
            return Ok(());
        }
        let Claim { protocol, device, .. } = *self.claim;
        sqlx::query("UPDATE bundle SET stock_told = $4 WHERE account = $1 AND protocol = $2 AND device = $3")
            .bind(self.account)
            .bind(protocol.code())
            .bind(device.to_sql())
            .bind(state)
            .execute(&mut *self.connection)
            .await?;
        notice::add(self.connection, self.account, protocol, Some(device), NoticeKind::LowStock, self.now).await
    }
}

/// The answer that hands out a prekey.
pub(super) fn outcome((id, key): Taken, bundle: BundleKeys, kind: ClaimKind) -> Result<ClaimOutcome, StoreError> {
    let (identity_key, signed_prekey, item_id) = bundle.into_parts()?;
    Ok(ClaimOutcome::Handed { identity_key, signed_prekey, prekey: columns::prekey(id, key)?, item_id, kind })
}

/// Deletes a few of the hand-outs and allowances that are older than a moment.
pub(super) async fn forget(connection: &mut PgConnection, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
    // By the physical place of the rows, which cannot change while they are locked by this very statement.
    let hand_outs = sqlx::query(
        "DELETE FROM last_resort WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM last_resort WHERE claimed_at < $1
             ORDER BY claimed_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
    )
    .bind(before.micros())
    .bind(i64::from(limit))
    .execute(&mut *connection)
    .await?;
    let allowances = sqlx::query(
        "DELETE FROM claim_budget WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM claim_budget WHERE spent_day < $1
             ORDER BY spent_day LIMIT $2 FOR UPDATE SKIP LOCKED))",
    )
    .bind(allowance::day(before.micros()))
    .bind(i64::from(limit))
    .execute(connection)
    .await?;
    Ok(hand_outs.rows_affected().saturating_add(allowances.rows_affected()))
}
