//! Requests through the alias door.

use super::address::{Addressee, Aliases};
use crate::door::request::{Relation, Request};
use crate::door::service::{Addressing, Answer, Event, Payload, Service};
use crate::model::{Owner, Requester};
use crate::stanza::disco::{self, Subject};
use crate::stanza::error::{Condition, StanzaError};
use crate::stanza::incoming::{Incoming, Kind, MAX_ID_LENGTH};
use crate::stanza::namespace::{DISCO_INFO, DISCO_ITEMS, PING, VERSION};
use crate::stanza::tree::{Element, push_attribute};

/// Answers a request: stanzas in the order in which they are to be sent.
pub(super) async fn answer(
    aliases: &Aliases,
    service: &Service,
    iq: &Incoming<'_>,
) -> Result<Vec<String>, StanzaError> {
    if iq.id.is_empty() || iq.id.len() > MAX_ID_LENGTH {
        return Err(StanzaError::new(
            Condition::BadRequest,
            format!("a request needs an id, of at most {MAX_ID_LENGTH} bytes"),
        ));
    }
    let [payload] = iq.element.children() else {
        return Err(StanzaError::new(Condition::BadRequest, "a request has exactly one payload"));
    };
    let is_set = iq.kind == Kind::IqSet;
    let addressee = aliases.addressee(&iq.to);
    let own_account = aliases.local_account(&iq.from);
    if let Some(result) = about_the_component(&addressee, payload, is_set, own_account.is_some()) {
        return Ok(vec![iq.result(&result)]);
    }
    let owner = match addressee {
        Addressee::Alias(owner, None) => owner,
        Addressee::Alias(_, Some(_)) => {
            return Err(StanzaError::new(Condition::ServiceUnavailable, "an alias has no resources to ask"));
        }
        Addressee::Component => own_account.clone().ok_or_else(|| {
            StanzaError::new(Condition::Forbidden, "this service is for the accounts of its own server")
        })?,
        Addressee::Nobody => return Err(StanzaError::new(Condition::ItemNotFound, "no such account here")),
    };
    let relation = if own_account.as_ref() == Some(&owner) { Relation::Owner } else { Relation::Other };
    let request = Request {
        requester: Requester::new(iq.from.clone()),
        owner: owner.clone(),
        relation,
        payload: Payload::parse(payload, is_set)?,
    };
    let answer = service.answer(request, aliases).await?;
    Ok(stanzas(aliases, iq, &owner, &answer))
}

/// What is answered for the component itself, or for an alias without regard to its owner.
fn about_the_component(addressee: &Addressee, payload: &Element<'_>, is_set: bool, is_local: bool) -> Option<String> {
    if is_set || *addressee == Addressee::Nobody {
        return None;
    }
    let is_component = *addressee == Addressee::Component;
    match (payload.name(), payload.namespace()) {
        ("ping", PING) => Some(String::new()),
        ("query", VERSION) => Some(format!(
            "<query xmlns='{VERSION}'><name>multiend</name><version>{}</version></query>",
            env!("CARGO_PKG_VERSION")
        )),
        // A node is one of the requester's own.
        (_, DISCO_INFO | DISCO_ITEMS) if payload.attribute("node").is_some() => None,
        ("query", DISCO_INFO) if is_component => Some(disco::info(Subject::Component)),
        // An account of ours finds its own nodes, anybody else nothing.
        ("query", DISCO_ITEMS) if is_component && !is_local => Some(format!("<query xmlns='{DISCO_ITEMS}'/>")),
        _ => None,
    }
}

fn stanzas(aliases: &Aliases, iq: &Incoming<'_>, owner: &Owner, answer: &Answer) -> Vec<String> {
    let room = answer.messages.len().saturating_add(answer.events.len()).saturating_add(1);
    let mut stanzas = Vec::with_capacity(room);
    // Results come from the address that was asked, or the client would not believe them.
    stanzas.extend(answer.messages.iter().map(|payload| message(iq.to.as_str(), iq.from.as_str(), None, payload)));
    stanzas.push(iq.result(&answer.result));
    stanzas.extend(events(aliases, owner, &answer.events));
    stanzas
}

/// What those are told who subscribed to an alias.
pub(in crate::door) fn events(aliases: &Aliases, owner: &Owner, events: &[Event]) -> Vec<String> {
    let from = aliases.owner(owner);
    // A headline is never kept for an offline session, which fetches the list when it comes back.
    events.iter().map(|event| message(&from, event.to.as_str(), Some("headline"), &event.payload)).collect()
}

fn message(from: &str, to: &str, kind: Option<&str>, payload: &str) -> String {
    let mut out = String::with_capacity(payload.len().saturating_add(256));
    out.push_str("<message");
    push_attribute(&mut out, "from", from);
    push_attribute(&mut out, "to", to);
    if let Some(kind) = kind {
        push_attribute(&mut out, "type", kind);
    }
    out.push('>');
    out.push_str(payload);
    out.push_str("</message>");
    out
}
