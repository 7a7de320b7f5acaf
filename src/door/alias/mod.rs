//! The alias door: pure XEP-0114, nothing installed on the server (DESIGN: "Doors", 1).
//!
//! `alice\40example.org@multiend.example.org` is alice, through multiend: its PEP nodes are alice's directory, MAM on it (by
//! alice) is alice's archive, and a message to it is archived for both sides and relayed to alice. Requests to the bare
//! component JID concern the requester's own account.

pub mod address;
mod iq;
mod known_accounts;
mod message;

use std::sync::Arc;

use jid::{BareJid, Jid};

pub use address::{Addressee, Aliases};
pub(super) use iq::events;
pub use message::{AcceptedMessage, MessageDoor, MessageServices};

use super::service::{Addressing, Service};
use crate::model::Owner;
use crate::stanza::incoming::Incoming;

/// The door for requests; [`MessageDoor`] is the one for messages.
pub struct AliasDoor {
    aliases: Arc<Aliases>,
    service: Service,
}

impl AliasDoor {
    /// A door to a service.
    pub fn new(aliases: Arc<Aliases>, service: Service) -> Self {
        Self { aliases, service }
    }

    /// Whose directory or archive an IQ is about.
    pub fn owner(&self, iq: &Incoming<'_>) -> Option<Owner> {
        match self.aliases.addressee(&iq.to) {
            Addressee::Alias(owner, _) => Some(owner),
            Addressee::Component => self.aliases.local_account(&iq.from),
            Addressee::Nobody => None,
        }
    }

    /// Answers an IQ of type get or set: stanzas to be sent in this order, of which the last answers the requester.
    pub async fn answer(&self, iq: &Incoming<'_>) -> Vec<String> {
        match iq::answer(&self.aliases, &self.service, iq).await {
            Ok(stanzas) => stanzas,
            Err(error) => vec![iq.error(&error)],
        }
    }
}

impl Addressing for Aliases {
    fn owner(&self, owner: &Owner) -> String {
        self.alias_text(owner.jid())
    }

    fn peer(&self, peer: &BareJid) -> String {
        match self.local_account(&peer.clone().into()) {
            Some(owner) => self.alias_text(owner.jid()),
            None => peer.to_string(),
        }
    }

    fn resolve(&self, jid: &Jid) -> Option<Jid> {
        Self::resolve(self, jid)
    }
}
