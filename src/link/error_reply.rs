//! The error that the sender of a refused stanza gets (RFC 6120 §8.3).

use bytes::Bytes;
use jid::DomainRef;
use quick_xml::escape::escape;

use super::framer::Refusal;
use super::limits::{Limits, RefusalReason};
use super::stanza_head::StanzaKind;

/// The wrapper of ejabberd's `mod_delegation` (XEP-0355). What it hands over for a client never ends if it is answered with
/// an error: that finds its way to nobody. Of an answer with nothing in it, the module makes an error for the client.
const DELEGATED_BY_EJABBERD: &str = "urn:xmpp:delegation:1";

/// The reply to a refused stanza, ready to send; `None` where RFC 6120 forbids one (errors and results are never
/// answered, nor is presence here) or where it could not be addressed.
///
/// A limit is a "local service policy", so the condition is `<policy-violation/>` (§8.3.3.12) of type `modify`: the same
/// stanza, made smaller, is welcome.
pub(super) fn error_reply(refusal: &Refusal, limits: &Limits, component: &DomainRef) -> Option<Bytes> {
    let head = &refusal.head;
    let kind = match (head.kind?, head.stanza_type.as_deref()) {
        (StanzaKind::Iq, Some("get" | "set")) if head.id.is_some() => StanzaKind::Iq,
        (StanzaKind::Message, Some("error" | "result")) => return None,
        (StanzaKind::Message, _) => StanzaKind::Message,
        _ => return None,
    };
    let (from, to) = (head.from.as_deref()?, head.to.as_deref()?);
    // A server ends the stream of a component that speaks in another's name.
    if from.is_empty() || !domain_of(to).eq_ignore_ascii_case(component.as_str()) {
        return None;
    }
    let (error_type, condition, text) = explanation(refusal.reason, limits)?;
    let name = kind.name();
    let id = head.id.as_ref().map(|id| format!(" id='{}'", escape(id.as_str()))).unwrap_or_default();
    let is_servers = !from.contains(['@', '/']);
    if kind == StanzaKind::Iq && is_servers && head.payload.as_deref() == Some(DELEGATED_BY_EJABBERD) {
        let (from, to) = (escape(from), escape(to));
        return Some(Bytes::from(format!("<iq type='result' from='{to}' to='{from}'{id}/>")));
    }
    Some(Bytes::from(format!(
        "<{name} type='error' from='{}' to='{}'{id}><error type='{error_type}'>\
         <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
         <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>{}</text></error></{name}>",
        escape(to),
        escape(from),
        escape(text.as_str()),
    )))
}

fn explanation(reason: RefusalReason, limits: &Limits) -> Option<(&'static str, &'static str, String)> {
    let policy = |text: String| Some(("modify", "policy-violation", text));
    match reason {
        RefusalReason::StanzaBytes => {
            policy(format!("This stanza is too long: at most {} bytes are accepted here.", limits.stanza_bytes))
        }
        RefusalReason::Depth => {
            policy(format!("This stanza is nested too deep: at most {} levels are accepted here.", limits.depth))
        }
        RefusalReason::Elements => {
            policy(format!("This stanza has too many elements: at most {} are accepted here.", limits.elements))
        }
        RefusalReason::Attributes => policy(format!(
            "An element of this stanza has too many attributes: at most {} are accepted here.",
            limits.attributes
        )),
        RefusalReason::AttributeBytes => policy(format!(
            "An attribute or a name in this stanza is too long: at most {} bytes are accepted here.",
            limits.attribute_bytes
        )),
        RefusalReason::Namespace => Some((
            "modify",
            "bad-request",
            "This stanza breaks the rules of XML namespaces: a prefix is not declared or declared wrongly.".to_owned(),
        )),
        RefusalReason::ShuttingDown => Some((
            "wait",
            "recipient-unavailable",
            "This service is shutting down or being restarted. Please try again in a little while.".to_owned(),
        )),
        RefusalReason::NotAStanza => None,
    }
}

fn domain_of(jid: &str) -> &str {
    let bare = jid.split_once('/').map_or(jid, |(bare, _)| bare);
    bare.rsplit_once('@').map_or(bare, |(_, domain)| domain)
}

#[cfg(test)]
mod tests {
    use super::super::stanza_head::StanzaHead;
    use super::*;

    fn reply(stanza: &str) -> Option<String> {
        let refusal = Refusal { reason: RefusalReason::Depth, head: StanzaHead::read(stanza.as_bytes()) };
        let component = jid::DomainPart::new("multiend.example.org").unwrap();
        let reply = error_reply(&refusal, &Limits::default(), &component)?;
        Some(String::from_utf8(reply.to_vec()).unwrap())
    }

    #[test]
    fn the_sender_gets_its_id_back_from_the_address_it_wrote_to() {
        let reply = reply(
            "<message from='a@b/&lt;&apos;' to='alice\\40b@multiend.example.org/x@y' id='&quot;&amp;' type='chat'/>",
        );
        let head = StanzaHead::read(reply.as_deref().unwrap().as_bytes());
        assert_eq!(head.from.as_deref(), Some("alice\\40b@multiend.example.org/x@y"));
        assert_eq!(head.to.as_deref(), Some("a@b/<'"));
        assert_eq!(head.id.as_deref(), Some("\"&"));
        assert_eq!(head.stanza_type.as_deref(), Some("error"));
        let parsed: minidom::Element =
            reply.unwrap().replacen("<message", "<message xmlns='jabber:client'", 1).parse().unwrap();
        let error =
            xmpp_parsers::stanza_error::StanzaError::try_from(parsed.children().next().unwrap().clone()).unwrap();
        assert_eq!(error.defined_condition, xmpp_parsers::stanza_error::DefinedCondition::PolicyViolation);
        assert!(error.texts["en"].contains("64 levels"));
    }

    #[test]
    fn what_a_server_hands_over_for_a_client_is_answered_so_that_the_client_learns_of_it() {
        let wrapped = |from: &str, version: u8| {
            reply(&format!(
                "<iq type='set' id='rr-1' from='{from}' to='multiend.example.org'>\
                 <delegation xmlns='urn:xmpp:delegation:{version}'><forwarded xmlns='urn:xmpp:forward:0'><iq>"
            ))
            .unwrap()
        };
        assert_eq!(
            wrapped("example.org", 1),
            "<iq type='result' from='multiend.example.org' to='example.org' id='rr-1'/>"
        );
        for (from, version) in [("example.org", 2), ("alice@example.org/x", 1), ("example.org/x", 1)] {
            assert!(wrapped(from, version).starts_with("<iq type='error'"), "{from} {version}");
        }
    }

    #[test]
    fn what_must_not_be_answered_is_not() {
        for stanza in [
            "<message from='a@b' to='multiend.example.org' type='error'/>",
            "<iq from='a@b' to='multiend.example.org' type='result' id='1'/>",
            "<iq from='a@b' to='multiend.example.org' type='get'/>",
            "<presence from='a@b' to='multiend.example.org'/>",
            "<message to='multiend.example.org'/>",
            "<message from='a@b' to='somebody@else.example.org'/>",
            "<handshake/>",
        ] {
            assert_eq!(reply(stanza), None, "{stanza}");
        }
    }
}
