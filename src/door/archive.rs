//! Answers requests for an archive, the same through every door; only the addresses differ.

use std::collections::BTreeSet;

use async_trait::async_trait;
use jid::Jid;

use super::request::Request;
use super::service::{Addressing, Answer};
use crate::archive::ingest::IngestHandle;
use crate::archive::query::{Archive, Item, QueryError};
use crate::archive::read::ReadError;
use crate::model::{ArchivePreferences, Owner};
use crate::stanza::error::{Condition, StanzaError};
use crate::stanza::mam::{self, Query, RequestError};
use crate::stanza::message::assemble;
use crate::stanza::read::Read;

/// Tells when everything that was accepted before has been stored.
#[async_trait]
pub trait Settled: Send + Sync {
    /// Returns then.
    async fn settled(&self);
}

#[async_trait]
impl<T: Send + Sync> Settled for IngestHandle<T> {
    async fn settled(&self) {
        // A writer that has ended has stored everything.
        let _ = self.barrier().await;
    }
}

/// Answers one request.
pub(super) async fn answer(
    archive: &Archive,
    request: Request<mam::Request>,
    addressing: &dyn Addressing,
) -> Result<Answer, StanzaError> {
    let Request { requester, owner, payload, .. } = request;
    match payload {
        mam::Request::Form => Ok(Answer::result(mam::form())),
        mam::Request::Metadata => {
            let ends = archive.metadata(&owner, &requester).await.map_err(query_error)?;
            Ok(Answer::result(mam::metadata(ends.as_ref())))
        }
        mam::Request::Preferences => {
            let preferences = archive.preferences(&owner, &requester).await.map_err(query_error)?;
            Ok(Answer::result(written(&preferences, addressing)))
        }
        mam::Request::SetPreferences(asked) => {
            let preferences = resolved(&asked, addressing)?;
            archive.set_preferences(&owner, &requester, &preferences).await.map_err(query_error)?;
            Ok(Answer::result(written(&preferences, addressing)))
        }
        mam::Request::Query(mut query) => {
            if let Some(with) = query.filter.with.take() {
                let unknown = || StanzaError::new(Condition::BadRequest, "'with' names no account");
                query.filter.with = Some(addressing.resolve(&with).ok_or_else(unknown)?);
            }
            let page = archive.query(&owner, &requester, &query).await.map_err(query_error)?;
            let mut fin = String::new();
            page.fin.push(&mut fin);
            let messages = page.items.iter().map(|item| result(item, &query, &owner, addressing)).collect();
            Ok(Answer { messages, result: fin, ..Answer::default() })
        }
    }
}

/// Takes note of how far a device has read.
pub(super) async fn read(archive: &Archive, request: Request<Read>) -> Result<Answer, StanzaError> {
    let Request { requester, owner, payload: Read { id, device }, .. } = request;
    match archive.read_up_to(&owner, &requester, &id, device).await {
        Ok(()) => Ok(Answer::default()),
        Err(error @ ReadError::UnknownDevice) => Err(StanzaError::new(Condition::NotAcceptable, error.to_string())),
        Err(ReadError::Query(error)) => Err(query_error(error)),
    }
}

/// `<prefs/>` in the addresses that the client writes to.
fn written(preferences: &ArchivePreferences, addressing: &dyn Addressing) -> String {
    let mut out = String::new();
    mam::push_preferences(&mut out, preferences, |jid| peer(jid, addressing));
    out
}

/// Preferences about the accounts behind the addresses that a client named.
fn resolved(asked: &ArchivePreferences, addressing: &dyn Addressing) -> Result<ArchivePreferences, StanzaError> {
    let bad = |text: String| StanzaError::new(Condition::BadRequest, text);
    let accounts = |jids: &BTreeSet<Jid>| {
        let account = |jid| addressing.resolve(jid).ok_or_else(|| bad(format!("{jid} is no account's address")));
        jids.iter().map(account).collect::<Result<_, _>>()
    };
    ArchivePreferences::new(asked.otherwise(), accounts(asked.always())?, accounts(asked.never())?)
        .map_err(|error| bad(error.to_string()))
}

/// `<result/>` around one message, in the addresses that the client knows.
fn result(item: &Item, query: &Query, owner: &Owner, addressing: &dyn Addressing) -> String {
    let (from, to) = (seen(&item.from, owner, addressing), seen(&item.to, owner, addressing));
    let message = match &item.body {
        // What the store holds was written by this program; bytes that are no message are shown as gone.
        Some(body) => assemble(body, Some(&from), Some(&to), Some("jabber:client"), "")
            .unwrap_or_else(|_| mam::expired_placeholder(&from, &to)),
        None => mam::expired_placeholder(&from, &to),
    };
    let mut out = String::new();
    mam::push_result(&mut out, query.query_id.as_deref(), &item.archive_id, item.at, &message);
    out
}

/// An address in a message of the archive: the owner's own stays, a peer's is the one that the client writes to.
fn seen(jid: &Jid, owner: &Owner, addressing: &dyn Addressing) -> String {
    if jid.to_bare() == *owner.jid() { jid.to_string() } else { peer(jid, addressing) }
}

/// The address that a client writes to.
fn peer(jid: &Jid, addressing: &dyn Addressing) -> String {
    let peer = addressing.peer(&jid.to_bare());
    jid.resource().map_or_else(|| peer.clone(), |resource| format!("{peer}/{resource}"))
}

/// The error that XEP-0313 names.
fn query_error(error: QueryError) -> StanzaError {
    let text = error.to_string();
    let condition = match error {
        QueryError::Forbidden => Condition::Forbidden,
        QueryError::UnknownId(_) | QueryError::UnknownNode => Condition::ItemNotFound,
        QueryError::Request(error) => return request_error(error),
        QueryError::Unavailable(_) => Condition::ResourceConstraint,
        QueryError::Failed(_) => Condition::InternalServerError,
    };
    StanzaError::new(condition, text)
}

/// The error for a request that cannot be answered as it stands.
pub(super) fn request_error(error: RequestError) -> StanzaError {
    let condition = match error {
        RequestError::BadRequest(_) => Condition::BadRequest,
        RequestError::NotImplemented(_) => Condition::FeatureNotImplemented,
        RequestError::UnknownId => Condition::ItemNotFound,
    };
    StanzaError::new(condition, error.to_string())
}
