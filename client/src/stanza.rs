//! Messages as stanzas: what goes out, and what an arriving message is. Building and reading only: no I/O.

use std::time::Duration;

use minidom::Element;
use minidom::rxml::xml_ncname;
use xmpp_parsers::jid::{BareJid, Jid};
use xmpp_parsers::message::{Message, MessageType};

use crate::connection::refusal;
use crate::error::Refusal;
use crate::event::Via;
use crate::protocol::Protocol;
use crate::xml::{Build, ns};

/// What goes around an encrypted element on its way out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wrapping {
    /// Ask for an acknowledgement (`urn:multiend:0`).
    pub(crate) acknowledge: bool,
    /// When the archive hides it (XEP-0466).
    pub(crate) expire_after: Option<Duration>,
}

/// The stanza around encrypted elements, one for each protocol. Every resend is made from this same text.
pub(crate) fn wrap(id: &str, to: &Jid, encrypted: Vec<Element>, wrapping: Wrapping) -> Element {
    let encryption: Vec<Element> = encrypted
        .iter()
        .map(|element| {
            Build::new("encryption", ns::EME)
                .attr(xml_ncname!("namespace"), element.ns())
                .attr(xml_ncname!("name"), "OMEMO")
                .into()
        })
        .collect();
    let mut message = Build::new("message", ns::CLIENT)
        .attr(xml_ncname!("type"), "chat")
        .attr(xml_ncname!("id"), id)
        .attr(xml_ncname!("to"), to)
        .children(encrypted)
        .children(encryption)
        .child(Build::new("origin-id", ns::SID).attr(xml_ncname!("id"), id))
        .child(Build::new("store", ns::HINTS));
    if let Some(after) = wrapping.expire_after {
        message =
            message.child(Build::new("ephemeral", ns::EPHEMERAL).attr(xml_ncname!("timer"), after.as_secs().max(1)));
    }
    if wrapping.acknowledge {
        message = message.child(Build::new("request", ns::MULTIEND));
    }
    message.into()
}

/// What an arriving message is.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// An ordinary message, or the one inside a carbon.
    Message(Message, Via),
    /// The archive has this message of ours (`urn:multiend:0`).
    Archived { id: String, archive_id: Option<String> },
    /// A message of ours came back with an error.
    Refused { id: String, refusal: Refusal },
}

/// Sorts a message that arrived for `account`.
pub(crate) fn sort(message: Message, account: &BareJid) -> Option<Arrival> {
    if message.type_ == MessageType::Error {
        let error = message.payloads.into_iter().find(|payload| payload.is("error", ns::CLIENT))?;
        return Some(Arrival::Refused { id: message.id?.0, refusal: refusal(&error.try_into().ok()?) });
    }
    if let Some(archived) = message.payloads.iter().find(|payload| payload.is("archived", ns::MULTIEND)) {
        let id = archived.attr("for")?.to_owned();
        let archive_id =
            archived.get_child("stanza-id", ns::SID).and_then(|stanza_id| stanza_id.attr("id")).map(str::to_owned);
        return Some(Arrival::Archived { id, archive_id });
    }
    let carbon = |payload: &&Element| payload.is("received", ns::CARBONS) || payload.is("sent", ns::CARBONS);
    match message.payloads.iter().find(carbon) {
        // Only the own account's server makes carbons; one from anybody else is a forgery (XEP-0280 §11).
        Some(_) if message.from.as_ref().is_some_and(|from| from != account) => None,
        Some(carbon) => {
            let inner = carbon.get_child("forwarded", ns::FORWARD)?.get_child("message", ns::CLIENT)?;
            Some(Arrival::Message(inner.clone().try_into().ok()?, Via::Carbon))
        }
        None => Some(Arrival::Message(message, Via::Live)),
    }
}

/// The OMEMO element of a message in a protocol.
pub(crate) fn encrypted(message: &Message, protocol: Protocol) -> Option<&Element> {
    message.payloads.iter().find(|payload| payload.is("encrypted", protocol.namespace()))
}

/// The id that the archive at `archive` gave a message (XEP-0359).
pub(crate) fn archive_id(message: &Message, archive: &Jid) -> Option<String> {
    message
        .payloads
        .iter()
        .filter(|payload| payload.is("stanza-id", ns::SID))
        .find(|stanza_id| stanza_id.attr("by").and_then(|by| Jid::new(by).ok()).as_ref() == Some(archive))
        .and_then(|stanza_id| stanza_id.attr("id"))
        .map(str::to_owned)
}

/// The request for carbon copies (XEP-0280 §4).
pub(crate) fn enable_carbons() -> Element {
    Build::new("enable", ns::CARBONS).into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn message(xml: &str) -> Message {
        xml.parse::<Element>().unwrap().try_into().unwrap()
    }

    #[test]
    fn a_carbon_counts_only_from_the_own_account() {
        let alice = BareJid::new("alice@example.org").unwrap();
        let carbon = |from: &str| {
            message(&format!(
                "<message xmlns='jabber:client' from='{from}' type='chat'><received xmlns='urn:xmpp:carbons:2'>\
                 <forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='bob@example.org/x'/>\
                 </forwarded></received></message>"
            ))
        };
        let sorted = sort(carbon("alice@example.org"), &alice);
        assert!(matches!(sorted, Some(Arrival::Message(inner, Via::Carbon)) if inner.from.is_some()));
        assert!(sort(carbon("mallory@example.org/x"), &alice).is_none());
        assert!(sort(carbon("alice@example.org/other"), &alice).is_none());
    }

    #[test]
    fn only_the_asked_archive_gives_archive_ids() {
        let stanza = message(
            "<message xmlns='jabber:client'><stanza-id xmlns='urn:xmpp:sid:0' by='mallory@example.org' id='no'/>\
             <stanza-id xmlns='urn:xmpp:sid:0' by='alice@example.org' id='yes'/></message>",
        );
        assert_eq!(archive_id(&stanza, &Jid::new("alice@example.org").unwrap()).as_deref(), Some("yes"));
    }

    #[test]
    fn an_error_names_the_message_that_it_is_about() {
        let alice = BareJid::new("alice@example.org").unwrap();
        let error = message(
            "<message xmlns='jabber:client' type='error' id='m1'><error type='wait'>\
             <remote-server-timeout xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>",
        );
        let Some(Arrival::Refused { id, refusal }) = sort(error, &alice) else { panic!("not an error") };
        assert_eq!((id.as_str(), refusal.temporary), ("m1", true));
        assert_eq!(refusal.condition, "remote-server-timeout");
    }
}
