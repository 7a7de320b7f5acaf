//! Many claims in one statement: repeats, and prekeys out of a full stock, which is what nearly all claims come to (DESIGN,
//! directory invariants 1, 2 and 9). What is not plainly one of the two gets no answer here and is left to
//! [`super::claim`]; so is everything after a restore from a backup until the device's old stock is void.
//!
//! The statement is a transaction of its own, and it waits for nobody: prekeys that others have locked are skipped. It sees
//! the database as it was when it began, so that of one account's claims only one such statement runs at a time
//! ([`super::credit`]), and only until half of what the account may get of a device: that leaves room for another instance.
//! Two claims of one claimant at once, at two instances, meet at the key `prekey_claimant`: one of them fails as a whole and
//! is answered with care.
//!
//! Each part reads rows by the whole key of one index. A `LIMIT 1`, or a count, keeps PostgreSQL from merging a part with
//! others: it would then choose by statistics, read whole tables while they are small, and the plan is kept.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;

use crate::model::Timestamp;
use crate::store::allowance;
use crate::store::columns::BundleKeys;
use crate::store::{Claim, ClaimKind, ClaimOutcome, ClaimRules, StoreError};

use super::claim::outcome;

/// The statement, with the part that finds and locks the row of a prekey for each claim that wants one.
macro_rules! claim {
    ($served:literal) => {
        concat!(
            "
    WITH asked AS MATERIALIZED (
        SELECT n.place, n.protocol, n.device, n.claimant, b.account, b.plain_until, b.item_id, b.identity_key,
               b.signed_prekey_id, b.signed_prekey, b.signed_prekey_signature, h.held_id, h.held_key, h.good,
               h.held_key IS NULL AND b.plain_rest = $10 AND b.plain_upload = b.next_upload
               AND h.had <= n.most AND NOT EXISTS (
                   SELECT FROM last_resort l WHERE l.account = b.account AND l.protocol = n.protocol AND l.device = n.device
                   AND l.claimant = n.claimant) AS wants
        FROM unnest($1::text[], $2::smallint[], $3::integer[], $4::text[], $5::text[], $6::bigint[]) WITH ORDINALITY
            AS n (owner, protocol, device, claimant, payer, most, place)
        CROSS JOIN LATERAL (SELECT id FROM account WHERE jid = n.owner LIMIT 1) a
        CROSS JOIN LATERAL (
            SELECT * FROM bundle WHERE account = a.id AND protocol = n.protocol AND device = n.device LIMIT 1) b
        CROSS JOIN LATERAL (
            SELECT count(*) FILTER (WHERE p.issued_at > $9) AS had,
                   min(p.prekey_id) FILTER (WHERE p.claimant = n.claimant AND p.superseded = 0) AS held_id,
                   (array_agg(p.key) FILTER (WHERE p.claimant = n.claimant AND p.superseded = 0))[1] AS held_key,
                   bool_and(p.issued_at > $8 AND NOT p.withdrawn AND p.consumed_at IS NULL)
                       FILTER (WHERE p.claimant = n.claimant AND p.superseded = 0) AS good
            FROM prekey p WHERE p.account = b.account AND p.protocol = n.protocol AND p.device = n.device
            AND p.claimant >= n.payer AND p.claimant < n.payer || '0'
            AND substr(p.claimant, length(n.payer) + 1, 1) IN ('', '/', ' ')) h
        WHERE b.payload IS NOT NULL AND b.void_epoch >= (SELECT epoch FROM deployment WHERE NOT doubted)),
    ",
            $served,
            ",
    taken AS (
        UPDATE prekey p SET issued_at = $7, last_issued_at = $7, claimant = s.claimant, superseded = 0,
            fresh_issues = fresh_issues + 1
        FROM served s WHERE p.ctid = s.row
        RETURNING s.place, p.prekey_id, p.key, s.item_id, s.identity_key, s.signed_prekey_id, s.signed_prekey,
            s.signed_prekey_signature)
    SELECT *, true AS fresh FROM taken
    UNION ALL
    SELECT place, held_id, held_key, item_id, identity_key, signed_prekey_id, signed_prekey, signed_prekey_signature, false
    FROM asked WHERE good"
        )
    };
}

/// Claims of which each is for another device.
const APART: &str = claim!(
    "served AS MATERIALIZED (
        SELECT a.*, stock.row FROM asked a CROSS JOIN LATERAL (
            SELECT p.ctid AS row FROM prekey p
            WHERE p.account = a.account AND p.protocol = a.protocol AND p.device = a.device AND p.issued_at IS NULL
            AND p.upload < a.plain_until
            ORDER BY p.upload LIMIT 1 FOR UPDATE SKIP LOCKED) stock
        WHERE a.wants)"
);

/// Claims of which some are for the same device. Its stock is read for the first of them: a condition of the join would come
/// too late, when it has been read for each. The windows take an eighth of a small batch's time.
const TOGETHER: &str = claim!(
    "queued AS (
        SELECT *, count(*) OVER in_device AS crowd, row_number() OVER (in_device ORDER BY place) AS turn
        FROM asked WHERE wants
        WINDOW in_device AS (PARTITION BY account, protocol, device)),
    served AS MATERIALIZED (
        SELECT q.*, (max(stock.rows) OVER (PARTITION BY q.account, q.protocol, q.device))[q.turn] AS row
        FROM queued q LEFT JOIN LATERAL (
            SELECT array_agg(row) AS rows FROM (
                SELECT p.ctid AS row FROM prekey p
                WHERE p.account = q.account AND p.protocol = q.protocol AND p.device = q.device AND p.issued_at IS NULL
                AND p.upload < q.plain_until
                ORDER BY p.upload LIMIT q.crowd FOR UPDATE SKIP LOCKED) taken
            WHERE q.turn = 1) stock ON true)"
);

/// An answered claim.
#[derive(sqlx::FromRow)]
struct Answered {
    place: i64,
    fresh: bool,
    prekey_id: i32,
    key: Vec<u8>,
    #[sqlx(flatten)]
    bundle: BundleKeys,
}

/// Answers those claims that it can, each in its place. Of several claims of one claimant for one device, the first.
pub(super) async fn claim_plain(
    connection: &mut PgConnection,
    claims: &[(usize, &Claim)],
    rules: &ClaimRules,
    now: Timestamp,
) -> Result<Vec<(usize, ClaimOutcome)>, StoreError> {
    let mut seen = BTreeSet::new();
    let mut crowds: BTreeMap<_, i64> = BTreeMap::new();
    let mut asked = Vec::with_capacity(claims.len());
    for (place, claim) in claims {
        let (claimant, payer) = (claim.claimant.to_string(), allowance::payer(claim));
        if seen.insert((&claim.owner, claim.protocol, claim.device, claimant.clone())) {
            let crowd = crowds.entry((&claim.owner, claim.protocol, claim.device, payer.clone())).or_default();
            *crowd = crowd.saturating_add(1);
            asked.push((*place, *claim, claimant, payer));
        }
    }
    // What an account may have had of the device before all its claims here. The owner's own devices are under no limit:
    // each stands for itself.
    let most = asked.iter().map(|(_, claim, _, payer)| match payer {
        None => i64::MAX,
        Some(_) => {
            let crowd = crowds.get(&(&claim.owner, claim.protocol, claim.device, payer.clone())).copied().unwrap_or(0);
            allowance::plainly_per_device(rules).saturating_sub(crowd)
        }
    });
    let devices: BTreeSet<_> =
        asked.iter().map(|(_, claim, ..)| (&claim.owner, claim.protocol, claim.device)).collect();
    let statement = if devices.len() == asked.len() { APART } else { TOGETHER };
    let rows: Vec<Answered> = sqlx::query_as(statement)
        .bind(asked.iter().map(|(_, claim, ..)| claim.owner.as_str()).collect::<Vec<_>>())
        .bind(asked.iter().map(|(_, claim, ..)| claim.protocol.code()).collect::<Vec<_>>())
        .bind(asked.iter().map(|(_, claim, ..)| claim.device.to_sql()).collect::<Vec<_>>())
        .bind(asked.iter().map(|(_, _, claimant, _)| claimant.as_str()).collect::<Vec<_>>())
        .bind(
            asked
                .iter()
                .map(|(_, _, claimant, payer)| payer.as_ref().map_or(claimant.as_str(), |payer| payer.as_str()))
                .collect::<Vec<_>>(),
        )
        .bind(most.collect::<Vec<_>>())
        .bind(now.micros())
        .bind(now.minus(rules.repeat_window).micros())
        .bind(now.micros().saturating_sub(allowance::DAY))
        .bind(allowance::plenty(rules))
        .fetch_all(connection)
        .await?;
    let answer = |row: Answered| {
        let asked = row.place.checked_sub(1).and_then(|place| asked.get(usize::try_from(place).ok()?));
        let (place, ..) = asked.ok_or(StoreError::Corrupt("a place in a batch"))?;
        let kind = if row.fresh { ClaimKind::Fresh } else { ClaimKind::Repeat };
        Ok((*place, outcome((row.prekey_id, row.key), row.bundle, kind)?))
    };
    rows.into_iter().map(answer).collect()
}
