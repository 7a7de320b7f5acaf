//! How somebody stands to the owner of a directory or an archive.

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
