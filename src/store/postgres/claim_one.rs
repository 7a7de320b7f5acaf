//! One claim in one statement: a prekey out of a full stock, for somebody who had none of the device. The same rules as in
//! [`super::claim_batch`], without what it takes to tell claims apart; what is not plainly that is left to [`super::claim`].
//! What there is one row of, `deployment`, is read without its key, by which it takes ten microseconds more.

use sqlx::PgConnection;

use crate::model::Timestamp;
use crate::store::allowance;
use crate::store::columns::BundleKeys;
use crate::store::{Claim, ClaimKind, ClaimOutcome, ClaimRules, StoreError};

use super::claim::outcome;

const CLAIM: &str = "
    WITH picked AS MATERIALIZED (
        SELECT b.item_id, b.identity_key, b.signed_prekey_id, b.signed_prekey, b.signed_prekey_signature, stock.row
        FROM (SELECT id FROM account WHERE jid = $1 LIMIT 1) a
        CROSS JOIN LATERAL (SELECT * FROM bundle WHERE account = a.id AND protocol = $2 AND device = $3 LIMIT 1) b
        CROSS JOIN LATERAL (
            SELECT p.ctid AS row FROM prekey p
            WHERE p.account = b.account AND p.protocol = $2 AND p.device = $3 AND p.issued_at IS NULL
            AND p.upload < b.plain_until
            ORDER BY p.upload LIMIT 1 FOR UPDATE SKIP LOCKED) stock
        WHERE b.payload IS NOT NULL
        AND b.plain_rest = $8 AND b.plain_upload = b.next_upload
        AND b.void_epoch >= (SELECT epoch FROM deployment WHERE NOT doubted)
        AND (
            SELECT count(*) FILTER (WHERE h.issued_at > $7) < $9
                   AND count(*) FILTER (WHERE h.claimant = $4 AND h.superseded = 0) = 0
            FROM prekey h WHERE h.account = b.account AND h.protocol = $2 AND h.device = $3
            AND h.claimant >= $5 AND h.claimant < $5 || '0'
            AND substr(h.claimant, length($5) + 1, 1) IN ('', '/', ' '))
        AND NOT EXISTS (
            SELECT FROM last_resort l
            WHERE l.account = b.account AND l.protocol = $2 AND l.device = $3 AND l.claimant = $4))
    UPDATE prekey p SET issued_at = $6, last_issued_at = $6, claimant = $4, superseded = 0, fresh_issues = fresh_issues + 1
    FROM picked WHERE p.ctid = picked.row
    RETURNING p.prekey_id, p.key, picked.item_id, picked.identity_key, picked.signed_prekey_id, picked.signed_prekey,
              picked.signed_prekey_signature";

/// A prekey that was handed out.
#[derive(sqlx::FromRow)]
struct Handed {
    prekey_id: i32,
    key: Vec<u8>,
    #[sqlx(flatten)]
    bundle: BundleKeys,
}

/// Answers the claim, if it can.
pub(super) async fn claim_plain(
    connection: &mut PgConnection,
    claim: &Claim,
    rules: &ClaimRules,
    now: Timestamp,
) -> Result<Option<ClaimOutcome>, StoreError> {
    let claimant = claim.claimant.to_string();
    // The owner's own devices are under no limit: each stands for itself.
    let payer = allowance::payer(claim);
    let limit = payer.as_ref().map_or(i64::MAX, |_| allowance::plainly_per_device(rules));
    let handed: Option<Handed> = sqlx::query_as(CLAIM)
        .bind(claim.owner.as_str())
        .bind(claim.protocol.code())
        .bind(claim.device.to_sql())
        .bind(&claimant)
        .bind(payer.as_ref().map_or(claimant.as_str(), |payer| payer.as_str()))
        .bind(now.micros())
        .bind(now.micros().saturating_sub(allowance::DAY))
        .bind(allowance::plenty(rules))
        .bind(limit)
        .fetch_optional(connection)
        .await?;
    handed.map(|row| outcome((row.prekey_id, row.key), row.bundle, ClaimKind::Fresh)).transpose()
}
