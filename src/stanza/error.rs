//! Stanza errors (RFC 6120 §8.3) with the pubsub conditions of XEP-0060.

use super::namespace::MULTIEND;
use super::tree::{push_attribute, push_text};

/// A defined condition, with the error type that RFC 6120 recommends and the code of XEP-0086. Old clients look at the code:
/// one publishes its first device list only if item-not-found carries 404.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The stanza makes no sense.
    BadRequest,
    /// A name or id is taken, or the state does not allow it.
    Conflict,
    /// Understood, but not offered.
    FeatureNotImplemented,
    /// Not for this requester.
    Forbidden,
    /// A fault on our side; trying again may help.
    InternalServerError,
    /// No such account, node or item.
    ItemNotFound,
    /// Understood, but refused as it stands.
    NotAcceptable,
    /// Against this service's limits.
    PolicyViolation,
    /// Too busy, or the database is away; try again later.
    ResourceConstraint,
    /// Nobody here, or nothing that handles this.
    ServiceUnavailable,
}

impl Condition {
    /// All, in a fixed order.
    pub const ALL: [Self; 10] = [
        Self::BadRequest,
        Self::Conflict,
        Self::FeatureNotImplemented,
        Self::Forbidden,
        Self::InternalServerError,
        Self::ItemNotFound,
        Self::NotAcceptable,
        Self::PolicyViolation,
        Self::ResourceConstraint,
        Self::ServiceUnavailable,
    ];

    /// The name of its element.
    pub fn name(self) -> &'static str {
        self.parts().0
    }

    fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::BadRequest => ("bad-request", "modify", "400"),
            Self::Conflict => ("conflict", "cancel", "409"),
            Self::FeatureNotImplemented => ("feature-not-implemented", "cancel", "501"),
            Self::Forbidden => ("forbidden", "auth", "403"),
            Self::InternalServerError => ("internal-server-error", "wait", "500"),
            Self::ItemNotFound => ("item-not-found", "cancel", "404"),
            Self::NotAcceptable => ("not-acceptable", "modify", "406"),
            Self::PolicyViolation => ("policy-violation", "modify", "406"),
            Self::ResourceConstraint => ("resource-constraint", "wait", "500"),
            Self::ServiceUnavailable => ("service-unavailable", "cancel", "503"),
        }
    }
}

/// A condition of XEP-0060 that goes beside the defined one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PubsubCondition {
    /// The payload is not what the node holds.
    InvalidPayload,
    /// The payload is longer than the node takes.
    PayloadTooBig,
    /// A publish without payload.
    PayloadRequired,
    /// A request without a node.
    NodeIdRequired,
    /// A retraction without an item id.
    ItemRequired,
    /// The publish-options ask for what is refused.
    PreconditionNotMet,
    /// The `jid` of a subscription is not the requester's.
    InvalidJid,
    /// Unsubscribing without a subscription.
    NotSubscribed,
    /// A feature of XEP-0060 that is not offered, by its name.
    Unsupported(&'static str),
}

impl PubsubCondition {
    fn write(self, out: &mut String) {
        let name = match self {
            Self::InvalidPayload => "invalid-payload",
            Self::PayloadTooBig => "payload-too-big",
            Self::PayloadRequired => "payload-required",
            Self::NodeIdRequired => "nodeid-required",
            Self::ItemRequired => "item-required",
            Self::PreconditionNotMet => "precondition-not-met",
            Self::InvalidJid => "invalid-jid",
            Self::NotSubscribed => "not-subscribed",
            Self::Unsupported(_) => "unsupported",
        };
        out.push('<');
        out.push_str(name);
        push_attribute(out, "xmlns", "http://jabber.org/protocol/pubsub#errors");
        if let Self::Unsupported(feature) = self {
            push_attribute(out, "feature", feature);
        }
        out.push_str("/>");
    }
}

/// A condition of our own extension (docs/protocol.md) that goes beside the defined one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtensionCondition {
    /// The head of a history that the requester knows was never that of this history.
    NotOnChain,
}

impl ExtensionCondition {
    fn write(self, out: &mut String) {
        let name = match self {
            Self::NotOnChain => "not-on-chain",
        };
        out.push('<');
        out.push_str(name);
        push_attribute(out, "xmlns", MULTIEND);
        out.push_str("/>");
    }
}

/// An error to send back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StanzaError {
    /// The defined condition.
    pub condition: Condition,
    /// XEP-0060's, where there is one.
    pub pubsub: Option<PubsubCondition>,
    /// Our own, where there is one.
    pub extension: Option<ExtensionCondition>,
    /// What a person should read.
    pub text: String,
}

impl StanzaError {
    /// An error with a text that a person understands.
    pub fn new(condition: Condition, text: impl Into<String>) -> Self {
        Self { condition, pubsub: None, extension: None, text: text.into() }
    }

    /// The same with a condition of XEP-0060.
    #[must_use]
    pub fn with_pubsub(mut self, condition: PubsubCondition) -> Self {
        self.pubsub = Some(condition);
        self
    }

    /// The same with a condition of our own extension.
    #[must_use]
    pub fn with_extension(mut self, condition: ExtensionCondition) -> Self {
        self.extension = Some(condition);
        self
    }

    /// The `<error/>` element, without a namespace declaration: it belongs to the stream's.
    pub fn to_xml(&self) -> String {
        let (name, kind, code) = self.condition.parts();
        let mut out = String::with_capacity(256);
        out.push_str("<error");
        push_attribute(&mut out, "type", kind);
        push_attribute(&mut out, "code", code);
        out.push_str("><");
        out.push_str(name);
        out.push_str(
            " xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>",
        );
        push_text(&mut out, &self.text);
        out.push_str("</text>");
        if let Some(pubsub) = self.pubsub {
            pubsub.write(&mut out);
        }
        if let Some(extension) = self.extension {
            extension.write(&mut out);
        }
        out.push_str("</error>");
        out
    }
}

/// The condition of a stanza that stands as [`super::incoming::Incoming::error`] writes it; `None` for any other stanza.
pub fn condition_of(stanza: &str) -> Option<Condition> {
    let (head, content) = stanza.split_once('>')?;
    // In the value of another attribute the quotes would be escaped.
    if !head.contains(" type='error'") {
        return None;
    }
    let (_, condition) = content.strip_prefix("<error ")?.split_once("><")?;
    let name = condition.split(' ').next()?;
    Condition::ALL.into_iter().find(|condition| condition.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stanza::incoming::Incoming;

    #[test]
    fn the_condition_of_every_error_that_is_written_is_found_again() {
        let request = b"<iq xmlns='jabber:component:accept' type='get' id=\"type='error'\" from='a@b/c' to='d'><x xmlns='y'/></iq>";
        let request = Incoming::parse(request).unwrap();
        for condition in Condition::ALL {
            let error = StanzaError::new(condition, "<why>").with_pubsub(PubsubCondition::InvalidPayload);
            assert_eq!(condition_of(&request.error(&error)), Some(condition));
        }
        assert_eq!(condition_of(&request.result("<error type='cancel'><conflict xmlns='x'/></error>")), None);
    }
}
