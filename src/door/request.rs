//! What every door makes of what it is asked.

pub use crate::model::Relation;
use crate::model::{Owner, Requester};

/// A request, whichever door it came through.
#[derive(Debug)]
pub struct Request<P> {
    /// Who asks; authenticated by the server.
    pub requester: Requester,
    /// Whose directory or archive.
    pub owner: Owner,
    /// How the one stands to the other.
    pub relation: Relation,
    /// What is asked.
    pub payload: P,
}
