//! Prekeys that a key exchange has used up (DESIGN, directory invariant 3).

use sqlx::PgConnection;

use crate::model::{KeyExchange, Timestamp};
use crate::store::StoreError;

/// Marks the prekeys that key exchanges name as consumed, where the sender's account was issued one with that id. Of
/// several that had the id one after the other: the one that this very device or session was issued, else the one still in
/// the bundle, else the newest. One that this very device or session has used up stands before all others': it has sent
/// the same once more, and nothing else is used up.
pub(super) async fn consume(
    connection: &mut PgConnection,
    exchanges: &[&KeyExchange],
    now: Timestamp,
) -> Result<(), StoreError> {
    if exchanges.is_empty() {
        return Ok(());
    }
    let claimants = |place: usize| {
        let nth = move |exchange: &&KeyExchange| exchange.claimants().get(place).map(ToString::to_string);
        exchanges.iter().map(nth).collect::<Vec<_>>()
    };
    sqlx::query(
        "UPDATE prekey p SET consumed_at = $8
         FROM unnest($1::text[], $2::smallint[], $3::integer[], $4::integer[], $5::text[], $6::text[], $7::text[])
             AS n (owner, protocol, device, prekey_id, sender, claimant, or_claimant)
         JOIN account a ON a.jid = n.owner
         CROSS JOIN LATERAL (
             SELECT issued.key FROM (
                 SELECT i.key, i.claimant, i.withdrawn, i.upload, i.consumed_at FROM prekey i
                 WHERE i.account = a.id AND i.protocol = n.protocol AND i.device = n.device
                 AND i.claimant >= n.sender AND i.claimant < n.sender || '0'
                 AND substr(i.claimant, length(n.sender) + 1, 1) IN ('', '/', ' ')
                 AND i.prekey_id = n.prekey_id
                 UNION ALL
                 SELECT i.key, l.claimant, i.withdrawn, i.upload, i.consumed_at FROM last_resort l
                 JOIN prekey i ON i.account = l.account AND i.protocol = l.protocol AND i.device = l.device
                     AND i.key = l.key
                 WHERE l.account = a.id AND l.protocol = n.protocol AND l.device = n.device
                 AND l.claimant >= n.sender AND l.claimant < n.sender || '0'
                 AND substr(l.claimant, length(n.sender) + 1, 1) IN ('', '/', ' ')
                 AND i.prekey_id = n.prekey_id) issued
             ORDER BY coalesce(issued.claimant IN (n.claimant, n.or_claimant), false) DESC,
                 issued.consumed_at IS NOT NULL, issued.withdrawn, issued.upload DESC
             LIMIT 1) used
         WHERE p.account = a.id AND p.protocol = n.protocol AND p.device = n.device AND p.key = used.key
         AND p.consumed_at IS NULL",
    )
    .bind(exchanges.iter().map(|exchange| exchange.owner.as_str()).collect::<Vec<_>>())
    .bind(exchanges.iter().map(|exchange| exchange.protocol.code()).collect::<Vec<_>>())
    .bind(exchanges.iter().map(|exchange| exchange.device.to_sql()).collect::<Vec<_>>())
    .bind(exchanges.iter().map(|exchange| exchange.prekey.to_sql()).collect::<Vec<_>>())
    .bind(exchanges.iter().map(|exchange| exchange.sender.jid().to_bare().to_string()).collect::<Vec<_>>())
    .bind(claimants(0))
    .bind(claimants(1))
    .bind(now.micros())
    .execute(connection)
    .await?;
    Ok(())
}
