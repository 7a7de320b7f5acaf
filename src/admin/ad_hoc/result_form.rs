//! From a report to a form (XEP-0004): a figure is a field, a list of alike things is a table of items.

use serde_json::{Map, Value};

use crate::stanza::ad_hoc::leaf;
use crate::stanza::tree::push_attribute;

/// Writes a report as a result form.
pub(super) fn write(title: &str, report: &Value) -> String {
    let mut out = String::from("<x xmlns='jabber:x:data' type='result'>");
    leaf(&mut out, "title", title);
    let mut table = None;
    if let Value::Object(figures) = report {
        push_fields(&mut out, "", figures, &mut table);
    }
    if let Some(rows) = table {
        push_table(&mut out, rows);
    }
    out.push_str("</x>");
    out
}

/// Writes the figures, those of parts with the part's name before. The first list of things is left for the table.
fn push_fields<'v>(
    out: &mut String,
    prefix: &str,
    figures: &'v Map<String, Value>,
    table: &mut Option<&'v Vec<Value>>,
) {
    for (name, value) in figures {
        let var = format!("{prefix}{name}");
        match value {
            Value::Object(part) => push_fields(out, &format!("{var}."), part, table),
            Value::Array(rows) if rows.iter().all(Value::is_object) => *table = table.or(Some(rows)),
            Value::Array(values) => {
                let texts: Vec<String> = values.iter().map(text).collect();
                push_field(out, &var, "text-multi", &texts);
            }
            value => push_field(out, &var, "text-single", &[text(value)]),
        }
    }
}

fn push_table(out: &mut String, rows: &[Value]) {
    let Some(Value::Object(first)) = rows.first() else { return };
    out.push_str("<reported>");
    for name in first.keys() {
        out.push_str("<field");
        push_attribute(out, "var", name);
        push_attribute(out, "label", &label(name));
        push_attribute(out, "type", "text-single");
        out.push_str("/>");
    }
    out.push_str("</reported>");
    for row in rows {
        out.push_str("<item>");
        for name in first.keys() {
            out.push_str("<field");
            push_attribute(out, "var", name);
            out.push('>');
            leaf(out, "value", &row.get(name).map(text).unwrap_or_default());
            out.push_str("</field>");
        }
        out.push_str("</item>");
    }
}

fn push_field(out: &mut String, var: &str, kind: &str, values: &[String]) {
    out.push_str("<field");
    push_attribute(out, "var", var);
    push_attribute(out, "label", &label(var));
    push_attribute(out, "type", kind);
    out.push('>');
    for value in values {
        leaf(out, "value", value);
    }
    out.push_str("</field>");
}

/// `dead_letters.count` for people.
fn label(var: &str) -> String {
    var.replace(['_', '.'], " ")
}

/// A single figure; nothing for what is not there.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::write;
    use crate::stanza::tree::Element;

    #[test]
    fn figures_become_fields_and_lists_become_items() {
        let report = json!({"owner": "a<b", "waits": {"count": 3, "oldest": null}, "tags": ["x", "y"],
                            "devices": [{"id": 1, "label": "phone"}, {"id": 2, "label": null}]});
        let form = write("t", &report);
        assert!(Element::parse(form.as_bytes()).is_ok(), "{form}");
        for part in [
            "<field var='owner' label='owner' type='text-single'><value>a&lt;b</value></field>",
            "<field var='waits.count' label='waits count' type='text-single'><value>3</value></field>",
            "<reported><field var='id' label='id' type='text-single'/>",
            "<item><field var='id'><value>2</value></field><field var='label'><value></value></field></item>",
        ] {
            assert!(form.contains(part), "{part} is not in {form}");
        }
    }
}
