//! Many claims in one statement: repeats, and prekeys out of a full stock, which is what nearly all claims come to (DESIGN,
//! directory invariants 1, 2 and 9). What is not plainly one of the two gets no answer here and is left to
//! [`super::claim`]; so is everything after a restore from a backup until the device's old stock is void.
//!
//! The statement is a transaction of its own. Its parts run in the order in which one reads the other: allowances are paid
//! before prekeys are taken. Prekeys that others have locked are skipped and nothing is waited for afterwards, so the only
//! locks that it can wait for are those of allowances, which all claims take in the same order.
//!
//! It sees the database as it was when it began. Two claims of one claimant at once meet at the key `prekey_claimant`: one
//! of them fails as a whole and is answered with care. Two of one account at once meet at its allowance: it is then not
//! what this statement saw, and the later one is answered with care, too, because it would count wrongly.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;

use crate::model::Timestamp;
use crate::store::allowance::{self, Charge, Scope};
use crate::store::columns::BundleKeys;
use crate::store::{Claim, ClaimKind, ClaimOutcome, ClaimRules, StoreError};

use super::claim::outcome;

const CLAIM: &str = "
    WITH asked AS MATERIALIZED (
        SELECT n.*, a.id AS account, h.prekey_id AS held_id, h.key AS held_key, h.good,
               EXISTS (SELECT FROM last_resort l WHERE l.account = a.id AND l.protocol = n.protocol
                       AND l.device = n.device AND l.claimant = n.claimant) AS had_last_resort
        FROM unnest($1::text[], $2::smallint[], $3::integer[], $4::text[], $5::text[], $6::text[]) WITH ORDINALITY
            AS n (owner, protocol, device, claimant, payer, domain, place)
        JOIN account a ON a.jid = n.owner
        JOIN deployment d ON d.one AND NOT d.doubted
        JOIN bundle e ON e.account = a.id AND e.protocol = n.protocol AND e.device = n.device AND e.void_epoch >= d.epoch
        LEFT JOIN LATERAL (
            SELECT p.prekey_id, p.key, p.issued_at > $8 AND NOT p.withdrawn AND p.consumed_at IS NULL AS good
            FROM prekey p WHERE p.account = a.id AND p.protocol = n.protocol AND p.device = n.device
            AND p.claimant = n.claimant AND p.superseded = 0) h ON true),
    wanting AS (
        SELECT *, count(*) OVER in_device AS crowd, count(*) OVER (PARTITION BY account, protocol, device, payer) AS own_crowd,
               row_number() OVER (PARTITION BY account, protocol, device ORDER BY place) AS turn
        FROM asked WHERE held_key IS NULL AND NOT had_last_resort
        WINDOW in_device AS (PARTITION BY account, protocol, device)),
    stocked AS (
        SELECT *, max(CASE WHEN turn = 1 THEN (
                SELECT count(*) FROM (
                    SELECT FROM prekey p WHERE p.account = w.account AND p.protocol = w.protocol AND p.device = w.device
                    AND p.issued_at IS NULL LIMIT w.crowd - 1 + $9) stock) END)
            OVER (PARTITION BY account, protocol, device) AS stock
        FROM wanting w),
    entitled AS MATERIALIZED (
        SELECT * FROM stocked s WHERE stock >= crowd - 1 + $9
        AND (payer IS NULL OR $10 = 4294967295 OR own_crowd + (
            SELECT count(*) FROM (
                SELECT FROM prekey p WHERE p.account = s.account AND p.protocol = s.protocol AND p.device = s.device
                AND p.claimant >= s.payer AND p.claimant < s.payer || '0'
                AND substr(p.claimant, length(s.payer) + 1, 1) IN ('', '/', ' ') AND p.issued_at > $7 - $11
                LIMIT $10) had) <= $10)),
    bill AS MATERIALIZED (
        SELECT 1::smallint AS scope, payer AS name, count(*) * $12 AS cost FROM entitled
        WHERE payer IS NOT NULL AND $12 > 0 GROUP BY payer
        UNION ALL
        SELECT 2, domain, count(*) * $13 FROM entitled WHERE domain IS NOT NULL AND $13 > 0 GROUP BY domain),
    paid AS (
        INSERT INTO claim_budget AS b (scope, name, spent_until, spent_day)
        SELECT scope, name, $7 + cost, $14 FROM bill WHERE cost <= $11 ORDER BY scope, name
        ON CONFLICT (scope, name) DO UPDATE SET spent_day = excluded.spent_day,
            spent_until = greatest(b.spent_until, $7) + excluded.spent_until - $7
        WHERE greatest(b.spent_until, $7) + excluded.spent_until - $7 - $7 <= $11
        RETURNING scope, name, spent_until),
    settled AS MATERIALIZED (
        SELECT p.scope, p.name FROM paid p JOIN bill USING (scope, name)
        LEFT JOIN claim_budget seen ON seen.scope = p.scope AND seen.name = p.name
        WHERE p.scope <> 1 OR p.spent_until = greatest(coalesce(seen.spent_until, 0), $7) + bill.cost),
    served AS MATERIALIZED (
        SELECT *, row_number() OVER (PARTITION BY account, protocol, device ORDER BY place) AS rank,
               count(*) OVER (PARTITION BY account, protocol, device) AS wanted
        FROM entitled
        WHERE (payer IS NULL OR $12 <= 0 OR payer IN (SELECT name FROM settled WHERE scope = 1))
        AND (domain IS NULL OR $13 <= 0 OR domain IN (SELECT name FROM settled WHERE scope = 2))),
    picked AS MATERIALIZED (
        SELECT s.account, s.protocol, s.device, k.key, k.rank FROM served s CROSS JOIN LATERAL (
            SELECT key, row_number() OVER (ORDER BY upload) AS rank FROM (
                SELECT key, upload FROM prekey p
                WHERE p.account = s.account AND p.protocol = s.protocol AND p.device = s.device AND p.issued_at IS NULL
                ORDER BY upload LIMIT s.wanted FOR UPDATE SKIP LOCKED) locked) k
        WHERE s.rank = 1),
    taken AS (
        UPDATE prekey p SET issued_at = $7, last_issued_at = $7, claimant = s.claimant, superseded = 0,
            fresh_issues = fresh_issues + 1
        FROM picked k JOIN served s USING (account, protocol, device, rank)
        WHERE p.account = k.account AND p.protocol = k.protocol AND p.device = k.device AND p.key = k.key
        RETURNING s.place, p.account, p.protocol, p.device, p.prekey_id, p.key)
    SELECT r.*, b.item_id, b.identity_key, b.signed_prekey_id, b.signed_prekey, b.signed_prekey_signature
    FROM (SELECT place, true AS fresh, account, protocol, device, prekey_id, key FROM taken
          UNION ALL
          SELECT place, false, account, protocol, device, held_id, held_key FROM asked WHERE good) r
    JOIN bundle b ON b.account = r.account AND b.protocol = r.protocol AND b.device = r.device
    WHERE b.payload IS NOT NULL";

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
    claims: &[Claim],
    rules: &ClaimRules,
    now: Timestamp,
) -> Result<Vec<Option<ClaimOutcome>>, StoreError> {
    let mut outcomes: Vec<Option<ClaimOutcome>> = claims.iter().map(|_| None).collect();
    let mut asked = BTreeSet::new();
    let (mut places, mut chosen) = (Vec::new(), Vec::new());
    for (place, claim) in claims.iter().enumerate() {
        let claimant = claim.claimant.to_string();
        if asked.insert((&claim.owner, claim.protocol, claim.device, claimant.clone())) {
            places.push(place);
            chosen.push((claim, claimant));
        }
    }
    let costs: BTreeMap<Scope, i64> =
        claims.iter().flat_map(|claim| Charge::of(claim, rules)).map(|charge| (charge.scope, charge.cost)).collect();
    let cost = |scope| costs.get(&scope).copied().unwrap_or(0);
    let payers: Vec<Option<jid::BareJid>> = chosen.iter().map(|(claim, _)| allowance::payer(claim)).collect();
    let domains = chosen.iter().zip(&payers).map(|((claim, _), payer)| {
        payer.as_ref().filter(|_| claim.foreign).map(|payer| payer.domain().as_str().to_owned())
    });
    let rows: Vec<Answered> = sqlx::query_as(CLAIM)
        .bind(chosen.iter().map(|(claim, _)| claim.owner.as_str()).collect::<Vec<_>>())
        .bind(chosen.iter().map(|(claim, _)| claim.protocol.code()).collect::<Vec<_>>())
        .bind(chosen.iter().map(|(claim, _)| claim.device.to_sql()).collect::<Vec<_>>())
        .bind(chosen.iter().map(|(_, claimant)| claimant.as_str()).collect::<Vec<_>>())
        .bind(payers.iter().map(|payer| payer.as_ref().map(|payer| payer.as_str())).collect::<Vec<_>>())
        .bind(domains.collect::<Vec<_>>())
        .bind(now.micros())
        .bind(now.minus(rules.repeat_window).micros())
        .bind(i64::from(allowance::plenty(rules)))
        .bind(i64::from(rules.per_device))
        .bind(allowance::DAY)
        .bind(cost(Scope::Requester))
        .bind(cost(Scope::Domain))
        .bind(allowance::last_day(now))
        .fetch_all(connection)
        .await?;
    for row in rows {
        let place = row.place.checked_sub(1).and_then(|place| usize::try_from(place).ok());
        let place = place.and_then(|place| places.get(place)).ok_or(StoreError::Corrupt("a place in a batch"))?;
        let kind = if row.fresh { ClaimKind::Fresh } else { ClaimKind::Repeat };
        if let Some(answer) = outcomes.get_mut(*place) {
            *answer = Some(outcome((row.prekey_id, row.key), row.bundle, kind)?);
        }
    }
    Ok(outcomes)
}
