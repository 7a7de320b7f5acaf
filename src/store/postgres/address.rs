//! The numbers that stand for the JIDs in an archive. They are given under the lock that orders the writers of the archive,
//! and neither change nor are given again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::PgConnection;

use super::conversation::conversation;
use crate::store::StoreError;
use crate::store::append_plan::{ArchiveEnd, NewEntry};

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
    sqlx::query(concat!(
        "DELETE FROM address d USING unnest($2::integer[]) AS named (number)
         WHERE d.account = $1 AND d.number = named.number
         AND split_part(d.jid, '/', 1) <> (SELECT jid FROM account WHERE id = $1)
         AND NOT EXISTS (SELECT FROM entry WHERE ",
        conversation!("account", "peer"),
        " = ",
        conversation!("$1", "d.number"),
        " AND account + 0 = $1 AND peer = d.number)
         AND NOT EXISTS (SELECT FROM entry WHERE ",
        conversation!("account", "peer_full"),
        " = ",
        conversation!("$1", "d.number"),
        " AND account + 0 = $1 AND peer_full = d.number AND peer_full <> 0)",
    ))
    .bind(account)
    .bind(numbers.into_iter().collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// The numbers of the JIDs that a copy names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    /// The other side's bare JID.
    pub(super) peer: i32,
    /// The other side's full JID, where it has one.
    pub(super) peer_full: i32,
    /// The owner's full JID, where the copy has one.
    pub(super) own_full: i32,
}

/// The numbers for each copy of a plan; JIDs that are new to their archive are written down.
pub(super) async fn numbers(
    connection: &mut PgConnection,
    entries: &[NewEntry<'_>],
    ends: &mut BTreeMap<String, ArchiveEnd>,
) -> Result<Vec<Numbers>, StoreError> {
    let own_full: Vec<Option<String>> = entries.iter().map(own_full).collect();
    let named = entries.iter().zip(&own_full).flat_map(|(entry, own_full)| {
        let jids = [Some(entry.peer.as_str()), peer_full(entry), own_full.as_deref()];
        jids.into_iter().flatten().map(|jid| (entry.account, jid))
    });
    let mut numbers: HashMap<(i64, &str), i32> = named.map(|name| (name, UNKNOWN)).collect();
    let mut names: Vec<(i64, &str)> = numbers.keys().copied().collect();
    // In the order of the index: what is looked up next stands near what was looked up last.
    names.sort_unstable();
    let (accounts, jids): (Vec<i64>, Vec<&str>) = names.into_iter().unzip();
    let known: Vec<(i64, i32)> = sqlx::query_as(
        "SELECT named.place, a.number FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS named (account, jid, place)
         CROSS JOIN LATERAL (SELECT number FROM address
                             WHERE account = named.account AND jid = named.jid LIMIT 1) a",
    )
    .bind(&accounts)
    .bind(&jids)
    .fetch_all(&mut *connection)
    .await?;
    for (place, number) in known {
        let place = usize::try_from(place.saturating_sub(1)).unwrap_or(usize::MAX);
        let name = accounts.get(place).zip(jids.get(place)).ok_or(StoreError::Corrupt("place"))?;
        numbers.insert((*name.0, *name.1), number);
    }
    let mut by_account: HashMap<i64, &mut ArchiveEnd> = ends.values_mut().map(|end| (end.account, end)).collect();
    let mut fresh = Fresh::default();
    for (account, jid) in accounts.into_iter().zip(jids) {
        let Some(number) = numbers.get_mut(&(account, jid)).filter(|number| **number == UNKNOWN) else { continue };
        let end = by_account.get_mut(&account).ok_or(StoreError::Corrupt("an account vanished"))?;
        *number = i32::try_from(end.next_address).map_err(|_| StoreError::Range("address"))?;
        end.next_address = end.next_address.saturating_add(1);
        fresh.accounts.push(account);
        fresh.numbers.push(*number);
        fresh.jids.push(jid);
    }
    fresh.insert(connection).await?;
    let number = |entry: &NewEntry<'_>, jid: Option<&str>| match jid {
        None => Ok(NONE),
        Some(jid) => numbers.get(&(entry.account, jid)).copied().ok_or(StoreError::Corrupt("address")),
    };
    let of = |(entry, own_full): (&NewEntry<'_>, &Option<String>)| {
        Ok(Numbers {
            peer: number(entry, Some(entry.peer.as_str()))?,
            peer_full: number(entry, peer_full(entry))?,
            own_full: number(entry, own_full.as_deref())?,
        })
    };
    entries.iter().zip(&own_full).map(of).collect()
}

/// JIDs that are new to their archives.
#[derive(Default)]
struct Fresh<'a> {
    accounts: Vec<i64>,
    numbers: Vec<i32>,
    jids: Vec<&'a str>,
}

impl Fresh<'_> {
    async fn insert(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        if self.accounts.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO address (account, number, jid) SELECT * FROM unnest($1::bigint[], $2::integer[], $3::text[])",
        )
        .bind(&self.accounts)
        .bind(&self.numbers)
        .bind(&self.jids)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// The other side's full JID, where it has one.
fn peer_full<'a>(entry: &NewEntry<'a>) -> Option<&'a str> {
    entry.copy.peer.resource().map(|_| entry.copy.peer.as_str())
}

/// The owner's full JID, where the copy has one.
fn own_full(entry: &NewEntry<'_>) -> Option<String> {
    entry.copy.own_resource.as_ref().map(|resource| format!("{}/{resource}", entry.copy.owner))
}
