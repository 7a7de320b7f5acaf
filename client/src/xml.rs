//! Elements as this client builds and reads them, and the namespaces it speaks.
//!
//! Payloads are read leniently from [`Element`]s: what is unknown is ignored (RFC 6120 §8.4).

use minidom::Element;
use minidom::rxml::{NcName, NcNameStr};

pub(crate) mod ns {
    //! Namespaces.

    pub(crate) const ARCHIVE: &str = "urn:xmpp:mam:2";
    pub(crate) const CARBONS: &str = "urn:xmpp:carbons:2";
    pub(crate) const CLIENT: &str = "jabber:client";
    pub(crate) const DATA: &str = "jabber:x:data";
    pub(crate) const DELAY: &str = "urn:xmpp:delay";
    pub(crate) const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
    pub(crate) const EME: &str = "urn:xmpp:eme:0";
    pub(crate) const EPHEMERAL: &str = "urn:xmpp:ephemeral:0";
    pub(crate) const FORWARD: &str = "urn:xmpp:forward:0";
    pub(crate) const LEGACY: &str = "eu.siacs.conversations.axolotl";
    pub(crate) const LEGACY_DEVICES: &str = "eu.siacs.conversations.axolotl.devicelist";
    pub(crate) const HINTS: &str = "urn:xmpp:hints";
    pub(crate) const MULTIEND: &str = "urn:multiend:0";
    pub(crate) const OMEMO2: &str = "urn:xmpp:omemo:2";
    pub(crate) const OMEMO2_BUNDLES: &str = "urn:xmpp:omemo:2:bundles";
    pub(crate) const OMEMO2_DEVICES: &str = "urn:xmpp:omemo:2:devices";
    pub(crate) const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
    pub(crate) const PUBSUB_EVENT: &str = "http://jabber.org/protocol/pubsub#event";
    pub(crate) const RSM: &str = "http://jabber.org/protocol/rsm";
    pub(crate) const SID: &str = "urn:xmpp:sid:0";
}

/// An element under construction.
pub(crate) struct Build(Element);

impl Build {
    pub(crate) fn new(name: &str, namespace: &str) -> Self {
        Self(Element::bare(name, namespace))
    }

    /// Sets an attribute.
    pub(crate) fn attr(mut self, name: &'static NcNameStr, value: impl ToString) -> Self {
        let name: NcName = name.to_owned();
        self.0.set_attr(minidom::rxml::Namespace::NONE, name, value.to_string());
        self
    }

    /// Appends a child.
    pub(crate) fn child(mut self, child: impl Into<Element>) -> Self {
        self.0.append_child(child.into());
        self
    }

    /// Appends children.
    pub(crate) fn children(self, children: impl IntoIterator<Item = Element>) -> Self {
        children.into_iter().fold(self, Self::child)
    }

    /// Appends text.
    pub(crate) fn text(mut self, text: impl Into<String>) -> Self {
        self.0.append_text_node(text);
        self
    }
}

impl From<Build> for Element {
    fn from(build: Build) -> Self {
        build.0
    }
}

/// A data form to submit (XEP-0004): `FORM_TYPE` first, then the fields.
pub(crate) fn submit_form(form_type: &str, fields: &[(&str, &str)]) -> Element {
    use minidom::rxml::xml_ncname;
    let field = |var: &str, value: &str| {
        Build::new("field", ns::DATA).attr(xml_ncname!("var"), var).child(Build::new("value", ns::DATA).text(value))
    };
    Build::new("x", ns::DATA)
        .attr(xml_ncname!("type"), "submit")
        .child(field("FORM_TYPE", form_type).attr(xml_ncname!("type"), "hidden"))
        .children(fields.iter().map(|(var, value)| field(var, value).into()))
        .into()
}
