//! [`ClaimStore`] on SQLite: each operation with the transaction that it runs in.

use async_trait::async_trait;

use super::{SqliteStore, account, claim, session};
use crate::model::{DeviceId, Owner, PrekeyId, Protocol, SessionJid, Timestamp};
use crate::store::{Claim, ClaimOutcome, ClaimRules, ClaimStore, StoreError, columns};

#[async_trait]
impl ClaimStore for SqliteStore {
    async fn claim(&self, claim: &Claim, rules: &ClaimRules, now: Timestamp) -> Result<ClaimOutcome, StoreError> {
        self.transaction("claim", |mut db| async move {
            let end = claim::claim(&mut db, claim, rules, now).await?;
            db.end(end).await
        })
        .await
    }

    async fn claim_many(
        &self,
        claims: &[Claim],
        rules: &ClaimRules,
        now: Timestamp,
    ) -> Vec<Result<ClaimOutcome, StoreError>> {
        let mut outcomes = Vec::with_capacity(claims.len());
        for claim in claims {
            outcomes.push(self.claim(claim, rules, now).await);
        }
        outcomes
    }

    async fn certain_devices(&self, sessions: &[(SessionJid, Protocol)]) -> Result<Vec<Option<DeviceId>>, StoreError> {
        self.snapshot("certain-devices", |mut db| async move {
            let mut certain = Vec::with_capacity(sessions.len());
            for (session, protocol) in sessions {
                let account: Option<i64> = sqlx::query_scalar("SELECT id FROM account WHERE jid = ?1")
                    .bind(session.jid().to_bare().as_str())
                    .fetch_optional(&mut *db)
                    .await?;
                let Some(account) = account else {
                    certain.push(None);
                    continue;
                };
                let devices = session::devices(&mut db, account, *protocol, session.resource()).await?;
                let [device] = devices.as_slice() else {
                    certain.push(None);
                    continue;
                };
                certain.push(Some(*device));
            }
            db.abandon(certain).await
        })
        .await
    }

    async fn consumed_prekeys(
        &self,
        owner: &Owner,
        protocol: Protocol,
        device: DeviceId,
        limit: u32,
    ) -> Result<Vec<PrekeyId>, StoreError> {
        self.snapshot("consumed-prekeys", |mut db| async move {
            let Some(account) = account::find(&mut db, owner).await? else { return db.abandon(Vec::new()).await };
            let ids: Vec<i32> = sqlx::query_scalar(
                "SELECT prekey_id FROM prekey
                 WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND consumed_at IS NOT NULL
                 ORDER BY consumed_at DESC LIMIT ?4",
            )
            .bind(account)
            .bind(protocol.code())
            .bind(device.to_sql())
            .bind(i64::from(limit))
            .fetch_all(&mut *db)
            .await?;
            let ids = ids.into_iter().map(columns::prekey_id).collect::<Result<_, _>>()?;
            db.abandon(ids).await
        })
        .await
    }

    async fn forget_claims(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.transaction("forget-claims", |mut db| async move {
            let done = claim::forget(&mut db, before, limit).await?;
            db.commit(done).await
        })
        .await
    }
}
