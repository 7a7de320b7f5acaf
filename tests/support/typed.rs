//! Reads what the component sends with the parsers of the crate xmpp-parsers: an independent word on whether a reply has the
//! form that its XEP gives it.

use minidom::Element;
use xmpp_parsers::disco::{DiscoInfoResult, DiscoItemsResult};
use xmpp_parsers::pubsub;
use xmpp_parsers::stanza_error::StanzaError;

/// Reads a stanza of the component's. Panics if a typed parser does not accept what it has.
pub fn read(stanza: &Element) {
    if stanza.name() == "iq" {
        xmpp_parsers::iq::Iq::try_from(stanza.clone()).unwrap_or_else(|error| refused(stanza, &error));
    } else {
        xmpp_parsers::message::Message::try_from(stanza.clone()).unwrap_or_else(|error| refused(stanza, &error));
    }
    for payload in stanza.children() {
        let refused = |error: &dyn std::fmt::Debug| refused::<()>(stanza, error);
        let payload = payload.clone();
        match (payload.name(), payload.ns().as_str()) {
            ("pubsub", "http://jabber.org/protocol/pubsub") => {
                pubsub::PubSub::try_from(payload).map_or_else(|error| refused(&error), drop);
            }
            ("pubsub", "http://jabber.org/protocol/pubsub#owner") => {
                pubsub::owner::Owner::try_from(payload).map_or_else(|error| refused(&error), drop);
            }
            ("event", "http://jabber.org/protocol/pubsub#event") => {
                pubsub::Event::try_from(payload).map_or_else(|error| refused(&error), drop);
            }
            ("query", "http://jabber.org/protocol/disco#info") => {
                DiscoInfoResult::try_from(payload).map_or_else(|error| refused(&error), drop);
            }
            ("query", "http://jabber.org/protocol/disco#items") => {
                DiscoItemsResult::try_from(payload).map_or_else(|error| refused(&error), drop);
            }
            ("error", "jabber:client") => {
                StanzaError::try_from(payload).map_or_else(|error| refused(&error), drop);
            }
            _ => {}
        }
    }
}

fn refused<T>(stanza: &Element, error: &dyn std::fmt::Debug) -> T {
    panic!("{error:?}\n{}", String::from(stanza))
}
