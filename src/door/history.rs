//! Answers requests for the history of an owner's devices, the same through every door.

use super::request::Request;
use super::service::Answer;
use crate::directory::{Directory, DirectoryError};
use crate::stanza::error::{Condition, ExtensionCondition, StanzaError};
use crate::stanza::history;

/// Answers one request. Anybody may read.
pub(super) async fn answer(directory: &Directory, request: Request<history::Request>) -> Result<Answer, StanzaError> {
    let Request { owner, payload, .. } = request;
    match directory.history(&owner, &payload.known, payload.max).await {
        Ok(page) => Ok(Answer::result(history::write(&owner, &page.head, &page.entries))),
        Err(error @ DirectoryError::NotOnChain) => {
            Err(StanzaError::new(Condition::ItemNotFound, error.to_string())
                .with_extension(ExtensionCondition::NotOnChain))
        }
        Err(error) => Err(super::directory::stanza_error(error)),
    }
}

/// The error of a request that makes no sense.
pub(super) fn request_error(error: history::HistoryError) -> StanzaError {
    StanzaError::new(Condition::BadRequest, error.to_string())
}
