//! What an archive tells clients of its policy: a form in disco#info (XEP-0128; docs/protocol.md, "Policy").

use crate::archive::{Keep, Policy};
use crate::model::Class;
use crate::stanza::namespace::DATA_FORM;
use crate::stanza::tree::{push_attribute, push_text};

/// The type of the form.
const FORM_TYPE: &str = "urn:multiend:0#archive";

/// The form.
pub(super) fn form(policy: &Policy) -> String {
    let mut out = String::from("<x");
    push_attribute(&mut out, "xmlns", DATA_FORM);
    push_attribute(&mut out, "type", "result");
    out.push('>');
    push_field(&mut out, "FORM_TYPE", Some("hidden"), FORM_TYPE);
    for class in Class::ALL {
        let kept = match policy.retention.of(class) {
            Keep::Forever => "forever".to_owned(),
            Keep::For(time) => time.as_secs().to_string(),
            Keep::Never => "none".to_owned(),
        };
        push_field(&mut out, &format!("retention#{}", class.name()), None, &kept);
    }
    push_field(&mut out, "unreadable", None, policy.unreadable.name());
    push_field(&mut out, "page-max", None, &policy.page_max.to_string());
    out.push_str("</x>");
    out
}

fn push_field(out: &mut String, var: &str, kind: Option<&str>, value: &str) {
    out.push_str("<field");
    push_attribute(out, "var", var);
    if let Some(kind) = kind {
        push_attribute(out, "type", kind);
    }
    out.push_str("><value>");
    push_text(out, value);
    out.push_str("</value></field>");
}
