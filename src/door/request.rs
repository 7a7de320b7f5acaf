//! What every door makes of what it is asked.

use crate::model::{Owner, Requester};

/// How the requester stands to the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// A session of the owner.
    Owner,
    /// A contact, where the door knows.
    Contact,
    /// Anybody else, or not known.
    Other,
}

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
