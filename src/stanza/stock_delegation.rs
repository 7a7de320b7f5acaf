//! Namespace delegation (XEP-0355) as the stock `mod_delegation` of servers speaks it, in either version of its namespace:
//! Prosody's `urn:xmpp:delegation:2`, ejabberd's `urn:xmpp:delegation:1`. What a plugin of ours adds to the wrapper is in
//! [`super::delegation`].
//!
//! An answer repeats addresses and id letter by letter as they were in the request: Prosody compares texts, and ejabberd
//! the parts of a JID before they are prepared. Nothing else may be in it, not even white space.

use jid::Jid;

use super::error::StanzaError;
use super::forwarded;
use super::namespace::{DELEGATION, DISCO_INFO};
use super::tree::{Element, STREAM, push_attribute};

/// The versions of the namespace. What is asked in one is answered in the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// `urn:xmpp:delegation:1`.
    One,
    /// `urn:xmpp:delegation:2`.
    Two,
}

impl Version {
    /// Both.
    pub const ALL: [Self; 2] = [Self::One, Self::Two];

    /// The namespace.
    pub fn namespace(self) -> &'static str {
        match self {
            Self::One => "urn:xmpp:delegation:1",
            Self::Two => DELEGATION,
        }
    }

    fn of(namespace: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.namespace() == namespace)
    }
}

/// The version of a stock wrapper; `None` for anything else, a plugin's wrapper included: that names an `owner`.
pub fn version(payload: &Element<'_>) -> Option<Version> {
    let is_plugins = payload.attribute("owner").is_some() || payload.attribute("relation").is_some();
    Version::of(payload.namespace()).filter(|_| payload.name() == "delegation" && !is_plugins)
}

/// Why a wrapper cannot be answered, not even with an error in it. The server is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrapperError {
    /// No wrapper, or not around exactly one `<forwarded/>` with an `<iq/>`.
    #[error("a wrapper holds one forwarded request")]
    Request,
    /// Nobody asks.
    #[error("the forwarded request has no valid sender")]
    Sender,
}

/// A request that a server forwards. It can be answered, whatever else is wrong with it.
#[derive(Debug)]
pub struct Delegated<'e, 'a> {
    version: Version,
    iq: &'e Element<'a>,
    from: &'e str,
    requester: Jid,
}

impl<'e, 'a> Delegated<'e, 'a> {
    /// Reads a wrapper.
    pub fn parse(wrapper: &'e Element<'a>) -> Result<Self, WrapperError> {
        let version = version(wrapper).ok_or(WrapperError::Request)?;
        let [forwarded] = wrapper.children() else { return Err(WrapperError::Request) };
        let iq = match forwarded.is("forwarded", forwarded::NS) {
            true => forwarded.child("iq", STREAM).ok_or(WrapperError::Request)?,
            false => return Err(WrapperError::Request),
        };
        let from = iq.attribute("from").ok_or(WrapperError::Sender)?;
        let requester = Jid::new(from).map_err(|_| WrapperError::Sender)?;
        Ok(Self { version, iq, from, requester })
    }

    /// Who asks.
    pub fn requester(&self) -> &Jid {
        &self.requester
    }

    /// Who is asked: the own account if nobody is named. `None` if that is no JID.
    pub fn addressee(&self) -> Option<Jid> {
        match self.iq.attribute("to") {
            None => Some(self.requester.to_bare().into()),
            Some(to) => Jid::new(to).ok(),
        }
    }

    /// What is asked, and whether with `set`, not `get`. `None` if it is no request.
    pub fn payload(&self) -> Option<(&'e Element<'a>, bool)> {
        let is_set = match self.iq.attribute("type") {
            Some("set") => true,
            Some("get") => false,
            _ => return None,
        };
        match self.iq.children() {
            [payload] => Some((payload, is_set)),
            _ => None,
        }
    }

    /// The answer in its wrapper: the payload of a result (empty for none), or an error.
    pub fn answer(&self, result: Result<&str, &StanzaError>) -> String {
        let mut out = String::with_capacity(result.map_or(0, str::len).saturating_add(1_024));
        out.push_str("<delegation");
        push_attribute(&mut out, "xmlns", self.version.namespace());
        out.push_str("><forwarded");
        push_attribute(&mut out, "xmlns", forwarded::NS);
        out.push_str("><iq");
        push_attribute(&mut out, "xmlns", "jabber:client");
        let own_account = self.requester.to_bare();
        push_attribute(&mut out, "from", self.iq.attribute("to").unwrap_or(own_account.as_str()));
        push_attribute(&mut out, "to", self.from);
        if let Some(id) = self.iq.attribute("id") {
            push_attribute(&mut out, "id", id);
        }
        push_attribute(&mut out, "type", if result.is_ok() { "result" } else { "error" });
        out.push('>');
        match result {
            Ok(payload) => out.push_str(payload),
            Err(error) => out.push_str(&error.to_xml()),
        }
        out.push_str("</iq></forwarded></delegation>");
        out
    }
}

/// The namespaces that a server says it delegates to us (XEP-0355 §4.2); `None` if a message does not say so.
pub fn delegated_namespaces<'e>(message: &'e Element<'_>) -> Option<Vec<&'e str>> {
    let told = message.children().iter().find(|child| version(child).is_some())?;
    let namespaces = told.children_named("delegated", told.namespace());
    Some(namespaces.filter_map(|delegated| delegated.attribute("namespace")).collect())
}

/// Whose features a server asks for, to show them as its own (XEP-0355 §7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nested {
    /// The server's.
    Server,
    /// Those of its accounts.
    Accounts,
}

/// Whose features a node of disco#info stands for, and for which namespace; `None` for any other node.
pub fn nested(node: &str) -> Option<(Nested, &str)> {
    let rest = Version::ALL.into_iter().find_map(|version| node.strip_prefix(version.namespace()))?;
    let server = rest.strip_prefix("::").map(|namespace| (Nested::Server, namespace));
    server.or_else(|| rest.strip_prefix(":bare:").map(|namespace| (Nested::Accounts, namespace)))
}

/// The answer to disco#info about such a node.
pub fn nested_info<'f>(node: &str, features: impl IntoIterator<Item = &'f str>) -> String {
    let mut out = String::from("<query");
    push_attribute(&mut out, "xmlns", DISCO_INFO);
    push_attribute(&mut out, "node", node);
    out.push('>');
    for feature in features {
        out.push_str("<feature");
        push_attribute(&mut out, "var", feature);
        out.push_str("/>");
    }
    out.push_str("</query>");
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::error::Condition;
    use super::super::tree::push_text;
    use super::*;

    const GOOD: &str = "<delegation xmlns='urn:xmpp:delegation:1'><forwarded xmlns='urn:xmpp:forward:0'>\
                        <iq xmlns='jabber:client' type='set' id='q1' from='alice@example.org/phone' to='Alice@Example.org'>\
                        <query xmlns='urn:xmpp:mam:2'/></iq></forwarded></delegation>";

    #[test]
    fn a_wrapper_is_answered_in_its_own_version_and_letters() {
        for ns in ["urn:xmpp:delegation:1", "urn:xmpp:delegation:2"] {
            let text = GOOD.replace("urn:xmpp:delegation:1", ns);
            let element = Element::parse(text.as_bytes()).unwrap();
            let asked = Delegated::parse(&element).unwrap();
            assert_eq!(asked.requester().as_str(), "alice@example.org/phone");
            assert_eq!(asked.addressee().unwrap().as_str(), "alice@example.org");
            let (payload, is_set) = asked.payload().unwrap();
            assert!(payload.is("query", "urn:xmpp:mam:2") && is_set);
            assert_eq!(
                asked.answer(Ok("<fin xmlns='urn:xmpp:mam:2'/>")),
                format!(
                    "<delegation xmlns='{ns}'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' \
                     from='Alice@Example.org' to='alice@example.org/phone' id='q1' type='result'>\
                     <fin xmlns='urn:xmpp:mam:2'/></iq></forwarded></delegation>"
                )
            );
        }
    }

    #[test]
    fn without_an_addressee_the_own_account_answers() {
        let text = GOOD.replace(" to='Alice@Example.org'", "").replace(" id='q1'", "");
        let element = Element::parse(text.as_bytes()).unwrap();
        let asked = Delegated::parse(&element).unwrap();
        assert_eq!(asked.addressee().unwrap().as_str(), "alice@example.org");
        let answer = asked.answer(Err(&StanzaError::new(Condition::Forbidden, "no")));
        assert!(answer.contains(
            "<iq xmlns='jabber:client' from='alice@example.org' to='alice@example.org/phone' type='error'><error "
        ));
    }

    #[test]
    fn what_is_wrong_with_a_request_can_still_be_answered() {
        for (text, wrong) in [
            (GOOD.replace("to='Alice@", "to='@"), "addressee"),
            (GOOD.replace("type='set'", "type='result'"), "payload"),
            (GOOD.replace("type='set'", ""), "payload"),
            (GOOD.replace("<query xmlns='urn:xmpp:mam:2'/>", ""), "payload"),
            (GOOD.replace("</iq>", "<x xmlns='y'/></iq>"), "payload"),
        ] {
            let element = Element::parse(text.as_bytes()).unwrap();
            let asked = Delegated::parse(&element).unwrap();
            assert_eq!(
                (asked.addressee().is_none(), asked.payload().is_none()),
                (wrong == "addressee", wrong == "payload")
            );
        }
    }

    #[test]
    fn only_a_wrapper_around_a_request_of_somebody_is_one() {
        for (text, expected) in [
            (GOOD.replace(" from='alice@example.org/phone'", ""), WrapperError::Sender),
            (GOOD.replace("alice@example.org/phone", "@"), WrapperError::Sender),
            (GOOD.replace("urn:xmpp:forward:0", "urn:x"), WrapperError::Request),
            (GOOD.replace("urn:xmpp:delegation:1", "urn:xmpp:delegation:3"), WrapperError::Request),
            (
                GOOD.replace("</delegation>", "<forwarded xmlns='urn:xmpp:forward:0'/></delegation>"),
                WrapperError::Request,
            ),
            (GOOD.replace("<iq ", "<message ").replace("</iq>", "</message>"), WrapperError::Request),
            ("<delegation xmlns='urn:xmpp:delegation:2'/>".to_owned(), WrapperError::Request),
        ] {
            let element = Element::parse(text.as_bytes()).unwrap();
            assert_eq!(Delegated::parse(&element).unwrap_err(), expected, "{text}");
        }
        let plugins = GOOD.replace("<delegation ", "<delegation owner='alice@example.org' relation='self' ");
        assert_eq!(version(&Element::parse(plugins.as_bytes()).unwrap()), None);
    }

    #[test]
    fn a_server_says_what_it_delegates_and_asks_what_there_is() {
        let told = "<message><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='urn:xmpp:mam:2'/>\
                    <delegated namespace='urn:x'><attribute name='node'/></delegated></delegation></message>";
        let element = Element::parse(told.as_bytes()).unwrap();
        assert_eq!(delegated_namespaces(&element), Some(vec!["urn:xmpp:mam:2", "urn:x"]));
        assert_eq!(delegated_namespaces(&Element::parse(b"<message><body/></message>").unwrap()), None);

        let mam = "urn:xmpp:mam:2";
        assert_eq!(nested("urn:xmpp:delegation:1::urn:xmpp:mam:2"), Some((Nested::Server, mam)));
        assert_eq!(nested("urn:xmpp:delegation:2:bare:urn:xmpp:mam:2"), Some((Nested::Accounts, mam)));
        for other in [
            "urn:xmpp:delegation:3::x",
            "urn:xmpp:delegation:1",
            "urn:xmpp:delegation:1:x",
            "urn:xmpp:omemo:2:devices",
            "",
        ] {
            assert_eq!(nested(other), None, "{other}");
        }
        assert_eq!(
            nested_info("n'", [mam]),
            "<query xmlns='http://jabber.org/protocol/disco#info' node='n&apos;'><feature var='urn:xmpp:mam:2'/></query>"
        );
    }

    proptest! {
        #[test]
        fn addresses_and_ids_come_back_letter_by_letter(
            id in proptest::option::of("[ -~äß€😀]{0,40}"),
            node in "[A-Za-z0-9.!#$%*+=?^_`{|}~-]{1,20}",
            resource in "[!-~äß€😀]{1,40}",
            to in proptest::option::of("[ -~ä€]{0,40}"),
            two in any::<bool>(),
        ) {
            let version = if two { Version::Two } else { Version::One };
            let from = format!("{node}@Example.ORG/{resource}");
            prop_assume!(Jid::new(&from).is_ok());
            let mut iq = String::from("<iq xmlns='jabber:client' type='get'");
            push_attribute(&mut iq, "from", &from);
            for (key, value) in [("id", &id), ("to", &to)] {
                value.iter().for_each(|value| push_attribute(&mut iq, key, value));
            }
            let text = format!(
                "<delegation xmlns='{}'><forwarded xmlns='urn:xmpp:forward:0'>{iq}><x xmlns='y'/></iq></forwarded></delegation>",
                version.namespace()
            );
            let element = Element::parse(text.as_bytes()).unwrap();
            let asked = Delegated::parse(&element).unwrap();
            let mut said = String::new();
            push_text(&mut said, &from);
            let error = StanzaError::new(Condition::BadRequest, said);
            for result in [Ok("<y xmlns='z'/>"), Err(&error)] {
                let answer = asked.answer(result);
                let answer = Element::parse(answer.as_bytes()).unwrap();
                prop_assert!(answer.is("delegation", version.namespace()));
                let iq = &answer.children()[0].children()[0];
                prop_assert_eq!(iq.attribute("to"), Some(from.as_str()));
                prop_assert_eq!(iq.attribute("id"), id.as_deref());
                prop_assert_eq!(iq.attribute("type"), Some(if result.is_ok() { "result" } else { "error" }));
                if let Some(to) = &to {
                    prop_assert_eq!(iq.attribute("from"), Some(to.as_str()));
                }
                prop_assert_eq!(iq.children().len(), 1);
            }
        }
    }
}
