//! Claims: one prekey to one requester (DESIGN, directory invariants 1 to 4).
//!
//! The locks, in order. First the requester's own row in `prekey_claim`: its concurrent requests for one device wait there
//! for each other, and the later ones then find what the first one got. Then the prekey. Claims of different requesters
//! skip each other's prekeys. The bundle is read last and without a lock: a publish that withdraws the prekey just taken
//! has to wait for this transaction, so the bundle seen is one that this prekey belongs to.

use sqlx::PgConnection;

use crate::model::Timestamp;
use crate::store::columns::{self, BundleKeys};
use crate::store::transaction::End;
use crate::store::{Claim, ClaimKind, ClaimOutcome, ClaimRules, StoreError};

use super::bundle::Place;

/// Rounds in which new stock may appear while this claim looks at the old one. Each needs a publish of its own.
const ROUNDS: u32 = 16;

const FRESH: &str = "
    WITH picked AS MATERIALIZED (
        SELECT key FROM prekey
        WHERE account = $1 AND protocol = $2 AND device = $3 AND issued_at IS NULL
        ORDER BY upload LIMIT 1 FOR UPDATE SKIP LOCKED)
    UPDATE prekey p SET issued_at = $4, last_issued_at = $4 FROM picked
    WHERE p.account = $1 AND p.protocol = $2 AND p.device = $3 AND p.key = picked.key
    RETURNING p.prekey_id, p.key";

/// The same, but waits for the prekeys that others have locked: they may yet roll back.
const FRESH_WAITING: &str = "
    WITH picked AS MATERIALIZED (
        SELECT key FROM prekey
        WHERE account = $1 AND protocol = $2 AND device = $3 AND issued_at IS NULL
        ORDER BY upload LIMIT 1 FOR UPDATE)
    UPDATE prekey p SET issued_at = $4, last_issued_at = $4 FROM picked
    WHERE p.account = $1 AND p.protocol = $2 AND p.device = $3 AND p.key = picked.key
    RETURNING p.prekey_id, p.key";

const LAST_RESORT: &str = "
    WITH picked AS MATERIALIZED (
        SELECT key FROM prekey
        WHERE account = $1 AND protocol = $2 AND device = $3
        AND issued_at IS NOT NULL AND NOT withdrawn AND consumed_at IS NULL
        ORDER BY last_issued_at, upload LIMIT 1 FOR UPDATE SKIP LOCKED)
    UPDATE prekey p SET last_issued_at = $4 FROM picked
    WHERE p.account = $1 AND p.protocol = $2 AND p.device = $3 AND p.key = picked.key
    RETURNING p.prekey_id, p.key";

const LAST_RESORT_WAITING: &str = "
    WITH picked AS MATERIALIZED (
        SELECT key FROM prekey
        WHERE account = $1 AND protocol = $2 AND device = $3
        AND issued_at IS NOT NULL AND NOT withdrawn AND consumed_at IS NULL
        ORDER BY last_issued_at, upload LIMIT 1 FOR UPDATE)
    UPDATE prekey p SET last_issued_at = $4 FROM picked
    WHERE p.account = $1 AND p.protocol = $2 AND p.device = $3 AND p.key = picked.key
    RETURNING p.prekey_id, p.key";

const HAS_FRESH: &str = "
    SELECT EXISTS (SELECT FROM prekey WHERE account = $1 AND protocol = $2 AND device = $3 AND issued_at IS NULL)";

const HAS_ANY: &str = "
    SELECT EXISTS (SELECT FROM prekey WHERE account = $1 AND protocol = $2 AND device = $3 AND issued_at IS NULL)
        OR EXISTS (SELECT FROM prekey WHERE account = $1 AND protocol = $2 AND device = $3
                   AND issued_at IS NOT NULL AND NOT withdrawn AND consumed_at IS NULL)";

const HAS_BUNDLE: &str = "
    SELECT EXISTS (SELECT FROM bundle WHERE account = $1 AND protocol = $2 AND device = $3 AND payload IS NOT NULL)";

/// Answers a claim, in a transaction of its own. `None`: the device's stock is from before a restore; it is to be made void
/// ([`super::epoch::void`]), in another transaction, before it is claimed from.
pub(super) async fn claim(
    connection: &mut PgConnection,
    claim: &Claim,
    rules: &ClaimRules,
    now: Timestamp,
) -> Result<End<Option<ClaimOutcome>>, StoreError> {
    let Some(earlier) = queue_up(connection, claim, now).await? else {
        return Ok(End::Abandon(Some(ClaimOutcome::NoBundle)));
    };
    if earlier.doubted {
        return Err(StoreError::Unconfirmed);
    }
    if earlier.void_is_due {
        return Ok(End::Abandon(None));
    }
    let mut claiming = Claiming { connection, claim, rules, account: earlier.account, now };
    if let Some(outcome) = claiming.repeat(&earlier).await? {
        return Ok(End::Abandon(Some(outcome)));
    }
    if let Some((prekey, kind)) = claiming.pick().await? {
        return claiming.hand_out(prekey, kind).await;
    }
    let outcome = if claiming.exists(HAS_BUNDLE).await? { ClaimOutcome::NoPrekey } else { ClaimOutcome::NoBundle };
    Ok(End::Abandon(Some(outcome)))
}

/// What the requester got before, if anything.
#[derive(sqlx::FromRow)]
struct Earlier {
    account: i64,
    key: Option<Vec<u8>>,
    last_resort: bool,
    claimed_at: i64,
    doubted: bool,
    void_is_due: bool,
}

/// Locks the requester's row, which is made if there was none. `None` for an unknown account.
async fn queue_up(connection: &mut PgConnection, claim: &Claim, now: Timestamp) -> Result<Option<Earlier>, StoreError> {
    let earlier = sqlx::query_as(
        "INSERT INTO prekey_claim (account, protocol, device, requester, claimed_at)
         SELECT id, $2, $3, $4, $5 FROM account WHERE jid = $1
         ON CONFLICT (account, protocol, device, requester) DO UPDATE SET claimed_at = prekey_claim.claimed_at
         RETURNING account, key, last_resort, claimed_at, (SELECT doubted FROM deployment WHERE one) AS doubted,
             EXISTS (SELECT FROM bundle b, deployment d
                     WHERE b.account = prekey_claim.account AND b.protocol = $2 AND b.device = $3
                     AND d.one AND b.void_epoch < d.epoch) AS void_is_due",
    )
    .bind(claim.owner.as_str())
    .bind(claim.protocol.code())
    .bind(claim.device.to_sql())
    .bind(claim.claimant.to_string())
    .bind(now.micros());
    Ok(earlier.fetch_optional(connection).await?)
}

/// A prekey as its row has it: id and key.
type Taken = (i32, Vec<u8>);

/// A claim in the middle of its transaction.
struct Claiming<'a> {
    connection: &'a mut PgConnection,
    claim: &'a Claim,
    rules: &'a ClaimRules,
    account: i64,
    now: Timestamp,
}

impl Claiming<'_> {
    /// The same answer as before, where that still holds.
    async fn repeat(&mut self, earlier: &Earlier) -> Result<Option<ClaimOutcome>, StoreError> {
        let Some(key) = &earlier.key else { return Ok(None) };
        let age = self.now.since(Timestamp::from_micros(earlier.claimed_at));
        if age >= self.rules.repeat_window || (earlier.last_resort && self.claim.strict) {
            return Ok(None);
        }
        // One statement, so that prekey and bundle are of one moment.
        let row: Option<Handed> = sqlx::query_as(
            "SELECT p.prekey_id, p.key, b.item_id, b.identity_key, b.signed_prekey_id, b.signed_prekey,
                 b.signed_prekey_signature
             FROM prekey_claim c
             JOIN prekey p ON p.account = $1 AND p.protocol = $2 AND p.device = $3 AND p.key = c.key
             JOIN bundle b ON b.account = $1 AND b.protocol = $2 AND b.device = $3
             WHERE c.account = $1 AND c.protocol = $2 AND c.device = $3 AND c.requester = $4 AND c.key = $5
             AND NOT p.withdrawn AND p.consumed_at IS NULL AND b.payload IS NOT NULL AND b.identity_key = c.identity_key",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql())
        .bind(self.claim.claimant.to_string())
        .bind(key)
        .fetch_optional(&mut *self.connection)
        .await?;
        row.map(|row| outcome((row.prekey_id, row.key), row.bundle, ClaimKind::Repeat)).transpose()
    }

    /// The oldest prekey that nobody has, or else the last resort. `None` only if there was a moment without either.
    async fn pick(&mut self) -> Result<Option<(Taken, ClaimKind)>, StoreError> {
        for _ in 0..ROUNDS {
            for statement in [FRESH, FRESH_WAITING] {
                if let Some(prekey) = self.take(statement).await? {
                    return Ok(Some((prekey, ClaimKind::Fresh)));
                }
            }
            // What a statement waited for may have been a publish that took the old ones out and put new ones in, which the
            // statement does not see.
            if self.exists(HAS_FRESH).await? {
                continue;
            }
            if self.claim.strict {
                return Ok(None);
            }
            for statement in [LAST_RESORT, LAST_RESORT_WAITING] {
                if let Some(prekey) = self.take(statement).await? {
                    return Ok(Some((prekey, ClaimKind::LastResort)));
                }
            }
            if !self.exists(HAS_ANY).await? {
                return Ok(None);
            }
        }
        Ok(None)
    }

    async fn take(&mut self, statement: &'static str) -> Result<Option<Taken>, StoreError> {
        let taken = sqlx::query_as(statement)
            .bind(self.account)
            .bind(self.claim.protocol.code())
            .bind(self.claim.device.to_sql())
            .bind(self.now.micros());
        Ok(taken.fetch_optional(&mut *self.connection).await?)
    }

    async fn exists(&mut self, statement: &'static str) -> Result<bool, StoreError> {
        let exists = sqlx::query_scalar(statement)
            .bind(self.account)
            .bind(self.claim.protocol.code())
            .bind(self.claim.device.to_sql());
        Ok(exists.fetch_one(&mut *self.connection).await?)
    }

    /// Writes down who got the prekey, and answers.
    async fn hand_out(self, prekey: Taken, kind: ClaimKind) -> Result<End<Option<ClaimOutcome>>, StoreError> {
        let bundle: Option<BundleKeys> = sqlx::query_as(
            "WITH logged AS (
                 INSERT INTO hand_out (account, protocol, device, key, requester, last_resort, at)
                 VALUES ($1, $2, $3, $5, $4, $6, $7)),
             remembered AS (
                 UPDATE prekey_claim c SET key = $5, identity_key = b.identity_key, last_resort = $6, claimed_at = $7
                 FROM bundle b
                 WHERE c.account = $1 AND c.protocol = $2 AND c.device = $3 AND c.requester = $4
                 AND b.account = $1 AND b.protocol = $2 AND b.device = $3)
             SELECT item_id, identity_key, signed_prekey_id, signed_prekey, signed_prekey_signature
             FROM bundle WHERE account = $1 AND protocol = $2 AND device = $3 AND payload IS NOT NULL",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql())
        .bind(self.claim.claimant.to_string())
        .bind(&prekey.1)
        .bind(kind == ClaimKind::LastResort)
        .bind(self.now.micros())
        .fetch_optional(self.connection)
        .await?;
        // Stock without a bundle cannot be: a retract deletes it, and waits for whoever has locked some of it.
        let bundle = bundle.ok_or(StoreError::Corrupt("a prekey in stock without a bundle"))?;
        outcome(prekey, bundle, kind).map(|outcome| End::Commit(Some(outcome)))
    }
}

/// A repeated answer, as one row.
#[derive(sqlx::FromRow)]
struct Handed {
    prekey_id: i32,
    key: Vec<u8>,
    #[sqlx(flatten)]
    bundle: BundleKeys,
}

fn outcome((id, key): Taken, bundle: BundleKeys, kind: ClaimKind) -> Result<ClaimOutcome, StoreError> {
    let (identity_key, signed_prekey, item_id) = bundle.into_parts()?;
    Ok(ClaimOutcome::Handed { identity_key, signed_prekey, prekey: columns::prekey(id, key)?, item_id, kind })
}

/// From now on nobody gets a prekey of this device because it had one before.
pub(super) async fn forget_repeats(connection: &mut PgConnection, place: Place) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM prekey_claim WHERE account = $1 AND protocol = $2 AND device = $3")
        .bind(place.account)
        .bind(place.protocol.code())
        .bind(place.device.to_sql())
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes a few of the claims made before a moment.
pub(super) async fn forget(connection: &mut PgConnection, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
    // By the physical place of the rows, which cannot change while they are locked by this very statement.
    let forgotten = sqlx::query(
        "DELETE FROM prekey_claim WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM prekey_claim WHERE claimed_at < $1
             ORDER BY claimed_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
    )
    .bind(before.micros())
    .bind(i64::from(limit))
    .execute(connection)
    .await?;
    Ok(forgotten.rows_affected())
}
