//! Privileged entity (XEP-0356): what a server lets us do for its users, and messages that it sends in their names. Of its
//! permissions only `message`, type `outgoing`, is of use here.
//!
//! The version of the namespace is not that of the delegation: ejabberd 23.01 speaks `urn:xmpp:privilege:1`, later ones and
//! Prosody `urn:xmpp:privilege:2`. A server says which when it grants something, and is answered in that.

use super::forwarded;
use super::hints;
use super::tree::{Element, push_attribute};

/// The versions of the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// `urn:xmpp:privilege:1`.
    One,
    /// `urn:xmpp:privilege:2`.
    Two,
}

impl Version {
    const ALL: [Self; 2] = [Self::One, Self::Two];

    /// The namespace.
    pub fn namespace(self) -> &'static str {
        match self {
            Self::One => "urn:xmpp:privilege:1",
            Self::Two => "urn:xmpp:privilege:2",
        }
    }
}

/// What a server has granted, as its message says (§4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// The version that the server speaks.
    pub version: Version,
    /// We may send messages in its users' names.
    pub messages: bool,
}

/// What a message says is granted; `None` if it is about something else.
pub fn granted(message: &Element<'_>) -> Option<Granted> {
    let find = |version: Version| message.child("privilege", version.namespace()).map(|privilege| (version, privilege));
    let (version, privilege) = Version::ALL.into_iter().find_map(find)?;
    let mut permissions = privilege.children_named("perm", version.namespace());
    let messages = permissions
        .any(|perm| perm.attribute("access") == Some("message") && perm.attribute("type") == Some("outgoing"));
    Some(Granted { version, messages })
}

/// One message in the name of an account.
#[derive(Debug)]
pub struct InTheName<'m> {
    /// In the version that the server granted it.
    pub version: Version,
    /// The component.
    pub component: &'m str,
    /// The server, which is the domain of the account.
    pub server: &'m str,
    /// The id under which the server says that it does not let this through.
    pub id: &'m str,
    /// Whose name.
    pub account: &'m str,
    /// For whom.
    pub to: &'m str,
    /// What the message holds.
    pub payload: &'m str,
}

impl InTheName<'_> {
    /// The stanza to the server. The message has no type, as a server's own results of an archive have none: clients look for
    /// them there. It is for now or never: if the session for which it is has gone, nobody should keep it.
    pub fn to_xml(&self) -> String {
        let mut out = String::with_capacity(self.payload.len().saturating_add(1_024));
        out.push_str("<message");
        push_attribute(&mut out, "from", self.component);
        push_attribute(&mut out, "to", self.server);
        push_attribute(&mut out, "id", self.id);
        out.push_str("><privilege");
        push_attribute(&mut out, "xmlns", self.version.namespace());
        out.push_str("><forwarded");
        push_attribute(&mut out, "xmlns", forwarded::NS);
        out.push_str("><message");
        push_attribute(&mut out, "xmlns", "jabber:client");
        push_attribute(&mut out, "from", self.account);
        push_attribute(&mut out, "to", self.to);
        out.push('>');
        out.push_str(self.payload);
        out.push_str("<no-store");
        push_attribute(&mut out, "xmlns", hints::NS);
        out.push_str("/></message></forwarded></privilege></message>");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::STREAM;
    use super::*;

    fn of(text: &str) -> Option<Granted> {
        granted(&Element::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_grant_names_its_version_and_what_it_is_for() {
        // As Prosody 0.12 and ejabberd 23.01 write it.
        let prosody = "<message><privilege xmlns='urn:xmpp:privilege:2'><perm access='message' type='outgoing'/></privilege></message>";
        assert_eq!(of(prosody), Some(Granted { version: Version::Two, messages: true }));
        let ejabberd = "<message><privilege xmlns='urn:xmpp:privilege:1'><perm access='message' type='outgoing'/>\
                        <perm access='roster' type='none'/><perm access='presence' type='none'/></privilege></message>";
        assert_eq!(of(ejabberd), Some(Granted { version: Version::One, messages: true }));
        assert_eq!(of(&ejabberd.replace("outgoing", "none")), Some(Granted { version: Version::One, messages: false }));
        assert_eq!(
            of(&prosody.replace("'message'", "'roster'")),
            Some(Granted { version: Version::Two, messages: false })
        );
        assert_eq!(of("<message><body>b</body></message>"), None);
    }

    #[test]
    fn a_message_in_the_name_of_an_account_is_wrapped_whole() {
        let message = InTheName {
            version: Version::One,
            component: "m.example.org",
            server: "example.org",
            id: "page-1",
            account: "alice@example.org",
            to: "alice@example.org/<phone>",
            payload: "<result xmlns='urn:xmpp:mam:2'/>",
        };
        let xml = message.to_xml();
        let stanza = Element::parse(xml.as_bytes()).unwrap();
        assert_eq!((stanza.attribute("to"), stanza.attribute("id")), (Some("example.org"), Some("page-1")));
        let forwarded =
            stanza.child("privilege", "urn:xmpp:privilege:1").unwrap().child("forwarded", forwarded::NS).unwrap();
        let inner = forwarded.child("message", STREAM).unwrap();
        assert_eq!(inner.attribute("from"), Some("alice@example.org"));
        assert_eq!((inner.attribute("to"), inner.attribute("type")), (Some("alice@example.org/<phone>"), None));
        assert!(inner.child("result", "urn:xmpp:mam:2").is_some() && inner.child("no-store", hints::NS).is_some());
    }
}
