//! What waits for the archive's writer, whichever door it came through, and what is sent once it is stored.

use super::alias::AcceptedMessage;
use super::plugin::AcceptedCopies;
use crate::archive::ingest::Committed;

/// What was submitted to the writer.
#[derive(Debug)]
pub enum Accepted {
    /// A message through the alias door.
    Message(AcceptedMessage),
    /// A message of a server's batch of copies.
    Copies(AcceptedCopies),
}

impl Accepted {
    /// The stanzas that follow from what became of it.
    pub fn outcome(committed: Committed<Self>) -> Vec<String> {
        let Committed { token, result } = committed;
        match token {
            Self::Message(token) => AcceptedMessage::outcome(Committed { token, result }),
            Self::Copies(token) => AcceptedCopies::outcome(Committed { token, result }),
        }
    }
}

impl From<AcceptedMessage> for Accepted {
    fn from(message: AcceptedMessage) -> Self {
        Self::Message(message)
    }
}

impl From<AcceptedCopies> for Accepted {
    fn from(copies: AcceptedCopies) -> Self {
        Self::Copies(copies)
    }
}
