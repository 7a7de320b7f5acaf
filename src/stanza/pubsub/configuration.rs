//! How nodes are configured (XEP-0060 §8.2), which nobody can change: what is told is what holds.
//!
//! A client may say the same thing back, and be answered that it is so; a client that asks for something else is told that
//! it does not get it. Two requests say so in two ways. In `<configure/>` every known field counts. In `<publish-options/>`
//! (§7.1.5) only those that say who may read and write and what is kept are preconditions: they alone would leave a client
//! with a false belief about its keys. How events are delivered, or what a node is called, refuses no publish.

use super::node::Node;
use crate::stanza::error::{Condition, PubsubCondition, StanzaError};
use crate::stanza::namespace::{DATA_FORM, NODE_CONFIG, NODE_META_DATA, PUBLISH_OPTIONS, PUBSUB_OWNER};
use crate::stanza::tree::{Element, push_attribute};

/// Most fields of a form that is taken.
const MAX_FIELDS: usize = 64;

/// What a field of the form is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Boolean,
    /// One of a list of which only one is offered.
    Choice,
    Text,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Choice => "list-single",
            Self::Text => "text-single",
        }
    }
}

/// What a field that asks for something else costs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// Who may read or write, and what is kept: also a publish is refused.
    Precondition,
    /// Anything else: only a configuration is refused.
    Preference,
}

/// One setting, its value, and what it weighs.
struct Setting {
    var: &'static str,
    label: &'static str,
    kind: Kind,
    weight: Weight,
    /// `None`: it depends on the node.
    value: Option<&'static str>,
}

const fn setting(
    var: &'static str,
    label: &'static str,
    kind: Kind,
    weight: Weight,
    value: Option<&'static str>,
) -> Setting {
    Setting { var, label, kind, weight, value }
}

const ACCESS_MODEL: &str = "pubsub#access_model";
const PUBLISH_MODEL: &str = "pubsub#publish_model";
const MAX_ITEMS: &str = "pubsub#max_items";
const TITLE: &str = "pubsub#title";
const TYPE: &str = "pubsub#type";

/// The truth about every node.
const SETTINGS: [Setting; 16] = [
    setting(ACCESS_MODEL, "Who may read", Kind::Choice, Weight::Precondition, Some("open")),
    setting(PUBLISH_MODEL, "Who may publish", Kind::Choice, Weight::Precondition, Some("publishers")),
    setting("pubsub#persist_items", "Items are kept", Kind::Boolean, Weight::Precondition, Some("true")),
    setting(MAX_ITEMS, "Most items kept", Kind::Text, Weight::Precondition, None),
    setting("pubsub#item_expire", "Seconds until an item goes", Kind::Text, Weight::Precondition, Some("max")),
    setting("pubsub#purge_offline", "Purge when offline", Kind::Boolean, Weight::Precondition, Some("false")),
    setting("pubsub#node_type", "Kind of node", Kind::Choice, Weight::Precondition, Some("leaf")),
    setting(TYPE, "Kind of payload", Kind::Text, Weight::Preference, None),
    setting(TITLE, "Title", Kind::Text, Weight::Preference, None),
    setting("pubsub#deliver_notifications", "Deliver events", Kind::Boolean, Weight::Preference, Some("true")),
    setting("pubsub#deliver_payloads", "Deliver payloads with events", Kind::Boolean, Weight::Preference, Some("true")),
    setting("pubsub#notify_retract", "Tell of retracted items", Kind::Boolean, Weight::Preference, Some("true")),
    setting("pubsub#notify_delete", "Tell of a deleted node", Kind::Boolean, Weight::Preference, Some("true")),
    setting(
        "pubsub#notify_config",
        "Tell of a changed configuration",
        Kind::Boolean,
        Weight::Preference,
        Some("false"),
    ),
    setting("pubsub#notification_type", "Type of events", Kind::Choice, Weight::Preference, Some("headline")),
    setting(
        "pubsub#send_last_published_item",
        "When to send the last item",
        Kind::Choice,
        Weight::Preference,
        Some("never"),
    ),
];

/// Fields of XEP-0060's registry that mean nothing here: whatever they say holds as well as not.
const WITHOUT_MEANING: [&str; 13] = [
    "pubsub#body_xslt",
    "pubsub#contact",
    "pubsub#dataform_xslt",
    "pubsub#description",
    "pubsub#itemreply",
    "pubsub#language",
    "pubsub#max_payload_size",
    "pubsub#notify_sub",
    "pubsub#presence_based_delivery",
    "pubsub#publish_node_full",
    "pubsub#roster_groups_allowed",
    "pubsub#subscribe",
    "pubsub#tempsub",
];

impl Setting {
    /// Its value for a node; for no node in particular if there is none.
    fn value_for(&self, node: Option<Node>) -> &'static str {
        match (self.value, self.var, node) {
            (Some(value), _, _) => value,
            (None, MAX_ITEMS, Some(Node::DeviceList(_) | Node::LegacyBundle(_))) => "1",
            (None, MAX_ITEMS, _) => "max",
            (None, TYPE, Some(node)) => node.payload_namespace(),
            (None, TITLE, Some(node)) => node.title(),
            (None, _, _) => "",
        }
    }

    /// Whether what is asked for is what holds. An empty value asks for nothing.
    fn holds(&self, asked: &str, node: Node) -> bool {
        let asked = asked.trim();
        match (self.kind, self.var) {
            _ if asked.is_empty() => true,
            // A node with room for one keeps one, and one that is asked to keep a few keeps all of them.
            (_, MAX_ITEMS) => asked == "max" || asked.parse::<u64>().is_ok_and(|max| max > 0),
            (Kind::Boolean, _) => {
                let truth = self.value_for(Some(node));
                asked == truth || matches!((asked, truth), ("1", "true") | ("0", "false"))
            }
            (Kind::Choice | Kind::Text, _) => asked == self.value_for(Some(node)),
        }
    }
}

/// A configuration that may be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// It asks for what holds.
    Holds,
    /// The client thought better of it.
    Cancelled,
}

/// Reads a submitted configuration. One that asks for something else is not acceptable (XEP-0060 §8.2.5.3).
pub fn submitted(form: &Element<'_>, node: Node) -> Result<Submitted, StanzaError> {
    if form.attribute("type") == Some("cancel") {
        return Ok(Submitted::Cancelled);
    }
    for (var, value) in fields(form, NODE_CONFIG)? {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.var == var) else { continue };
        if !setting.holds(value, node) {
            return Err(StanzaError::new(Condition::NotAcceptable, refusal(setting, node)));
        }
    }
    Ok(Submitted::Holds)
}

/// Checks publish-options: preconditions that do not hold, and fields that nobody knows, refuse the publish.
pub fn check_options(form: &Element<'_>, node: Node) -> Result<(), StanzaError> {
    let refused =
        |text| Err(StanzaError::new(Condition::Conflict, text).with_pubsub(PubsubCondition::PreconditionNotMet));
    for (var, value) in fields(form, PUBLISH_OPTIONS)? {
        match SETTINGS.iter().find(|setting| setting.var == var) {
            Some(setting) if setting.weight == Weight::Precondition && !setting.holds(value, node) => {
                return refused(refusal(setting, node));
            }
            Some(_) => {}
            None if WITHOUT_MEANING.contains(&var) => {}
            None => {
                let var: String = var.chars().take(64).collect();
                return refused(format!("{var} is no setting that a node could have"));
            }
        }
    }
    Ok(())
}

fn refusal(setting: &Setting, node: Node) -> String {
    format!("{} is always '{}' for {}", setting.var, setting.value_for(Some(node)), node.name())
}

/// The fields of a form with the first value of each. A form that names another type is refused; one that names none is
/// taken for the right one.
fn fields<'f>(form: &'f Element<'_>, form_type: &str) -> Result<Vec<(&'f str, &'f str)>, StanzaError> {
    let mut fields = Vec::new();
    for field in form.children_named("field", DATA_FORM) {
        let var = field.attribute("var").unwrap_or_default();
        let value = field.child("value", DATA_FORM).map(Element::text).unwrap_or_default();
        if var == "FORM_TYPE" {
            if value != form_type {
                return Err(StanzaError::new(Condition::BadRequest, format!("the FORM_TYPE here is {form_type}")));
            }
            continue;
        }
        if var.is_empty() || fields.len() >= MAX_FIELDS {
            return Err(StanzaError::new(Condition::BadRequest, "a form field without a name, or too many of them"));
        }
        fields.push((var, value));
    }
    Ok(fields)
}

/// `<pubsub><configure/></pubsub>`: how a node is configured.
pub fn result(node: Node) -> String {
    let mut out = format!("<pubsub xmlns='{PUBSUB_OWNER}'><configure");
    push_attribute(&mut out, "node", &node.name());
    out.push('>');
    push_form(&mut out, Some(node));
    out.push_str("</configure></pubsub>");
    out
}

/// `<pubsub><default/></pubsub>`: how a node that is published to for the first time will be configured.
pub fn default_result() -> String {
    let mut out = format!("<pubsub xmlns='{PUBSUB_OWNER}'><default>");
    push_form(&mut out, None);
    out.push_str("</default></pubsub>");
    out
}

fn push_form(out: &mut String, node: Option<Node>) {
    out.push_str("<x xmlns='jabber:x:data' type='form'>");
    push_form_type(out, NODE_CONFIG);
    for setting in &SETTINGS {
        let value = setting.value_for(node);
        out.push_str("<field");
        push_attribute(out, "var", setting.var);
        push_attribute(out, "type", setting.kind.name());
        push_attribute(out, "label", setting.label);
        out.push('>');
        push_value(out, value);
        if setting.kind == Kind::Choice {
            out.push_str("<option>");
            push_value(out, value);
            out.push_str("</option>");
        }
        out.push_str("</field>");
    }
    out.push_str("</x>");
}

/// What disco#info says of a node (XEP-0060 §5.4): a form of type `result`.
pub fn push_meta_data(out: &mut String, node: Node, owner: &str) {
    out.push_str("<x xmlns='jabber:x:data' type='result'>");
    push_form_type(out, NODE_META_DATA);
    let told = [TYPE, TITLE, ACCESS_MODEL, PUBLISH_MODEL, MAX_ITEMS];
    let settings = SETTINGS
        .iter()
        .filter(|setting| told.contains(&setting.var))
        .map(|setting| (setting.var, setting.kind.name(), setting.value_for(Some(node))));
    for (var, kind, value) in settings.chain([("pubsub#owner", "jid-multi", owner)]) {
        out.push_str("<field");
        push_attribute(out, "var", var);
        push_attribute(out, "type", kind);
        out.push('>');
        push_value(out, value);
        out.push_str("</field>");
    }
    out.push_str("</x>");
}

fn push_form_type(out: &mut String, form_type: &str) {
    out.push_str("<field var='FORM_TYPE' type='hidden'>");
    push_value(out, form_type);
    out.push_str("</field>");
}

fn push_value(out: &mut String, value: &str) {
    out.push_str("<value>");
    crate::stanza::tree::push_text(out, value);
    out.push_str("</value>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    const LIST: Node = Node::DeviceList(Protocol::Omemo2);

    fn form(form_type: &str, fields: &[(&str, &str)]) -> String {
        let fields: String =
            fields.iter().map(|(var, value)| format!("<field var='{var}'><value>{value}</value></field>")).collect();
        format!(
            "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>{form_type}</value></field>{fields}</x>"
        )
    }

    fn options(node: Node, fields: &[(&str, &str)]) -> Result<(), StanzaError> {
        check_options(&Element::parse(form(PUBLISH_OPTIONS, fields).as_bytes()).unwrap(), node)
    }

    fn configure(node: Node, fields: &[(&str, &str)]) -> Result<Submitted, StanzaError> {
        submitted(&Element::parse(form(NODE_CONFIG, fields).as_bytes()).unwrap(), node)
    }

    #[test]
    fn what_clients_ask_for_holds() {
        for node in [LIST, Node::Bundles] {
            for max in ["1", "10", "max", ""] {
                let fields =
                    [("pubsub#access_model", "open"), ("pubsub#max_items", max), ("pubsub#persist_items", "1")];
                assert!(options(node, &fields).is_ok() && configure(node, &fields).is_ok(), "{max}");
            }
        }
    }

    #[test]
    fn a_publish_is_refused_for_what_it_would_not_get_and_for_nothing_else() {
        for (var, value) in [
            ("pubsub#access_model", "whitelist"),
            ("pubsub#access_model", "presence"),
            ("pubsub#persist_items", "false"),
            ("pubsub#publish_model", "open"),
            ("pubsub#max_items", "0"),
            ("pubsub#max_items", "many"),
            ("pubsub#item_expire", "604800"),
            ("pubsub#invented", "1"),
        ] {
            let error = options(LIST, &[(var, value)]).unwrap_err();
            assert_eq!(error.pubsub, Some(PubsubCondition::PreconditionNotMet), "{var}={value}");
            assert_eq!(error.condition, Condition::Conflict);
        }
        for (var, value) in [
            ("pubsub#send_last_published_item", "on_sub_and_presence"),
            ("pubsub#notify_delete", "false"),
            ("pubsub#description", "my devices"),
            ("pubsub#title", "mine"),
        ] {
            assert!(options(LIST, &[(var, value)]).is_ok(), "{var}={value}");
        }
    }

    #[test]
    fn a_configuration_is_confirmed_or_not_acceptable() {
        for (var, value) in [("pubsub#access_model", "whitelist"), ("pubsub#notify_delete", "0")] {
            assert_eq!(configure(LIST, &[(var, value)]).unwrap_err().condition, Condition::NotAcceptable);
        }
        assert_eq!(
            configure(LIST, &[("pubsub#invented", "1")]).unwrap(),
            Submitted::Holds,
            "unknown fields are ignored"
        );
        let cancelled = Element::parse(b"<x xmlns='jabber:x:data' type='cancel'/>").unwrap();
        assert_eq!(submitted(&cancelled, LIST).unwrap(), Submitted::Cancelled);
        let other = form(PUBLISH_OPTIONS, &[]);
        let other = submitted(&Element::parse(other.as_bytes()).unwrap(), LIST);
        assert_eq!(other.unwrap_err().condition, Condition::BadRequest);
    }

    #[test]
    fn the_form_given_out_is_taken_back() {
        for node in [LIST, Node::Bundles] {
            let result = result(node);
            let tree = Element::parse(result.as_bytes()).unwrap();
            let form = tree.children()[0].child("x", DATA_FORM).unwrap();
            assert_eq!(submitted(form, node).unwrap(), Submitted::Holds);
            let published: Vec<_> = fields(form, NODE_CONFIG).unwrap();
            assert_eq!(published.len(), SETTINGS.len());
        }
    }
}
