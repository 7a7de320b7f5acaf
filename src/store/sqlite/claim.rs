//! Claims: one prekey to one requester (DESIGN, directory invariants 1 to 4). The write lock makes claims happen one after
//! the other.

use sqlx::SqliteConnection;

use crate::model::Timestamp;
use crate::store::columns::{self, BundleKeys};
use crate::store::transaction::End;
use crate::store::{Claim, ClaimKind, ClaimOutcome, ClaimRules, StoreError};

use super::bundle::Place;
use super::{account, epoch};

const FRESH: &str = "
    UPDATE prekey SET issued_at = ?4, last_issued_at = ?4
    WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND key =
        (SELECT key FROM prekey WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND issued_at IS NULL
         ORDER BY upload LIMIT 1)
    RETURNING prekey_id, key";

const LAST_RESORT: &str = "
    UPDATE prekey SET last_issued_at = ?4
    WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND key =
        (SELECT key FROM prekey WHERE account = ?1 AND protocol = ?2 AND device = ?3
         AND issued_at IS NOT NULL AND NOT withdrawn AND consumed_at IS NULL
         ORDER BY last_issued_at, upload LIMIT 1)
    RETURNING prekey_id, key";

/// Answers a claim, in a transaction of its own.
pub(super) async fn claim(
    connection: &mut SqliteConnection,
    claim: &Claim,
    rules: &ClaimRules,
    now: Timestamp,
) -> Result<End<ClaimOutcome>, StoreError> {
    let Some(account) = account::find(connection, &claim.owner).await? else {
        return Ok(End::Abandon(ClaimOutcome::NoBundle));
    };
    if epoch::is_doubted(connection).await? {
        return Err(StoreError::Unconfirmed);
    }
    epoch::void(connection, Place { account, protocol: claim.protocol, device: claim.device }, now).await?;
    let mut claiming = Claiming { connection, claim, rules, account, now };
    let Some(bundle) = claiming.bundle().await? else {
        return Ok(End::Abandon(ClaimOutcome::NoBundle));
    };
    let (prekey, kind) = if let Some(prekey) = claiming.repeat(&bundle).await? {
        return outcome(prekey, bundle, ClaimKind::Repeat).map(End::Abandon);
    } else if let Some(prekey) = claiming.take(FRESH).await? {
        (prekey, ClaimKind::Fresh)
    } else if claim.strict {
        return Ok(End::Abandon(ClaimOutcome::NoPrekey));
    } else if let Some(prekey) = claiming.take(LAST_RESORT).await? {
        (prekey, ClaimKind::LastResort)
    } else {
        return Ok(End::Abandon(ClaimOutcome::NoPrekey));
    };
    claiming.write_down(&prekey, &bundle, kind).await?;
    outcome(prekey, bundle, kind).map(End::Commit)
}

/// A prekey as its row has it: id and key.
type Taken = (i32, Vec<u8>);

/// A claim in the middle of its transaction.
struct Claiming<'a> {
    connection: &'a mut SqliteConnection,
    claim: &'a Claim,
    rules: &'a ClaimRules,
    account: i64,
    now: Timestamp,
}

impl Claiming<'_> {
    async fn bundle(&mut self) -> Result<Option<BundleKeys>, StoreError> {
        let bundle = sqlx::query_as(
            "SELECT item_id, identity_key, signed_prekey_id, signed_prekey, signed_prekey_signature FROM bundle
             WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND payload IS NOT NULL",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql());
        Ok(bundle.fetch_optional(&mut *self.connection).await?)
    }

    /// What the requester got before, where that still holds.
    async fn repeat(&mut self, bundle: &BundleKeys) -> Result<Option<Taken>, StoreError> {
        let earlier: Option<(i64, bool, i32, Vec<u8>)> = sqlx::query_as(
            "SELECT c.claimed_at, c.last_resort, p.prekey_id, p.key FROM prekey_claim c
             JOIN prekey p ON p.account = c.account AND p.protocol = c.protocol AND p.device = c.device AND p.key = c.key
             WHERE c.account = ?1 AND c.protocol = ?2 AND c.device = ?3 AND c.requester = ?4 AND c.identity_key = ?5
             AND NOT p.withdrawn AND p.consumed_at IS NULL",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql())
        .bind(self.claim.claimant.to_string())
        .bind(&bundle.identity_key)
        .fetch_optional(&mut *self.connection)
        .await?;
        let holds = |claimed_at, last_resort: bool| {
            let age = self.now.since(Timestamp::from_micros(claimed_at));
            age < self.rules.repeat_window && !(last_resort && self.claim.strict)
        };
        Ok(earlier.and_then(|(claimed_at, last_resort, id, key)| holds(claimed_at, last_resort).then_some((id, key))))
    }

    async fn take(&mut self, statement: &'static str) -> Result<Option<Taken>, StoreError> {
        let taken = sqlx::query_as(statement)
            .bind(self.account)
            .bind(self.claim.protocol.code())
            .bind(self.claim.device.to_sql())
            .bind(self.now.micros());
        Ok(taken.fetch_optional(&mut *self.connection).await?)
    }

    /// Writes down who got the prekey.
    async fn write_down(self, prekey: &Taken, bundle: &BundleKeys, kind: ClaimKind) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO hand_out (account, protocol, device, requester, key, last_resort, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql())
        .bind(self.claim.claimant.to_string())
        .bind(&prekey.1)
        .bind(kind == ClaimKind::LastResort)
        .bind(self.now.micros())
        .execute(&mut *self.connection)
        .await?;
        sqlx::query(
            "INSERT INTO prekey_claim (account, protocol, device, requester, key, last_resort, claimed_at, identity_key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (account, protocol, device, requester) DO UPDATE SET key = excluded.key,
                 last_resort = excluded.last_resort, claimed_at = excluded.claimed_at,
                 identity_key = excluded.identity_key",
        )
        .bind(self.account)
        .bind(self.claim.protocol.code())
        .bind(self.claim.device.to_sql())
        .bind(self.claim.claimant.to_string())
        .bind(&prekey.1)
        .bind(kind == ClaimKind::LastResort)
        .bind(self.now.micros())
        .bind(&bundle.identity_key)
        .execute(self.connection)
        .await?;
        Ok(())
    }
}

fn outcome((id, key): Taken, bundle: BundleKeys, kind: ClaimKind) -> Result<ClaimOutcome, StoreError> {
    let (identity_key, signed_prekey, item_id) = bundle.into_parts()?;
    Ok(ClaimOutcome::Handed { identity_key, signed_prekey, prekey: columns::prekey(id, key)?, item_id, kind })
}

/// From now on nobody gets a prekey of this device because it had one before.
pub(super) async fn forget_repeats(connection: &mut SqliteConnection, place: Place) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM prekey_claim WHERE account = ?1 AND protocol = ?2 AND device = ?3")
        .bind(place.account)
        .bind(place.protocol.code())
        .bind(place.device.to_sql())
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes a few of the claims made before a moment.
pub(super) async fn forget(
    connection: &mut SqliteConnection,
    before: Timestamp,
    limit: u32,
) -> Result<u64, StoreError> {
    let old: Vec<(i64, i16, i32, String)> = sqlx::query_as(
        "SELECT account, protocol, device, requester FROM prekey_claim WHERE claimed_at < ?1
         ORDER BY claimed_at LIMIT ?2",
    )
    .bind(before.micros())
    .bind(i64::from(limit))
    .fetch_all(&mut *connection)
    .await?;
    for (account, protocol, device, requester) in &old {
        sqlx::query("DELETE FROM prekey_claim WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND requester = ?4")
            .bind(account)
            .bind(protocol)
            .bind(device)
            .bind(requester)
            .execute(&mut *connection)
            .await?;
    }
    Ok(u64::try_from(old.len()).unwrap_or(u64::MAX))
}
