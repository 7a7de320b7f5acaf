//! What a message is, and whether an archive keeps it (DESIGN, "class"; XEP-0313 §6.1.1 and XEP-0334).
//!
//! Encryption is told by `<encrypted/>`, never by `<body/>`: half of all encrypted messages have no body, and those that do
//! have a hint for clients that cannot decrypt. Kept is what holds meaning for a device that was away; not kept is what
//! only meant something at the moment.

use crate::model::Class;
use crate::stanza::hints::Hints;
use crate::stanza::message::MessageType;
use crate::stanza::tree::{Element, STREAM};
use crate::stanza::{ephemeral, namespace, omemo};

/// Encrypted content other than OMEMO: OpenPGP (XEP-0373, XEP-0027).
const OTHER_ENCRYPTED: [(&str, &str); 2] = [("openpgp", "urn:xmpp:openpgp:0"), ("x", "jabber:x:encrypted")];

/// Content in clear that comes without a body.
const CONTENT: [(&str, &str); 12] = [
    ("subject", STREAM),
    ("reactions", "urn:xmpp:reactions:0"),
    ("retract", "urn:xmpp:message-retract:0"),
    ("retract", "urn:xmpp:message-retract:1"),
    ("apply-to", "urn:xmpp:fasten:0"),
    ("x", "jabber:x:oob"),
    ("x", "jabber:x:conference"),
    ("attention", "urn:xmpp:attention:0"),
    ("file-sharing", "urn:xmpp:sfs:0"),
    ("media-sharing", "urn:xmpp:sims:1"),
    ("html", "http://jabber.org/protocol/xhtml-im"),
    ("geoloc", "http://jabber.org/protocol/geoloc"),
];

/// What a device that was away needs in order to show the right state: receipts (XEP-0184), markers (XEP-0333), timers
/// (XEP-0466).
const SIGNALS: [(&str, &str); 5] = [
    ("received", "urn:xmpp:receipts"),
    ("received", "urn:xmpp:chat-markers:0"),
    ("displayed", "urn:xmpp:chat-markers:0"),
    ("acknowledged", "urn:xmpp:chat-markers:0"),
    ("ephemeral", ephemeral::NS),
];

/// Proposals, answers and ends of calls (XEP-0353): any element of this namespace.
const CALLS: &str = "urn:xmpp:jingle-message:0";

/// Namespaces of messages that bring copies of others, events, or results: nothing that was said to anybody.
const CARRIERS: [&str; 4] = ["urn:xmpp:carbons:2", namespace::MAM, namespace::PUBSUB_EVENT, "urn:xmpp:delegation:2"];

/// Why a message is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// Of type `error`.
    Error,
    /// Of type `headline`.
    Headline,
    /// Of type `groupchat`: rooms have their own archives.
    Groupchat,
    /// Its sender asks that it is not stored (XEP-0334).
    Hint,
    /// A carbon copy, an archive result or an event.
    Carrier,
    /// Chat states and the like, or nothing at all.
    NoContent,
    /// The operator keeps no messages of this class.
    Policy,
}

impl SkipReason {
    /// All, in a fixed order.
    pub const ALL: [Self; 7] =
        [Self::Error, Self::Headline, Self::Groupchat, Self::Hint, Self::Carrier, Self::NoContent, Self::Policy];

    /// The name used in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Headline => "headline",
            Self::Groupchat => "groupchat",
            Self::Hint => "hint",
            Self::Carrier => "carrier",
            Self::NoContent => "no-content",
            Self::Policy => "policy",
        }
    }
}

/// Whether an archive keeps a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It does, as this.
    Archive(Class),
    /// It does not.
    Skip(SkipReason),
}

/// Looks at a message stanza.
pub fn classify(message: &Element<'_>) -> Verdict {
    match MessageType::parse(message.attribute("type")) {
        MessageType::Error => return Verdict::Skip(SkipReason::Error),
        MessageType::Headline => return Verdict::Skip(SkipReason::Headline),
        MessageType::Groupchat => return Verdict::Skip(SkipReason::Groupchat),
        MessageType::Normal | MessageType::Chat => {}
    }
    let hints = Hints::of(message);
    if hints.no_store || hints.no_permanent_store {
        return Verdict::Skip(SkipReason::Hint);
    }
    let has = |names: &[(&str, &str)]| names.iter().any(|(name, ns)| message.child(name, ns).is_some());
    let encrypted = omemo::find(message);
    if encrypted.iter().any(|encrypted| encrypted.has_payload) || is_otherwise_encrypted(message) {
        Verdict::Archive(Class::Content)
    } else if !encrypted.is_empty() {
        Verdict::Archive(Class::KeyTransport)
    } else if message.child("body", STREAM).is_some() {
        Verdict::Archive(Class::Plain)
    } else if message.children().iter().any(|child| CARRIERS.contains(&child.namespace())) {
        Verdict::Skip(SkipReason::Carrier)
    } else if has(&CONTENT) || is_room_invitation(message) {
        Verdict::Archive(Class::Plain)
    } else if has(&SIGNALS) || hints.store || message.children().iter().any(|child| child.namespace() == CALLS) {
        Verdict::Archive(Class::Signal)
    } else {
        Verdict::Skip(SkipReason::NoContent)
    }
}

/// Whether it carries encrypted content other than OMEMO.
pub(super) fn is_otherwise_encrypted(message: &Element<'_>) -> bool {
    OTHER_ENCRYPTED.iter().any(|(name, ns)| message.child(name, ns).is_some())
}

/// A mediated invitation to a room, or its refusal (XEP-0045 §7.8.2).
fn is_room_invitation(message: &Element<'_>) -> bool {
    const NS: &str = "http://jabber.org/protocol/muc#user";
    message.child("x", NS).is_some_and(|x| x.child("invite", NS).is_some() || x.child("decline", NS).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OMEMO2: &str = "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'/><payload>QQ==</payload></encrypted>";
    const LEGACY: &str =
        "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/><payload>QQ==</payload></encrypted>";
    const KEY_ONLY: &str = "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/></encrypted>";

    fn of(attributes: &str, content: &str) -> Verdict {
        let source = format!("<message {attributes}>{content}</message>");
        classify(&Element::parse(source.as_bytes()).unwrap())
    }

    #[test]
    fn encryption_is_told_by_its_element_with_or_without_a_body() {
        let fallback = "<body>I sent you an OMEMO encrypted message</body>";
        for encrypted in [OMEMO2, LEGACY] {
            assert_eq!(of("type='chat'", encrypted), Verdict::Archive(Class::Content));
            assert_eq!(of("", &format!("{fallback}{encrypted}")), Verdict::Archive(Class::Content));
        }
        assert_eq!(of("type='chat'", KEY_ONLY), Verdict::Archive(Class::KeyTransport));
        assert_eq!(of("type='chat'", &format!("{fallback}{KEY_ONLY}")), Verdict::Archive(Class::KeyTransport));
        // Both protocols in one message, one of them only for a key.
        assert_eq!(of("", &format!("{KEY_ONLY}{OMEMO2}")), Verdict::Archive(Class::Content));
        assert_eq!(of("", "<openpgp xmlns='urn:xmpp:openpgp:0'>QQ==</openpgp>"), Verdict::Archive(Class::Content));
    }

    #[test]
    fn types_and_hints_keep_a_message_out() {
        let body = "<body>x</body>";
        assert_eq!(of("type='error'", &format!("{body}{OMEMO2}")), Verdict::Skip(SkipReason::Error));
        assert_eq!(of("type='error'", "<store xmlns='urn:xmpp:hints'/>"), Verdict::Skip(SkipReason::Error));
        assert_eq!(of("type='headline'", body), Verdict::Skip(SkipReason::Headline));
        assert_eq!(of("type='groupchat'", OMEMO2), Verdict::Skip(SkipReason::Groupchat));
        for hint in ["no-store", "no-permanent-store"] {
            let hinted = format!("{OMEMO2}<{hint} xmlns='urn:xmpp:hints'/><store xmlns='urn:xmpp:hints'/>");
            assert_eq!(of("", &hinted), Verdict::Skip(SkipReason::Hint));
        }
        assert_eq!(of("", &format!("{body}<no-copy xmlns='urn:xmpp:hints'/>")), Verdict::Archive(Class::Plain));
        assert_eq!(of("type='unheard-of'", body), Verdict::Archive(Class::Plain));
    }

    #[test]
    fn what_only_meant_something_at_the_moment_is_not_kept() {
        let composing = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
        assert_eq!(of("type='chat'", composing), Verdict::Skip(SkipReason::NoContent));
        assert_eq!(of("type='chat'", "<thread>t</thread>"), Verdict::Skip(SkipReason::NoContent));
        assert_eq!(of("", ""), Verdict::Skip(SkipReason::NoContent));
        assert_eq!(of("", &format!("{composing}<body>x</body>")), Verdict::Archive(Class::Plain));
        let hinted = format!("{composing}<store xmlns='urn:xmpp:hints'/>");
        assert_eq!(of("", &hinted), Verdict::Archive(Class::Signal));
        let carbon = "<sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'/></sent>";
        assert_eq!(of("", carbon), Verdict::Skip(SkipReason::Carrier));
        let event = "<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='n'/></event>";
        assert_eq!(of("", event), Verdict::Skip(SkipReason::Carrier));
    }

    #[test]
    fn content_and_signals_without_a_body() {
        let reactions = "<reactions xmlns='urn:xmpp:reactions:0' id='1'><reaction>x</reaction></reactions>";
        assert_eq!(of("type='chat'", reactions), Verdict::Archive(Class::Plain));
        let invitation = "<x xmlns='http://jabber.org/protocol/muc#user'><invite to='a@b'/></x>";
        assert_eq!(of("", invitation), Verdict::Archive(Class::Plain));
        assert_eq!(of("", "<received xmlns='urn:xmpp:receipts' id='1'/>"), Verdict::Archive(Class::Signal));
        assert_eq!(of("", "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>"), Verdict::Archive(Class::Signal));
        assert_eq!(of("", "<propose xmlns='urn:xmpp:jingle-message:0' id='1'/>"), Verdict::Archive(Class::Signal));
    }
}
