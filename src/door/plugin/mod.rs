//! The plugin door: a small module in the server makes unmodified clients work at their own addresses (DESIGN: "Doors", 2;
//! docs/plugin-protocol.md).
//!
//! Everything here is believed because of who says it: a server that we serve, speaking as itself, about its own accounts.
//! A user, a remote server or another component that sends the same is refused.

mod copies;
mod delegated;

use std::collections::BTreeSet;
use std::sync::Arc;

use jid::{BareJid, DomainPart, Jid};

pub use copies::{AcceptedCopies, CopyDoor, CopyServices};

use super::alias::Aliases;
use super::service::{Addressing, Payload, Service};
use crate::model::Owner;
use crate::stanza::error::{Condition, StanzaError};
use crate::stanza::incoming::{Incoming, Kind};
use crate::stanza::namespace::{DELEGATION, PLUGIN};
use crate::stanza::pubsub::{self, Node};
use crate::stanza::tree::push_attribute;
use crate::stanza::{delegation, extension};

/// Which servers are believed: those whose accounts we serve.
#[derive(Debug, Clone, Default)]
pub struct Servers {
    domains: BTreeSet<DomainPart>,
}

impl Servers {
    /// Believes these; none turns the door off.
    pub fn new(domains: impl IntoIterator<Item = DomainPart>) -> Self {
        Self { domains: domains.into_iter().collect() }
    }

    /// The server that a stanza comes from, if it is one that is believed. Servers stamp a user's stanzas with the user's full
    /// JID and let a remote server speak for nobody else, so a bare domain is that server itself.
    pub(in crate::door) fn speaking(&self, from: &Jid) -> Option<&DomainPart> {
        if from.node().is_some() || from.resource().is_some() {
            return None;
        }
        self.domains.iter().find(|domain| domain.as_str() == from.domain().as_str())
    }

    /// Whether an address is of one of these servers.
    fn serve(&self, jid: &Jid) -> bool {
        self.domains.iter().any(|domain| domain.as_str() == jid.domain().as_str())
    }

    /// Whether a server may speak for an account: only if it is its own.
    pub(in crate::door) fn may_speak_for(&self, from: &Jid, owner: &Owner) -> bool {
        self.speaking(from).is_some_and(|server| server.as_str() == owner.jid().domain().as_str())
    }
}

/// What a plugin says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Copies of messages: they go in one by one, in the order of the stream.
    Copies,
    /// A request about what this account asks or owns: requests of one account are answered in order.
    Request(BareJid),
}

/// The door for what plugins ask; [`CopyDoor`] is the one for messages.
pub struct PluginDoor {
    servers: Servers,
    aliases: Arc<Aliases>,
    service: Service,
    news: News,
}

impl PluginDoor {
    /// A door to a service whose pages fit into one stanza each.
    pub fn new(servers: Servers, aliases: Arc<Aliases>, service: Service, news: News) -> Self {
        Self { servers, aliases, service, news }
    }

    /// Whether a request speaks this door's language at all; the error is for who must not.
    pub fn recognise(&self, iq: &Incoming<'_>) -> Option<Result<Said, StanzaError>> {
        let [payload] = iq.element.children() else { return None };
        let said = match (payload.name(), payload.namespace(), iq.kind) {
            ("copies", PLUGIN, Kind::IqSet) => Some(Said::Copies),
            ("list", PLUGIN, Kind::IqGet) => {
                payload.attribute("owner").and_then(|owner| BareJid::new(owner).ok()).map(Said::Request)
            }
            ("delegation", DELEGATION, Kind::IqSet) => delegation::requesting_account(payload).map(Said::Request),
            (_, PLUGIN | DELEGATION, _) => None,
            _ => return None,
        };
        let for_us = iq.to.node().is_none() && iq.to.domain().as_str() == self.aliases.component();
        if !for_us || self.servers.speaking(&iq.from).is_none() {
            let text = "only a server that is served here is believed";
            return Some(Err(StanzaError::new(Condition::Forbidden, text)));
        }
        Some(said.ok_or_else(|| StanzaError::new(Condition::BadRequest, "this makes no sense to the plugin door")))
    }

    /// Answers what has been recognised as [`Said::Request`]: stanzas to be sent in this order.
    pub async fn answer(&self, iq: &Incoming<'_>) -> Vec<String> {
        let answered = match iq.element.children() {
            [payload] if payload.is("list", PLUGIN) => self.list(iq, payload).await,
            [payload] => self.delegated(iq, payload).await,
            _ => Err(StanzaError::new(Condition::BadRequest, "a request has exactly one payload")),
        };
        answered.unwrap_or_else(|error| vec![iq.error(&error)])
    }
}

impl PluginDoor {
    /// What the server of an owner is told after a request through another door that may have changed a device list.
    pub fn news(&self, iq: &Incoming<'_>, owner: &Owner) -> Option<String> {
        let [payload] = iq.element.children() else { return None };
        let asked = Payload::parse(payload, iq.kind == Kind::IqSet).ok()?;
        self.news.list_changed(owner, changed_list(&asked)?)
    }
}

/// The device list that a request may change.
fn changed_list(asked: &Payload<'_, '_>) -> Option<Node> {
    let node = match asked {
        Payload::Pubsub(
            pubsub::Request::Publish { node, .. }
            | pubsub::Request::Retract { node, .. }
            | pubsub::Request::Delete { node, .. },
        ) => *node,
        Payload::Extension(extension::Request::AddDevice(add)) => Node::DeviceList(add.protocol),
        Payload::Extension(extension::Request::RemoveDevice(device)) => Node::DeviceList(device.protocol),
        _ => return None,
    };
    matches!(node, Node::DeviceList(_)).then_some(node)
}

/// Tells servers of lists that are others now: a server's own PEP has them as well.
#[derive(Debug, Clone)]
pub struct News {
    servers: Servers,
    component: String,
}

impl News {
    /// From a component to these servers.
    pub fn new(servers: Servers, component: String) -> Self {
        Self { servers, component }
    }

    /// Tells the server of an owner, for its plugin to ask for the list with `<list/>`. The list itself is not in it: asked
    /// for in the order of the owner's own requests, it is never an older one than the server has. `None` if nobody there
    /// would understand.
    pub fn list_changed(&self, owner: &Owner, node: Node) -> Option<String> {
        let server = Jid::from(BareJid::from_parts(None, owner.jid().domain()));
        self.servers.speaking(&server)?;
        let mut out = String::from("<iq type='set'");
        let name = node.name();
        push_attribute(&mut out, "from", &self.component);
        push_attribute(&mut out, "to", server.as_str());
        // The same news again is the same: nobody waits for the answer.
        push_attribute(&mut out, "id", &format!("list-changed-{name}"));
        out.push_str("><changed");
        push_attribute(&mut out, "xmlns", PLUGIN);
        push_attribute(&mut out, "owner", owner.as_str());
        push_attribute(&mut out, "node", &name);
        out.push_str("/></iq>");
        Some(out)
    }
}

/// The addresses of clients that write to each other as ever.
struct OwnAddresses;

impl Addressing for OwnAddresses {
    fn owner(&self, owner: &Owner) -> String {
        owner.to_string()
    }

    fn peer(&self, peer: &BareJid) -> String {
        peer.to_string()
    }

    fn resolve(&self, jid: &Jid) -> Option<Jid> {
        Some(jid.clone())
    }
}

#[cfg(test)]
mod tests;
