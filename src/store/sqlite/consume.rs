//! Prekeys that a key exchange has used up (DESIGN, directory invariant 3).

use sqlx::SqliteConnection;

use crate::model::{KeyExchange, Timestamp};
use crate::store::StoreError;

/// Marks the prekeys that key exchanges name as consumed, where the sender's account was issued one with that id. Of
/// several that had the id one after the other: the one that this very device or session was issued, else the one still in
/// the bundle, else the newest. One that this very device or session has used up stands before all others': it has sent
/// the same once more, and nothing else is used up.
pub(super) async fn consume(
    connection: &mut SqliteConnection,
    exchanges: &[&KeyExchange],
    now: Timestamp,
) -> Result<(), StoreError> {
    for exchange in exchanges {
        let claimants: Vec<String> = exchange.claimants().iter().map(ToString::to_string).collect();
        sqlx::query(
            "UPDATE prekey SET consumed_at = ?8
             WHERE account = (SELECT id FROM account WHERE jid = ?1) AND protocol = ?2 AND device = ?3 AND key = (
                 SELECT key FROM (
                     SELECT i.key, i.claimant, i.withdrawn, i.upload, i.consumed_at FROM prekey i INDEXED BY prekey_claimant
                     WHERE i.account = (SELECT id FROM account WHERE jid = ?1) AND i.protocol = ?2 AND i.device = ?3
                     AND i.claimant >= ?5 AND i.claimant < ?5 || '0'
                     AND substr(i.claimant, length(?5) + 1, 1) IN ('', '/', ' ')
                     AND i.prekey_id = ?4
                     UNION ALL
                     SELECT i.key, l.claimant, i.withdrawn, i.upload, i.consumed_at FROM last_resort l
                     JOIN prekey i ON i.account = l.account AND i.protocol = l.protocol AND i.device = l.device
                         AND i.key = l.key
                     WHERE l.account = (SELECT id FROM account WHERE jid = ?1) AND l.protocol = ?2 AND l.device = ?3
                     AND l.claimant >= ?5 AND l.claimant < ?5 || '0'
                     AND substr(l.claimant, length(?5) + 1, 1) IN ('', '/', ' ')
                     AND i.prekey_id = ?4)
                 ORDER BY coalesce(claimant IN (?6, ?7), 0) DESC, consumed_at IS NOT NULL, withdrawn, upload DESC LIMIT 1)
             AND consumed_at IS NULL",
        )
        .bind(exchange.owner.as_str())
        .bind(exchange.protocol.code())
        .bind(exchange.device.to_sql())
        .bind(exchange.prekey.to_sql())
        .bind(exchange.sender.jid().to_bare().as_str())
        .bind(claimants.first())
        .bind(claimants.get(1))
        .bind(now.micros())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
