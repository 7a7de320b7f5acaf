//! Ad-hoc commands (XEP-0050): what a client asks, and the stages that it is answered with. A command here has at most one
//! form, so nothing needs to be remembered between two requests: the form that comes back carries all of it.

use super::data_form::{self, Field, MAX_FIELDS, MAX_VALUES};
use super::error::{Condition, StanzaError};
use super::tree::{Element, push_attribute, push_text};

/// The namespace, and the node under which commands are listed.
pub const NS: &str = "http://jabber.org/protocol/commands";

/// Longest session id that is given back.
const MAX_SESSION: usize = 128;

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// To begin, to go on, or to end: whatever comes next.
    Execute,
    /// Nothing any more.
    Cancel,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Which command.
    pub node: String,
    /// Which session, if one was begun.
    pub session: Option<String>,
    /// What to do.
    pub action: Action,
    /// The form that was filled in, if there is one.
    pub form: Option<Vec<Field>>,
}

impl Request {
    /// Reads a `<command/>`.
    pub fn parse(command: &Element<'_>) -> Result<Self, StanzaError> {
        let wrong = |text: &str| StanzaError::new(Condition::BadRequest, text);
        let action = match command.attribute("action") {
            None | Some("" | "execute" | "next" | "complete") => Action::Execute,
            Some("cancel") => Action::Cancel,
            Some("prev") => return Err(wrong("there is no earlier stage")),
            Some(_) => return Err(wrong("there is no such action")),
        };
        let session = command.attribute("sessionid").filter(|session| !session.is_empty());
        if session.is_some_and(|session| session.len() > MAX_SESSION) {
            return Err(wrong("the session id is too long"));
        }
        let form = match command.child("x", data_form::NS) {
            Some(form) if form.attribute("type") == Some("submit") => Some(fields(form)?),
            Some(form) if form.attribute("type") == Some("cancel") => {
                return Ok(Self {
                    node: command.attribute("node").unwrap_or_default().to_owned(),
                    session: session.map(str::to_owned),
                    action: Action::Cancel,
                    form: None,
                });
            }
            Some(_) => return Err(wrong("the form must be of type 'submit'")),
            None => None,
        };
        let node = command.attribute("node").unwrap_or_default().to_owned();
        Ok(Self { node, session: session.map(str::to_owned), action, form })
    }

    /// The value of a field that has one; `None` if it was left empty.
    pub fn value(&self, var: &str) -> Option<&str> {
        let field = self.form.iter().flatten().find(|field| field.var == var)?;
        field.values.first().map(|value| value.trim()).filter(|value| !value.is_empty())
    }
}

/// The fields of a form, whatever its `FORM_TYPE`: commands are told apart by their node, and clients leave it out.
fn fields(form: &Element<'_>) -> Result<Vec<Field>, StanzaError> {
    let mut fields = Vec::new();
    for element in form.children_named("field", data_form::NS) {
        let values: Vec<String> = element
            .children_named("value", data_form::NS)
            .take(MAX_VALUES.saturating_add(1))
            .map(|value| value.text().to_owned())
            .collect();
        if fields.len() >= MAX_FIELDS || values.len() > MAX_VALUES {
            return Err(StanzaError::new(Condition::BadRequest, data_form::FormError::TooLarge.to_string()));
        }
        let Some(var) = element.attribute("var") else { continue };
        fields.push(Field { var: var.to_owned(), values });
    }
    Ok(fields)
}

/// A question of a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The name of the field.
    pub var: &'static str,
    /// What a person reads.
    pub label: &'static str,
    /// How it is asked.
    pub kind: QuestionKind,
    /// Whether there must be an answer.
    pub required: bool,
}

/// How a question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionKind {
    /// Any text.
    Text,
    /// An address.
    Jid,
    /// Yes or no; no unless it is answered.
    YesNo,
    /// One of these, each with what a person reads; the first unless it is answered.
    OneOf(&'static [(&'static str, &'static str)]),
}

/// The answer that asks: a form to be filled in.
pub fn asks(node: &str, session: &str, title: &str, instructions: &str, questions: &[Question]) -> String {
    let mut out = command(node, session, "executing");
    out.push_str("<actions execute='complete'><complete/></actions>");
    out.push_str("<x xmlns='jabber:x:data' type='form'>");
    leaf(&mut out, "title", title);
    leaf(&mut out, "instructions", instructions);
    for question in questions {
        push_question(&mut out, question);
    }
    out.push_str("</x></command>");
    out
}

/// The answer that ends a command; `form` is a result form, written out.
pub fn completed(node: &str, session: &str, form: &str) -> String {
    let mut out = command(node, session, "completed");
    out.push_str(form);
    out.push_str("</command>");
    out
}

/// The answer to who does not want it any more.
pub fn canceled(node: &str, session: &str) -> String {
    command(node, session, "canceled") + "</command>"
}

fn command(node: &str, session: &str, status: &str) -> String {
    let mut out = format!("<command xmlns='{NS}'");
    push_attribute(&mut out, "node", node);
    push_attribute(&mut out, "sessionid", session);
    push_attribute(&mut out, "status", status);
    out.push('>');
    out
}

fn push_question(out: &mut String, question: &Question) {
    out.push_str("<field");
    push_attribute(out, "var", question.var);
    push_attribute(out, "label", question.label);
    let kind = match question.kind {
        QuestionKind::Text => "text-single",
        QuestionKind::Jid => "jid-single",
        QuestionKind::YesNo => "boolean",
        QuestionKind::OneOf(_) => "list-single",
    };
    push_attribute(out, "type", kind);
    out.push('>');
    if question.required {
        out.push_str("<required/>");
    }
    match question.kind {
        QuestionKind::YesNo => leaf(out, "value", "0"),
        QuestionKind::OneOf(choices) => {
            if let Some((first, _)) = choices.first() {
                leaf(out, "value", first);
            }
            for (value, label) in choices {
                out.push_str("<option");
                push_attribute(out, "label", label);
                out.push('>');
                leaf(out, "value", value);
                out.push_str("</option>");
            }
        }
        QuestionKind::Text | QuestionKind::Jid => {}
    }
    out.push_str("</field>");
}

/// `<name>text</name>`.
pub fn leaf(out: &mut String, name: &str, text: &str) {
    out.push('<');
    out.push_str(name);
    out.push('>');
    push_text(out, text);
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(xml: &str) -> Result<Request, StanzaError> {
        Request::parse(&Element::parse(xml.as_bytes()).unwrap())
    }

    #[test]
    fn a_form_comes_back_with_or_without_its_type_and_forms_that_were_cancelled_end_it() {
        let command = |inner: &str| {
            parse(&format!("<command xmlns='{NS}' node='n' sessionid='s' action='complete'>{inner}</command>"))
        };
        let filled = command(
            "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>y</value></field>\
             <field var='owner'><value> a@b </value></field><field var='none'><value/></field></x>",
        )
        .unwrap();
        assert_eq!((filled.value("owner"), filled.value("none"), filled.value("no")), (Some("a@b"), None, None));
        assert_eq!(command("<x xmlns='jabber:x:data' type='cancel'/>").unwrap().action, Action::Cancel);
        assert!(command("<x xmlns='jabber:x:data' type='result'/>").is_err());
        assert_eq!(command("").unwrap().form, None);
    }

    #[test]
    fn what_makes_no_sense_or_is_too_large_is_refused() {
        assert!(parse(&format!("<command xmlns='{NS}' node='n' action='prev'/>")).is_err());
        assert!(parse(&format!("<command xmlns='{NS}' node='n' action='dance'/>")).is_err());
        assert!(parse(&format!("<command xmlns='{NS}' node='n' sessionid='{}'/>", "x".repeat(129))).is_err());
        let many = "<field var='a'/>".repeat(MAX_FIELDS + 1);
        let form = format!("<x xmlns='jabber:x:data' type='submit'>{many}</x>");
        assert!(parse(&format!("<command xmlns='{NS}' node='n'>{form}</command>")).is_err());
    }

    #[test]
    fn a_question_is_escaped_and_names_its_choices() {
        let choices: &[(&str, &str)] = &[("a", "first & last"), ("b", "second")];
        let kind = QuestionKind::OneOf(choices);
        let form = asks("n", "s'", "t", "i", &[Question { var: "v", label: "<l>", kind, required: true }]);
        let element = Element::parse(form.as_bytes()).unwrap();
        assert_eq!(element.attribute("sessionid"), Some("s'"));
        assert!(form.contains("<option label='first &amp; last'><value>a</value></option>"), "{form}");
    }
}
