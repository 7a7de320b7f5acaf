//! The delegation door: MAM at the users' own addresses with nothing but the stock modules of servers, for those where no
//! plugin can be installed (DESIGN: "Doors", 3; docs/delegation.md).
//!
//! `mod_delegation` (XEP-0355) hands over every request about MAM, by anybody, to anybody: this door answers those of an
//! account about itself and refuses the others. `mod_privilege` (XEP-0356) lets the messages of a page come from the account
//! itself; a client believes no others. What this door must never do: answer a request of a client with an error of its own
//! instead of one in the wrapper, which ejabberd does not bring to the client; end a page whose messages did not get through.
//!
//! Nothing here feeds the archive: with stock modules no server does. Its messages are those of the alias door, and peers
//! have here the addresses that they have there.

mod grants;
mod metrics;
mod page;
mod passage;

use std::sync::Arc;

use jid::{BareJid, DomainPart, Jid};
use tokio_util::sync::CancellationToken;

pub use grants::Grants;
pub use metrics::DelegationMetrics;

use self::passage::Passages;
use super::alias::Aliases;
use super::plugin::Servers;
use super::request::{Relation, Request};
use super::service::{Answer, Payload, Service};
use crate::link::{LONGEST_STANZA, Outbox};
use crate::model::{Owner, Requester};
use crate::stanza::error::{Condition, StanzaError};
use crate::stanza::incoming::{Incoming, Kind};
use crate::stanza::message::MessageType;
use crate::stanza::namespace::{DISCO_INFO, MAM, STANZA_ID};
use crate::stanza::stock_delegation::{self, Delegated, Nested};
use crate::stanza::tree::Element;
use crate::stanza::{mam, privilege};

/// Room for the IQ around an answer, in bytes.
const AROUND: usize = 16 * 1024;

/// What the door stands on.
pub struct DelegationServices {
    /// Whether the operator wants it.
    pub enabled: bool,
    /// Whose users are served.
    pub servers: Servers,
    /// The addresses of peers.
    pub aliases: Arc<Aliases>,
    /// Who answers.
    pub service: Service,
    /// What servers have granted.
    pub grants: Grants,
    /// What is counted.
    pub metrics: DelegationMetrics,
    /// When it is cancelled, nothing comes from the server any more that could be waited for.
    pub stop: CancellationToken,
}

/// The door.
pub struct DelegationDoor {
    services: DelegationServices,
    passages: Passages,
}

impl DelegationDoor {
    /// A door.
    pub fn new(services: DelegationServices) -> Self {
        Self { services, passages: Passages::default() }
    }

    /// Whether a request speaks this door's language: the account whose requests it is in order with. The error is for who
    /// is no server.
    pub fn recognise(&self, iq: &Incoming<'_>) -> Option<Result<BareJid, StanzaError>> {
        let [payload] = iq.element.children() else { return None };
        let is_wrapper = stock_delegation::version(payload).is_some();
        if !is_wrapper && nested(iq, payload).is_none() {
            return None;
        }
        if !self.is_for_us(iq) || !is_server(&iq.from) {
            return Some(Err(StanzaError::new(Condition::Forbidden, "only a server that is served here is believed")));
        }
        if !is_wrapper {
            return Some(Ok(iq.from.to_bare()));
        }
        if iq.kind != Kind::IqSet {
            return Some(Err(StanzaError::new(Condition::BadRequest, "a request is handed over with set")));
        }
        let asked = Delegated::parse(payload);
        Some(asked.map_or_else(|_| Ok(iq.from.to_bare()), |asked| Ok(asked.requester().to_bare())))
    }

    /// Answers what has been recognised. Messages of a page have been sent by then; what is given back is the answer to the
    /// server.
    pub async fn answer(&self, iq: &Incoming<'_>, outbox: &Outbox) -> Vec<String> {
        let [payload] = iq.element.children() else { return Vec::new() };
        if let Some((node, whose, namespace)) = nested(iq, payload) {
            return vec![self.nested_info(iq, node, whose, namespace)];
        }
        let asked = match Delegated::parse(payload) {
            Ok(asked) => asked,
            Err(error) => return vec![iq.error(&StanzaError::new(Condition::BadRequest, error.to_string()))],
        };
        let mut result = self.archive(iq, &asked, outbox).await;
        if result.as_ref().is_ok_and(|payload| payload.len() > LONGEST_STANZA.saturating_sub(AROUND)) {
            let text = "the answer would be too long for one stanza";
            result = Err(StanzaError::new(Condition::NotAcceptable, text));
        }
        vec![iq.result(&asked.answer(result.as_deref()))]
    }

    /// Refuses what has been recognised: in the wrapper, where the client sees it.
    pub fn refuse(&self, iq: &Incoming<'_>, error: &StanzaError) -> String {
        let [payload] = iq.element.children() else { return iq.error(error) };
        Delegated::parse(payload).map_or_else(|_| iq.error(error), |asked| iq.result(&asked.answer(Err(error))))
    }

    /// Takes in a message if it is one for this door: what a server grants, or that it does not let something through. Of
    /// other servers it is nothing to us; the error is for who is no server.
    pub fn hear(&self, message: &Incoming<'_>) -> Option<Result<(), StanzaError>> {
        if !self.is_for_us(message) {
            return None;
        }
        let server = self.services.servers.speaking(&message.from);
        if message.kind == Kind::Message(MessageType::Error) {
            let server = server.filter(|_| self.passages.refused(&message.id))?;
            if self.services.grants.version(server).is_some() {
                tracing::warn!(%server, "the server does not let messages in its users' names through any more");
            }
            self.services.grants.messages(server, None);
            return Some(Ok(()));
        }
        let delegated = stock_delegation::delegated_namespaces(&message.element);
        let granted = privilege::granted(&message.element);
        if delegated.is_none() && granted.is_none() {
            return None;
        }
        let Some(server) = server else {
            // A domain that we do not serve may well be one of the same server: it is no fault of its to grant us things.
            let refused = StanzaError::new(Condition::Forbidden, "only a server that is served here is believed");
            return Some(if is_server(&message.from) { Ok(()) } else { Err(refused) });
        };
        if delegated.is_some_and(|namespaces| namespaces.contains(&MAM)) {
            tracing::info!(%server, enabled = self.services.enabled, "the server delegates the archives of its users");
            self.services.grants.archive(server);
        }
        if let Some(granted) = granted {
            let version = granted.messages.then_some(granted.version);
            tracing::info!(%server, messages = granted.messages, "the server tells its privileges");
            self.services.grants.messages(server, version);
        }
        Some(Ok(()))
    }

    /// Takes note of the answer to something that was asked here.
    pub fn answered(&self, iq: &Incoming<'_>) {
        if self.is_for_us(iq) && self.services.servers.speaking(&iq.from).is_some() {
            self.passages.answered(&iq.id);
        }
    }

    fn is_for_us(&self, stanza: &Incoming<'_>) -> bool {
        stanza.to.node().is_none() && stanza.to.domain().as_str() == self.services.aliases.component()
    }

    /// What a server is to show as its own, or as its accounts'.
    fn nested_info(&self, iq: &Incoming<'_>, node: &str, whose: Nested, namespace: &str) -> String {
        if !self.services.enabled || namespace != MAM || self.services.servers.speaking(&iq.from).is_none() {
            return iq.error(&StanzaError::new(Condition::ItemNotFound, "this is not taken over here"));
        }
        // Nobody stamps live messages with ids by the account: that of the alias door are by the alias.
        let features = mam::FEATURES.into_iter().filter(|feature| whose == Nested::Accounts && *feature != STANZA_ID);
        iq.result(&stock_delegation::nested_info(node, features))
    }

    /// Answers a request about MAM. Every error is for the client.
    async fn archive(
        &self,
        iq: &Incoming<'_>,
        asked: &Delegated<'_, '_>,
        outbox: &Outbox,
    ) -> Result<String, StanzaError> {
        let services = &self.services;
        let Some(server) = services.servers.speaking(&iq.from) else {
            return Err(StanzaError::new(Condition::Forbidden, "the accounts of this server are not served here"));
        };
        if !services.enabled {
            self.complain(server, "it delegates MAM, but delegation.enabled is false");
            return Err(StanzaError::new(Condition::ServiceUnavailable, "archives are not kept here"));
        }
        let owner = self.owner(&iq.from, asked)?;
        let bad = || StanzaError::new(Condition::BadRequest, "a request has exactly one payload");
        let (payload, is_set) = asked.payload().ok_or_else(bad)?;
        if payload.namespace() != MAM {
            return Err(StanzaError::new(Condition::ServiceUnavailable, "only archives are asked for here"));
        }
        let payload = Payload::parse(payload, is_set)?;
        let is_query = matches!(payload, Payload::Archive(mam::Request::Query(_)));
        // Known before the archive is asked: nobody takes a page for read that cannot be sent.
        let version = services.grants.version(server);
        if is_query && version.is_none() {
            self.complain(server, "it delegates MAM, but does not let messages in its users' names through (XEP-0356)");
            let text = "the server does not let this archive send its messages";
            return Err(StanzaError::new(Condition::ServiceUnavailable, text));
        }
        let requester = Requester::new(asked.requester().clone());
        let request = Request { requester, owner: owner.clone(), relation: Relation::Owner, payload };
        let Answer { messages, result, .. } = services.service.answer(request, &*services.aliases).await?;
        if let Some(version) = version.filter(|_| !messages.is_empty()) {
            let page =
                page::Page { version, server, account: owner.as_str(), to: asked.requester(), messages: &messages };
            self.send(&page, outbox).await?;
        }
        Ok(result)
    }

    /// Whose archive is asked: the requester's own, of this server.
    fn owner(&self, server: &Jid, asked: &Delegated<'_, '_>) -> Result<Owner, StanzaError> {
        let unreadable = || StanzaError::new(Condition::BadRequest, "this is nobody's address");
        let addressee = asked.addressee().ok_or_else(unreadable)?;
        if addressee.node().is_none() || addressee.resource().is_some() {
            return Err(StanzaError::new(Condition::ServiceUnavailable, "only accounts have archives"));
        }
        let foreign = || StanzaError::new(Condition::Forbidden, "an archive answers its owner only");
        if addressee != asked.requester().to_bare() {
            return Err(foreign());
        }
        let owner = Owner::new(addressee.to_bare()).map_err(|_| foreign())?;
        self.services.servers.may_speak_for(server, &owner).then_some(owner).ok_or_else(foreign)
    }

    /// Tells the operator once on each connection.
    fn complain(&self, server: &DomainPart, what: &str) {
        if self.services.grants.complain(server) {
            tracing::warn!(%server, "requests of the server's users cannot be answered: {what}; see docs/delegation.md");
        }
    }
}

/// The node, of those with which a server asks what to show as its own, that a request is about.
fn nested<'e>(iq: &Incoming<'_>, payload: &'e Element<'_>) -> Option<(&'e str, Nested, &'e str)> {
    if iq.kind != Kind::IqGet || !payload.is("query", DISCO_INFO) {
        return None;
    }
    let node = payload.attribute("node")?;
    stock_delegation::nested(node).map(|(whose, namespace)| (node, whose, namespace))
}

/// Servers stamp what their users send with more than a domain.
fn is_server(from: &Jid) -> bool {
    from.node().is_none() && from.resource().is_none()
}

#[cfg(test)]
mod tests;
