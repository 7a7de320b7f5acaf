//! Which device a session of the owner has been seen to be.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::PgConnection;

use crate::model::{DeviceId, Protocol, Timestamp};
use crate::store::{LearnedSession, SESSIONS_REMEMBERED, StoreError, columns};

/// What is known already is written again only after this long: sessions are learned with every message sent.
const REFRESH: Duration = Duration::from_secs(24 * 3600);

/// Records which devices sessions of known accounts are, each named once, and forgets of each account those longest unseen.
pub(super) async fn learn(
    connection: &mut PgConnection,
    learned: &[&LearnedSession],
    now: Timestamp,
) -> Result<(), StoreError> {
    let written: Vec<(i64, i16)> = sqlx::query_as(
        "INSERT INTO session_device AS known (account, protocol, resource, device, learned_at)
         SELECT a.id, n.protocol, n.resource, n.device, $5
         FROM unnest($1::text[], $2::smallint[], $3::text[], $4::integer[]) WITH ORDINALITY
             AS n (owner, protocol, resource, device, place)
         JOIN account a ON a.jid = n.owner ORDER BY n.place
         ON CONFLICT (account, protocol, resource, device) DO UPDATE SET learned_at = excluded.learned_at
         WHERE known.learned_at < $6
         RETURNING known.account, known.protocol",
    )
    .bind(learned.iter().map(|one| one.owner.as_str()).collect::<Vec<_>>())
    .bind(learned.iter().map(|one| one.protocol.code()).collect::<Vec<_>>())
    .bind(learned.iter().map(|one| one.session.resource()).collect::<Vec<_>>())
    .bind(learned.iter().map(|one| one.device.to_sql()).collect::<Vec<_>>())
    .bind(now.micros())
    .bind(now.minus(REFRESH).micros())
    .fetch_all(&mut *connection)
    .await?;
    if written.is_empty() {
        return Ok(());
    }
    let (accounts, protocols): (Vec<i64>, Vec<i16>) = written.into_iter().collect::<BTreeSet<_>>().into_iter().unzip();
    sqlx::query(
        "DELETE FROM session_device s USING (
             SELECT n.account, n.protocol, k.learned_at FROM unnest($1::bigint[], $2::smallint[]) AS n (account, protocol)
             CROSS JOIN LATERAL (
                 SELECT learned_at FROM session_device WHERE account = n.account AND protocol = n.protocol
                 ORDER BY learned_at DESC OFFSET $3 LIMIT 1) k) oldest
         WHERE s.account = oldest.account AND s.protocol = oldest.protocol AND s.learned_at < oldest.learned_at",
    )
    .bind(accounts)
    .bind(protocols)
    .bind(SESSIONS_REMEMBERED.saturating_sub(1))
    .execute(connection)
    .await?;
    Ok(())
}

/// Every device that a session has been seen to be.
pub(super) async fn devices(
    connection: &mut PgConnection,
    account: i64,
    protocol: Protocol,
    resource: &str,
) -> Result<Vec<DeviceId>, StoreError> {
    let devices: Vec<i32> = sqlx::query_scalar(
        "SELECT device FROM session_device WHERE account = $1 AND protocol = $2 AND resource = $3 ORDER BY device",
    )
    .bind(account)
    .bind(protocol.code())
    .bind(resource)
    .fetch_all(connection)
    .await?;
    columns::devices(devices)
}
