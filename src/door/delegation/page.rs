//! Sending the messages of a page in the name of the account whose archive it is.

use std::time::Duration;

use bytes::Bytes;
use jid::{DomainPart, Jid};

use super::DelegationDoor;
use super::passage::Outcome;
use crate::link::{Outbox, SendError};
use crate::stanza::error::{Condition, StanzaError};
use crate::stanza::namespace::PING;
use crate::stanza::privilege::{InTheName, Version};
use crate::stanza::tree::push_attribute;

/// Longest wait for the server's word on a page.
const PATIENCE: Duration = Duration::from_secs(10);

/// The messages of a page.
pub(super) struct Page<'p> {
    /// In which version the server lets them through.
    pub(super) version: Version,
    /// The server.
    pub(super) server: &'p DomainPart,
    /// Whose archive.
    pub(super) account: &'p str,
    /// The session that asked.
    pub(super) to: &'p Jid,
    /// What each message holds.
    pub(super) messages: &'p [String],
}

impl DelegationDoor {
    /// Sends them, and returns when the server has let all of them through. The error is for the client, which asks again.
    pub(super) async fn send(&self, page: &Page<'_>, outbox: &Outbox) -> Result<(), StanzaError> {
        let component = self.services.aliases.component();
        let passage = self.passages.begin();
        let id = passage.id();
        for payload in page.messages {
            let message = InTheName {
                version: page.version,
                component,
                server: page.server.as_str(),
                id: &id,
                account: page.account,
                to: page.to.as_str(),
                payload,
            };
            put(outbox, message.to_xml()).await?;
            // Between two messages of a page, others get their word in.
            tokio::task::yield_now().await;
        }
        put(outbox, ping(component, page.server.as_str(), &id)).await?;
        let outcome = tokio::select! {
            outcome = passage.outcome(PATIENCE) => outcome,
            () = self.services.stop.cancelled() => Outcome::Unknown,
        };
        self.services.metrics.page(outcome);
        let (condition, text) = match outcome {
            Outcome::LetThrough => return Ok(()),
            Outcome::Refused => {
                (Condition::ServiceUnavailable, "the server does not let this archive send its messages")
            }
            Outcome::Unknown => (Condition::ResourceConstraint, "the server did not take the page in time; try again"),
        };
        Err(StanzaError::new(condition, text))
    }
}

async fn put(outbox: &Outbox, stanza: String) -> Result<(), StanzaError> {
    match outbox.send(Bytes::from(stanza)).await {
        Ok(()) => Ok(()),
        Err(SendError::Closed) => Err(StanzaError::new(Condition::ResourceConstraint, "shutting down; try again")),
        Err(error @ SendError::TooLong) => {
            // No other door could give it either, and a client that waits for it would get nothing else any more.
            tracing::error!(%error, "a message of a page is left out");
            Ok(())
        }
    }
}

fn ping(component: &str, server: &str, id: &str) -> String {
    let mut out = String::from("<iq type='get'");
    push_attribute(&mut out, "from", component);
    push_attribute(&mut out, "to", server);
    push_attribute(&mut out, "id", id);
    out.push_str("><ping");
    push_attribute(&mut out, "xmlns", PING);
    out.push_str("/></iq>");
    out
}
