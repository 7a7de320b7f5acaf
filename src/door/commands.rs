//! The door for administrators: ad-hoc commands (XEP-0050) at the component's own address. Who may use it, and what the
//! commands do, is not known here: that is work for operators, which stands above the doors.

use async_trait::async_trait;

use crate::stanza::error::StanzaError;
use crate::stanza::incoming::Incoming;

/// Who answers commands.
#[async_trait]
pub trait Commands: Send + Sync {
    /// Whether a request of type get or set is one for it. What is not goes to the other doors.
    fn recognises(&self, iq: &Incoming<'_>) -> bool;

    /// The payload of the answer.
    async fn answer(&self, iq: &Incoming<'_>) -> Result<String, StanzaError>;
}

/// A door that nobody may use.
pub struct NoCommands;

#[async_trait]
impl Commands for NoCommands {
    fn recognises(&self, _: &Incoming<'_>) -> bool {
        false
    }

    async fn answer(&self, _: &Incoming<'_>) -> Result<String, StanzaError> {
        Ok(String::new())
    }
}
