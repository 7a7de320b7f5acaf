//! The history of an owner's devices: appended to by every change, read in pages.
//!
//! Nobody calls [`Chain::append`] but the one function that writes device lists and the one that writes identity keys, so
//! that no change can forget it.

use sqlx::PgConnection;

use crate::model::{HistoryChange, HistoryHead, Owner, Protocol, Timestamp};
use crate::store::StoreError;
use crate::store::columns::{self, KnownIdentity};

use super::device_list;

/// The end of an owner's history, for a change that is about to be made. The caller holds the lock on the account.
pub(super) struct Chain {
    account: i64,
    owner: Owner,
    head: HistoryHead,
    /// When the newest entry was appended.
    at: Timestamp,
}

impl Chain {
    /// Finds the end, before anything is changed: of an account without a history, the state that is there becomes its
    /// first entries.
    pub(super) async fn open(connection: &mut PgConnection, account: i64, now: Timestamp) -> Result<Self, StoreError> {
        let row: columns::ChainEnd = sqlx::query_as(
            "SELECT a.jid, h.position, h.hash, h.at FROM account a
             LEFT JOIN LATERAL (SELECT position, hash, at FROM history WHERE account = a.id
                                ORDER BY position DESC LIMIT 1) h ON true
             WHERE a.id = $1",
        )
        .bind(account)
        .fetch_one(&mut *connection)
        .await?;
        let (owner, end) = row.into_parts()?;
        let (head, at) = end.unwrap_or((HistoryHead::START, now));
        let mut chain = Self { account, owner, head, at };
        if end.is_none() {
            chain.begin(connection, now).await?;
        }
        Ok(chain)
    }

    /// Appends one change.
    pub(super) async fn append(
        &mut self,
        connection: &mut PgConnection,
        protocol: Protocol,
        change: &HistoryChange,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let at = now.max(self.at);
        let head = self.head.after(&self.owner, at, protocol, change);
        sqlx::query(
            "INSERT INTO history (account, position, at, protocol, kind, device, content, hash)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(self.account)
        .bind(columns::position(head.index)?)
        .bind(at.micros())
        .bind(protocol.code())
        .bind(i16::from(change.kind()))
        .bind(columns::changed_device(change))
        .bind(change.content())
        .bind(head.hash.as_slice())
        .execute(connection)
        .await?;
        (self.head, self.at) = (head, at);
        Ok(())
    }

    /// Writes down what was there before there was a history.
    async fn begin(&mut self, connection: &mut PgConnection, now: Timestamp) -> Result<(), StoreError> {
        for protocol in Protocol::ALL {
            let known: Vec<KnownIdentity> = sqlx::query_as(
                "SELECT device, identity_key FROM bundle WHERE account = $1 AND protocol = $2 ORDER BY device",
            )
            .bind(self.account)
            .bind(protocol.code())
            .fetch_all(&mut *connection)
            .await?;
            for identity in known {
                self.append(connection, protocol, &identity.into_change()?, now).await?;
            }
            if let Some(list) = device_list::in_force(connection, self.account, protocol).await? {
                self.append(connection, protocol, &HistoryChange::list(Some(&list)), now).await?;
            }
        }
        Ok(())
    }
}
