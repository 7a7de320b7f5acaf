//! [`ClaimStore`] on PostgreSQL: each operation with the transaction that it runs in.

use async_trait::async_trait;
use tracing::warn;

use super::claim::Claimed;
use super::{PostgresStore, account, claim, claim_batch, claim_one};
use crate::model::{DeviceId, Owner, PrekeyId, Protocol, SessionJid, Timestamp};
use crate::store::{Claim, ClaimKind, ClaimOutcome, ClaimRules, ClaimStore, StoreError, columns};

/// Most claims of one statement: it compares some of its rows with all the others.
const BATCH: usize = 64;

impl PostgresStore {
    /// Answers what is plainly a repeat or a prekey out of a full stock, each in its place.
    async fn claim_plain(
        &self,
        claims: &[Claim],
        rules: &ClaimRules,
        now: Timestamp,
    ) -> Result<Vec<Option<ClaimOutcome>>, StoreError> {
        let mut outcomes: Vec<Option<ClaimOutcome>> = claims.iter().map(|_| None).collect();
        let admitted = self.credit.admit(claims, rules, now);
        let plain: Vec<(usize, &Claim)> = claims.iter().enumerate().filter(|(place, _)| admitted.has(*place)).collect();
        let answered = match plain.as_slice() {
            [] => Ok(Vec::new()),
            [(place, claim)] => self
                .each("claim-one", |mut db| async move { claim_one::claim_plain(&mut db, claim, rules, now).await })
                .await
                .map(|outcome| outcome.map(|outcome| (*place, outcome)).into_iter().collect()),
            plain => {
                self.each(
                    "claim-batch",
                    |mut db| async move { claim_batch::claim_plain(&mut db, plain, rules, now).await },
                )
                .await
            }
        };
        let answered = match answered {
            // Another claim of one of the claimants came between, at another instance.
            Err(error) if error.is_conflict() => Vec::new(),
            // It may have been committed all the same: then it was on credit.
            answered => answered?,
        };
        for (place, outcome) in answered {
            if let Some(answer) = outcomes.get_mut(place) {
                *answer = Some(outcome);
            }
        }
        for (place, claim) in plain {
            let outcome = outcomes.get(place).and_then(Option::as_ref);
            if !matches!(outcome, Some(ClaimOutcome::Handed { kind: ClaimKind::Fresh, .. })) {
                admitted.give_back(claim, rules);
            }
        }
        Ok(outcomes)
    }

    async fn claim_with_care(
        &self,
        claim: &Claim,
        rules: &ClaimRules,
        now: Timestamp,
    ) -> Result<ClaimOutcome, StoreError> {
        let _turn = self.credit.turn(claim).await;
        let bill = self.credit.bill(claim, rules, now);
        let bill = bill.as_slice();
        loop {
            let claimed = self.transaction("claim", |mut db| async move {
                let end = claim::claim(&mut db, claim, bill, rules, now).await?;
                db.end(end).await
            });
            match claimed.await? {
                Claimed::Free(outcome) => return Ok(outcome),
                Claimed::Charged(outcome, spent_until) => {
                    self.credit.paid(bill, &spent_until, now);
                    return Ok(outcome);
                }
                Claimed::VoidIsDue => self.void_before_claim(&claim.owner, claim.protocol, claim.device, now).await?,
            }
        }
    }
}

#[async_trait]
impl ClaimStore for PostgresStore {
    async fn claim(&self, claim: &Claim, rules: &ClaimRules, now: Timestamp) -> Result<ClaimOutcome, StoreError> {
        match self.claim_plain(std::slice::from_ref(claim), rules, now).await?.pop().flatten() {
            Some(outcome) => Ok(outcome),
            None => self.claim_with_care(claim, rules, now).await,
        }
    }

    async fn claim_many(
        &self,
        claims: &[Claim],
        rules: &ClaimRules,
        now: Timestamp,
    ) -> Vec<Result<ClaimOutcome, StoreError>> {
        let mut outcomes = Vec::with_capacity(claims.len());
        for claims in claims.chunks(BATCH) {
            let plain = match self.claim_plain(claims, rules, now).await {
                Ok(plain) => plain,
                // Not worth asking again for each of them.
                Err(error @ StoreError::Unavailable(_)) => {
                    outcomes.extend(claims.iter().map(|_| Err(error.shared())));
                    continue;
                }
                Err(error) => {
                    warn!(%error, claims = claims.len(), "a batch of claims failed and is answered one by one");
                    claims.iter().map(|_| None).collect()
                }
            };
            for (claim, answer) in claims.iter().zip(plain) {
                outcomes.push(match answer {
                    Some(outcome) => Ok(outcome),
                    None => self.claim_with_care(claim, rules, now).await,
                });
            }
        }
        outcomes
    }

    async fn certain_devices(&self, sessions: &[(SessionJid, Protocol)]) -> Result<Vec<Option<DeviceId>>, StoreError> {
        let accounts: Vec<String> = sessions.iter().map(|(session, _)| session.jid().to_bare().to_string()).collect();
        let resources: Vec<&str> = sessions.iter().map(|(session, _)| session.resource()).collect();
        let protocols: Vec<i16> = sessions.iter().map(|(_, protocol)| protocol.code()).collect();
        let devices: Vec<Option<i32>> = self
            .each("certain-devices", |mut db| async move {
                let devices = sqlx::query_scalar(
                    "SELECT (SELECT CASE count(*) WHEN 1 THEN min(s.device) END
                             FROM account a JOIN session_device s ON s.account = a.id
                             WHERE a.jid = n.account AND s.protocol = n.protocol AND s.resource = n.resource)
                     FROM unnest($1::text[], $2::text[], $3::smallint[]) WITH ORDINALITY
                         AS n (account, resource, protocol, place)
                     ORDER BY n.place",
                )
                .bind(accounts)
                .bind(resources)
                .bind(protocols);
                Ok(devices.fetch_all(&mut *db).await?)
            })
            .await?;
        devices.into_iter().map(|device| device.map(columns::device).transpose()).collect()
    }

    async fn consumed_prekeys(
        &self,
        owner: &Owner,
        protocol: Protocol,
        device: DeviceId,
        limit: u32,
    ) -> Result<Vec<PrekeyId>, StoreError> {
        self.each("consumed-prekeys", |mut db| async move {
            let Some(account) = account::find(&mut db, owner).await? else { return Ok(Vec::new()) };
            let ids: Vec<i32> = sqlx::query_scalar(
                "SELECT prekey_id FROM prekey
                 WHERE account = $1 AND protocol = $2 AND device = $3 AND consumed_at IS NOT NULL
                 ORDER BY consumed_at DESC LIMIT $4",
            )
            .bind(account)
            .bind(protocol.code())
            .bind(device.to_sql())
            .bind(i64::from(limit))
            .fetch_all(&mut *db)
            .await?;
            ids.into_iter().map(columns::prekey_id).collect()
        })
        .await
    }

    async fn forget_claims(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.each("forget-claims", |mut db| async move { claim::forget(&mut db, before, limit).await }).await
    }
}
