//! What can go wrong, in classes that a caller can act on.

use xmpp_parsers::jid::BareJid;

use crate::protocol::Protocol;
use crate::state::StateError;

/// An error reply (RFC 6120 §8.3) to a request or to a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{condition}{}", text.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
pub struct Refusal {
    /// The defined condition, for example `item-not-found`.
    pub condition: String,
    /// The human-readable text, where one was given.
    pub text: Option<String>,
    /// Whether the error's type is `wait`: the same may succeed later.
    pub temporary: bool,
}

/// Why a call did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server does not accept the account's password; connecting again will not help.
    #[error("the server refused the login: {0}")]
    Login(String),
    /// No connection, or no answer, within [`Patience::overall`](crate::Patience::overall).
    #[error("no answer to {0} within the time allowed")]
    Timeout(&'static str),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
    /// The other side answered with an error.
    #[error("{what} was refused: {refusal}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The answer.
        refusal: Refusal,
    },
    /// An answer that does not have the form that its XEP gives it.
    #[error("the answer to {0} is malformed")]
    Malformed(&'static str),
    /// The recipient has no device that could read a message.
    #[error("{0} has no device to encrypt for")]
    NoDevice(BareJid),
    /// The device takes no part in this protocol; see [`Settings::protocols`](crate::Settings::protocols).
    #[error("the device takes no part in {}", .0.namespace())]
    NotTakingPart(Protocol),
    /// The device's state could not be read or kept. Nothing was sent.
    #[error(transparent)]
    State(#[from] StateError),
    /// A cryptographic operation failed.
    #[error("encryption failed: {0}")]
    Crypto(String),
}

impl ClientError {
    /// Whether the other side says that what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { refusal, .. } if refusal.condition == "item-not-found")
    }
}
