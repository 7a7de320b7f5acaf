//! [`HistoryStore`] on SQLite, and what appends to a history.
//!
//! Nobody calls [`Chain::append`] but the one function that writes device lists and the one that writes identity keys, so
//! that no change can forget it.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::{SqliteStore, account, device_list};
use crate::model::{DeviceId, HistoryChange, HistoryHead, Owner, Protocol, Timestamp};
use crate::store::history_rows::{self as rows, ChainEnd, HistoryRow, KnownIdentity};
use crate::store::{CHANGES_A_DAY, HistoryRead, HistoryStore, RecordedIdentity, StoreError};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The end of an owner's history, for a change that is about to be made.
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
    pub(super) async fn open(
        connection: &mut SqliteConnection,
        account: i64,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let row: ChainEnd = sqlx::query_as(
            "SELECT a.jid, h.position, h.hash, h.at FROM account a
             LEFT JOIN history h ON h.account = a.id
                 AND h.position = (SELECT max(position) FROM history WHERE account = a.id)
             WHERE a.id = ?1",
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

    /// Appends one change, unless there were too many of late.
    pub(super) async fn append(
        &mut self,
        connection: &mut SqliteConnection,
        protocol: Protocol,
        change: &HistoryChange,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if let Some(early) = self.head.index.checked_sub(CHANGES_A_DAY.saturating_sub(1)) {
            let recent: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM history WHERE account = ?1 AND position = ?2 AND at > ?3)",
            )
            .bind(self.account)
            .bind(rows::position(early)?)
            .bind(now.minus(DAY).micros())
            .fetch_one(&mut *connection)
            .await?;
            if recent {
                return Err(StoreError::TooManyChanges);
            }
        }
        self.write(connection, protocol, change, now).await
    }

    async fn write(
        &mut self,
        connection: &mut SqliteConnection,
        protocol: Protocol,
        change: &HistoryChange,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let at = now.max(self.at);
        let head = self.head.after(&self.owner, at, protocol, change);
        sqlx::query(
            "INSERT INTO history (account, position, at, protocol, kind, device, content, hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .bind(self.account)
        .bind(rows::position(head.index)?)
        .bind(at.micros())
        .bind(protocol.code())
        .bind(i16::from(change.kind()))
        .bind(rows::changed_device(change))
        .bind(change.content())
        .bind(head.hash.as_slice())
        .execute(connection)
        .await?;
        (self.head, self.at) = (head, at);
        Ok(())
    }

    /// Writes down what was there before there was a history.
    async fn begin(&mut self, connection: &mut SqliteConnection, now: Timestamp) -> Result<(), StoreError> {
        for protocol in Protocol::ALL {
            let known: Vec<KnownIdentity> = sqlx::query_as(
                "SELECT device, identity_key FROM bundle WHERE account = ?1 AND protocol = ?2 ORDER BY device",
            )
            .bind(self.account)
            .bind(protocol.code())
            .fetch_all(&mut *connection)
            .await?;
            for identity in known {
                self.write(connection, protocol, &identity.into_change()?, now).await?;
            }
            if let Some(list) = device_list::in_force(connection, self.account, protocol).await? {
                self.write(connection, protocol, &HistoryChange::list(Some(&list)), now).await?;
            }
        }
        Ok(())
    }
}

/// Whether an account has devices but no history yet.
async fn is_to_begin(connection: &mut SqliteConnection, account: i64) -> Result<bool, StoreError> {
    let to_begin = sqlx::query_scalar(
        "SELECT NOT EXISTS (SELECT 1 FROM history WHERE account = ?1)
             AND (EXISTS (SELECT 1 FROM bundle WHERE account = ?1)
                  OR EXISTS (SELECT 1 FROM device_list WHERE account = ?1))",
    );
    Ok(to_begin.bind(account).fetch_one(connection).await?)
}

/// The newest entry's place and hash.
async fn head(connection: &mut SqliteConnection, account: i64) -> Result<HistoryHead, StoreError> {
    let newest: Option<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT position, hash FROM history WHERE account = ?1 ORDER BY position DESC LIMIT 1")
            .bind(account)
            .fetch_optional(connection)
            .await?;
    newest.map_or(Ok(HistoryHead::START), |(position, hash)| rows::head(position, hash))
}

/// Whether a history was once at this head.
async fn is_on_chain(connection: &mut SqliteConnection, account: i64, known: &HistoryHead) -> Result<bool, StoreError> {
    if *known == HistoryHead::START {
        return Ok(true);
    }
    let Ok(position) = rows::position(known.index) else { return Ok(false) };
    let on_chain =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM history WHERE account = ?1 AND position = ?2 AND hash = ?3)");
    Ok(on_chain.bind(account).bind(position).bind(known.hash.as_slice()).fetch_one(connection).await?)
}

async fn entries(
    connection: &mut SqliteConnection,
    account: i64,
    known: &HistoryHead,
    limit: u32,
) -> Result<Vec<HistoryRow>, StoreError> {
    let entries = sqlx::query_as(
        "SELECT position, at, protocol, kind, content FROM history WHERE account = ?1 AND position > ?2 ORDER BY position LIMIT ?3",
    );
    Ok(entries.bind(account).bind(rows::position(known.index)?).bind(i64::from(limit)).fetch_all(connection).await?)
}

#[async_trait]
impl HistoryStore for SqliteStore {
    async fn history(
        &self,
        owner: &Owner,
        known: &HistoryHead,
        limit: u32,
        now: Timestamp,
    ) -> Result<HistoryRead, StoreError> {
        let read = || {
            self.snapshot("read-history", |mut db| async move {
                let Some(account) = account::find(&mut db, owner).await? else {
                    let known_is_start = *known == HistoryHead::START;
                    let nothing = HistoryRead::Entries { head: HistoryHead::START, entries: Vec::new() };
                    return Ok(Some(if known_is_start { nothing } else { HistoryRead::NotOnChain }));
                };
                if is_to_begin(&mut db, account).await? {
                    return Ok(None);
                }
                if !is_on_chain(&mut db, account, known).await? {
                    return Ok(Some(HistoryRead::NotOnChain));
                }
                let head = head(&mut db, account).await?;
                let rows = entries(&mut db, account, known, limit).await?;
                let entries = rows.into_iter().map(HistoryRow::into_entry).collect::<Result<_, _>>()?;
                Ok(Some(HistoryRead::Entries { head, entries }))
            })
        };
        if let Some(answer) = read().await? {
            return Ok(answer);
        }
        self.transaction("begin-history", |mut db| async move {
            let Some(account) = account::find(&mut db, owner).await? else { return db.abandon(()).await };
            Chain::open(&mut db, account, now).await?;
            db.commit(()).await
        })
        .await?;
        read().await?.ok_or(StoreError::Corrupt("a history that does not begin"))
    }

    async fn identity_keys(
        &self,
        owner: &Owner,
        protocol: Protocol,
        device: DeviceId,
        limit: u32,
    ) -> Result<Vec<RecordedIdentity>, StoreError> {
        self.snapshot("identity-keys", |mut db| async move {
            let Some(account) = account::find(&mut db, owner).await? else { return Ok(Vec::new()) };
            let rows: Vec<HistoryRow> = sqlx::query_as("SELECT position, at, protocol, kind, content FROM history WHERE account = ?1 AND protocol = ?2 AND device = ?3 AND kind = 3
                 ORDER BY position DESC LIMIT ?4")
            .bind(account)
            .bind(protocol.code())
            .bind(device.to_sql())
            .bind(i64::from(limit))
            .fetch_all(&mut *db)
            .await?;
            rows.into_iter().map(HistoryRow::into_identity).collect()
        })
        .await
    }
}
