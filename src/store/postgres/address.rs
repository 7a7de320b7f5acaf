//! The numbers that stand for the JIDs in an archive. They are given under the lock that orders the writers of the archive,
//! and neither change nor are given again.

use std::collections::{BTreeSet, HashMap};

use sqlx::PgConnection;

use crate::store::StoreError;
use crate::store::append_plan::{ArchiveEnd, NewEntry, Plan};

/// What a number stands for where there is no JID.
pub(super) const NONE: i32 = 0;
/// A number that no JID has.
pub(super) const UNKNOWN: i32 = -1;

/// JIDs of one archive, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Addresses(HashMap<i32, String>);

impl Addresses {
    /// Those that have these numbers.
    pub(super) async fn read(
        connection: &mut PgConnection,
        account: i64,
        numbers: BTreeSet<i32>,
    ) -> Result<Self, StoreError> {
        let rows: Vec<(i32, String)> = sqlx::query_as(
            "SELECT a.number, a.jid FROM unnest($2::integer[]) AS named (number)
             CROSS JOIN LATERAL (SELECT number, jid FROM address WHERE account = $1 AND number = named.number LIMIT 1) a",
        )
        .bind(account)
        .bind(numbers.into_iter().collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
        Ok(Self(rows.into_iter().collect()))
    }

    /// The JID behind a number.
    pub(super) fn jid(&self, number: i32) -> Result<&str, StoreError> {
        self.0.get(&number).map(String::as_str).ok_or(StoreError::Corrupt("address"))
    }
}

/// The number of a JID, if the archive has one for it.
pub(super) async fn number(connection: &mut PgConnection, account: i64, jid: &str) -> Result<i32, StoreError> {
    let number =
        sqlx::query_scalar("SELECT number FROM address WHERE account = $1 AND jid = $2").bind(account).bind(jid);
    Ok(number.fetch_optional(connection).await?.unwrap_or(UNKNOWN))
}

/// Forgets those of these addresses that no copy names any more: who writes chooses its resource, each time anew if it likes.
/// The owner's own stay. Where somebody appends at this moment, nothing is forgotten: it may be about to name them.
pub(super) async fn forget(
    connection: &mut PgConnection,
    account: i64,
    numbers: BTreeSet<i32>,
) -> Result<(), StoreError> {
    let alone = sqlx::query("SELECT FROM account WHERE id = $1 FOR NO KEY UPDATE SKIP LOCKED").bind(account);
    if alone.fetch_optional(&mut *connection).await?.is_none() {
        return Ok(());
    }
    sqlx::query(
        "DELETE FROM address d USING unnest($2::integer[]) AS named (number)
         WHERE d.account = $1 AND d.number = named.number
         AND split_part(d.jid, '/', 1) <> (SELECT jid FROM account WHERE id = $1)
         AND NOT EXISTS (SELECT FROM entry WHERE account = $1 AND peer = d.number)
         AND NOT EXISTS (SELECT FROM entry WHERE account = $1 AND peer_full = d.number AND peer_full <> 0)",
    )
    .bind(account)
    .bind(numbers.into_iter().collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Numbers for JIDs, by account.
#[derive(Debug, Default)]
pub(super) struct Numbers(HashMap<(i64, String), i32>);

impl Numbers {
    /// Those of all JIDs that the copies of a plan name; new ones are written down.
    pub(super) async fn of(connection: &mut PgConnection, plan: &mut Plan<'_>) -> Result<Self, StoreError> {
        let named: BTreeSet<(i64, String)> = plan.entries.iter().flat_map(named).collect();
        let (accounts, jids): (Vec<i64>, Vec<&str>) =
            named.iter().map(|(account, jid)| (account, jid.as_str())).unzip();
        let rows: Vec<(i64, String, i32)> = sqlx::query_as(
            "SELECT a.account, a.jid, a.number FROM unnest($1::bigint[], $2::text[]) AS named (account, jid)
             CROSS JOIN LATERAL (SELECT account, jid, number FROM address
                                 WHERE account = named.account AND jid = named.jid LIMIT 1) a",
        )
        .bind(&accounts)
        .bind(&jids)
        .fetch_all(&mut *connection)
        .await?;
        let mut numbers: HashMap<(i64, String), i32> =
            rows.into_iter().map(|(account, jid, number)| ((account, jid), number)).collect();
        let mut ends: HashMap<i64, &mut ArchiveEnd> = plan.ends.values_mut().map(|end| (end.account, end)).collect();
        let mut fresh = Vec::new();
        for name in named.iter().filter(|name| !numbers.contains_key(name)).collect::<Vec<_>>() {
            let end = ends.get_mut(&name.0).ok_or(StoreError::Corrupt("an account vanished"))?;
            let number = i32::try_from(end.next_address).map_err(|_| StoreError::Range("address"))?;
            end.next_address = end.next_address.saturating_add(1);
            numbers.insert(name.clone(), number);
            fresh.push((name, number));
        }
        if !fresh.is_empty() {
            sqlx::query(
                "INSERT INTO address (account, number, jid) SELECT * FROM unnest($1::bigint[], $2::integer[], $3::text[])",
            )
            .bind(fresh.iter().map(|(name, _)| name.0).collect::<Vec<_>>())
            .bind(fresh.iter().map(|(_, number)| *number).collect::<Vec<_>>())
            .bind(fresh.iter().map(|(name, _)| name.1.as_str()).collect::<Vec<_>>())
            .execute(connection)
            .await?;
        }
        Ok(Self(numbers))
    }

    /// The number of a JID in the archive of a copy.
    pub(super) fn get(&self, entry: &NewEntry<'_>, jid: Option<String>) -> Result<i32, StoreError> {
        let Some(jid) = jid else { return Ok(NONE) };
        self.0.get(&(entry.account, jid)).copied().ok_or(StoreError::Corrupt("address"))
    }
}

/// The other side's full JID, where it has one.
pub(super) fn peer_full(entry: &NewEntry<'_>) -> Option<String> {
    entry.copy.peer.resource().map(|_| entry.copy.peer.to_string())
}

/// The owner's full JID, where the copy has one.
pub(super) fn own_full(entry: &NewEntry<'_>) -> Option<String> {
    entry.copy.own_resource.as_ref().map(|resource| format!("{}/{resource}", entry.copy.owner))
}

fn named(entry: &NewEntry<'_>) -> impl Iterator<Item = (i64, String)> {
    let account = entry.account;
    let jids = [Some(entry.peer.to_string()), peer_full(entry), own_full(entry)];
    jids.into_iter().flatten().map(move |jid| (account, jid))
}
