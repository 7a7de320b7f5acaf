//! Requests that a server plugin hands over in the wrapper of XEP-0355, `<delegation xmlns='urn:xmpp:delegation:2'/>`, with
//! what the server knows besides: whose they are about and how the requester stands to that account
//! (docs/plugin-protocol.md, "Requests").

use jid::{BareJid, Jid};

use super::error::StanzaError;
use super::forwarded;
use super::namespace::{DELEGATION, PLUGIN};
use super::tree::{Element, STREAM, push_attribute};
use crate::model::{Owner, Relation};

/// A request that was handed over.
#[derive(Debug)]
pub struct Delegated<'e, 'a> {
    /// Whose directory or archive.
    pub owner: Owner,
    /// How the requester stands to the owner.
    pub relation: Relation,
    /// The server still holds copies of this owner that it has not handed over.
    pub unsettled: bool,
    /// Who asks.
    pub from: Jid,
    /// The id that the requester gave its request.
    pub id: &'e str,
    /// `set`, not `get`.
    pub is_set: bool,
    /// What is asked.
    pub payload: &'e Element<'a>,
}

/// Why a wrapper is refused. Something is wrong with the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DelegationError {
    /// `owner` is missing or no account.
    #[error("the owner is missing or no account")]
    Owner,
    /// `relation` is missing or unknown.
    #[error("the relation is self, contact or other")]
    Relation,
    /// Not one request, with addresses and an id.
    #[error("a wrapper holds one forwarded request")]
    Request,
    /// `self` is said of somebody who is not the owner, or another relation of the owner.
    #[error("the relation does not fit the requester")]
    Contradiction,
}

impl<'e, 'a> Delegated<'e, 'a> {
    /// Reads a wrapper.
    pub fn parse(wrapper: &'e Element<'a>) -> Result<Self, DelegationError> {
        let owner = wrapper.attribute("owner").and_then(|jid| Owner::parse(jid).ok()).ok_or(DelegationError::Owner)?;
        let relation = match wrapper.attribute("relation") {
            Some("self") => Relation::Owner,
            Some("contact") => Relation::Contact,
            Some("other") => Relation::Other,
            _ => return Err(DelegationError::Relation),
        };
        let iq = request(wrapper).ok_or(DelegationError::Request)?;
        let from = requester(wrapper).ok_or(DelegationError::Request)?;
        let id = iq.attribute("id").ok_or(DelegationError::Request)?;
        let is_set = match iq.attribute("type") {
            Some("set") => true,
            Some("get") => false,
            _ => return Err(DelegationError::Request),
        };
        let [payload] = iq.children() else { return Err(DelegationError::Request) };
        if (relation == Relation::Owner) != (from.to_bare() == *owner.jid()) {
            return Err(DelegationError::Contradiction);
        }
        let unsettled = matches!(wrapper.attribute("unsettled"), Some("true" | "1"));
        Ok(Self { owner, relation, unsettled, from, id, is_set, payload })
    }
}

/// The account behind a wrapped request, whatever else is wrong with it.
pub fn requesting_account(wrapper: &Element<'_>) -> Option<BareJid> {
    requester(wrapper).map(|jid| jid.to_bare())
}

fn requester(wrapper: &Element<'_>) -> Option<Jid> {
    Jid::new(request(wrapper)?.attribute("from")?).ok()
}

fn request<'e, 'a>(wrapper: &'e Element<'a>) -> Option<&'e Element<'a>> {
    wrapper.child("forwarded", forwarded::NS)?.child("iq", STREAM)
}

/// What the requester is told.
#[derive(Debug)]
pub struct Reply<'r> {
    /// From which account.
    pub owner: &'r Owner,
    /// The requester.
    pub to: &'r Jid,
    /// The id of its request.
    pub id: &'r str,
    /// Payloads of messages that come before the result.
    pub messages: &'r [String],
    /// The payload of the result, or an error.
    pub result: Result<&'r str, &'r StanzaError>,
    /// The device list now in force, if the request was about to change it: [`push_list`].
    pub list: &'r str,
}

impl Reply<'_> {
    /// The wrapper around all of it.
    pub fn to_xml(&self) -> String {
        let room =
            self.messages.iter().map(|message| message.len().saturating_add(320)).fold(1_024, usize::saturating_add);
        let mut out = String::with_capacity(room);
        out.push_str("<delegation");
        push_attribute(&mut out, "xmlns", DELEGATION);
        out.push('>');
        for message in self.messages {
            self.open(&mut out, "message");
            out.push('>');
            out.push_str(message);
            out.push_str("</message></forwarded>");
        }
        self.open(&mut out, "iq");
        push_attribute(&mut out, "id", self.id);
        push_attribute(&mut out, "type", if self.result.is_ok() { "result" } else { "error" });
        out.push('>');
        match self.result {
            Ok(payload) => out.push_str(payload),
            Err(error) => out.push_str(&error.to_xml()),
        }
        out.push_str("</iq></forwarded>");
        out.push_str(self.list);
        out.push_str("</delegation>");
        out
    }

    /// A forwarded stanza up to its own attributes.
    fn open(&self, out: &mut String, name: &str) {
        out.push_str("<forwarded");
        push_attribute(out, "xmlns", forwarded::NS);
        out.push_str("><");
        out.push_str(name);
        push_attribute(out, "xmlns", "jabber:client");
        push_attribute(out, "from", self.owner.as_str());
        push_attribute(out, "to", self.to.as_str());
    }
}

/// Appends `<list/>` with a device list's node as a fetch gives it (`<pubsub><items/></pubsub>`), or with nothing if there is
/// no such node any more.
pub fn push_list(out: &mut String, owner: &Owner, node: &str, items: Option<&str>) {
    out.push_str("<list");
    push_attribute(out, "xmlns", PLUGIN);
    push_attribute(out, "owner", owner.as_str());
    push_attribute(out, "node", node);
    out.push('>');
    out.push_str(items.unwrap_or_default());
    out.push_str("</list>");
}

#[cfg(test)]
mod tests {
    use super::super::error::Condition;
    use super::*;

    const GOOD: &str = "<delegation xmlns='urn:xmpp:delegation:2' owner='alice@example.org' relation='other'>\
                        <forwarded xmlns='urn:xmpp:forward:0'>\
                        <iq xmlns='jabber:client' type='get' id='q&lt;' from='bob@x/y' to='alice@example.org'><ping xmlns='urn:xmpp:ping'/></iq>\
                        </forwarded></delegation>";

    fn error(text: &str) -> Option<DelegationError> {
        Delegated::parse(&Element::parse(text.as_bytes()).unwrap()).err()
    }

    #[test]
    fn a_wrapper_says_who_asks_whom_and_what() {
        let element = Element::parse(GOOD.as_bytes()).unwrap();
        let delegated = Delegated::parse(&element).unwrap();
        assert_eq!(
            (delegated.owner.as_str(), delegated.from.as_str(), delegated.id),
            ("alice@example.org", "bob@x/y", "q<")
        );
        assert_eq!((delegated.relation, delegated.unsettled, delegated.is_set), (Relation::Other, false, false));
        assert_eq!(delegated.payload.name(), "ping");
        assert_eq!(requesting_account(&element).unwrap().as_str(), "bob@x");
    }

    #[test]
    fn what_is_wrong_with_a_wrapper_is_told() {
        for (text, expected) in [
            (GOOD.replace("owner='alice@example.org'", ""), DelegationError::Owner),
            (GOOD.replace("owner='alice@", "owner='"), DelegationError::Owner),
            (GOOD.replace("'other'", "'friend'"), DelegationError::Relation),
            (GOOD.replace("'other'", "'self'"), DelegationError::Contradiction),
            (GOOD.replace("bob@x/y", "alice@example.org/y"), DelegationError::Contradiction),
            (GOOD.replace("type='get'", "type='result'"), DelegationError::Request),
            (GOOD.replace("from='bob@x/y'", ""), DelegationError::Request),
            (GOOD.replace("<ping xmlns='urn:xmpp:ping'/>", ""), DelegationError::Request),
            (GOOD.replace("urn:xmpp:forward:0", "urn:x"), DelegationError::Request),
        ] {
            assert_eq!(error(&text), Some(expected), "{text}");
        }
    }

    #[test]
    fn an_answer_is_wrapped_with_its_messages_before_it() {
        let (owner, to) = (Owner::parse("alice@example.org").unwrap(), Jid::new("bob@x/<y").unwrap());
        let failed = StanzaError::new(Condition::Forbidden, "no");
        let messages = ["<result xmlns='urn:xmpp:mam:2'/>".to_owned()];
        let mut list = String::new();
        push_list(&mut list, &owner, "n", None);
        let reply = Reply { owner: &owner, to: &to, id: "1", messages: &messages, result: Err(&failed), list: &list };
        let xml = reply.to_xml();
        let element = Element::parse(xml.as_bytes()).unwrap();
        let inner: Vec<_> = element.children_named("forwarded", forwarded::NS).map(|f| &f.children()[0]).collect();
        assert_eq!((inner[0].name(), inner[1].name()), ("message", "iq"));
        assert_eq!((inner[1].attribute("type"), inner[1].attribute("to")), (Some("error"), Some("bob@x/<y")));
        assert!(inner[1].child("error", STREAM).is_some());
        assert!(element.child("list", PLUGIN).unwrap().children().is_empty());
    }
}
