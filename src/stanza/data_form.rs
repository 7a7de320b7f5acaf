//! Data forms as they are submitted (XEP-0004), with the form type of XEP-0068.

use super::tree::Element;

/// The namespace.
pub const NS: &str = super::namespace::DATA_FORM;

/// Most fields of a form that is taken.
pub const MAX_FIELDS: usize = 64;
/// Most values of one field.
pub const MAX_VALUES: usize = 1_000;

/// What is wrong with a form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// Its type is not `submit`.
    #[error("the form must be of type 'submit'")]
    NotSubmitted,
    /// No `FORM_TYPE`, or not the one that belongs here.
    #[error("the form's FORM_TYPE must be {0}")]
    FormType(&'static str),
    /// A field without a name.
    #[error("a form field needs a 'var'")]
    Unnamed,
    /// A field that stands twice.
    #[error("the form field {0} stands twice")]
    Twice(String),
    /// More than [`MAX_FIELDS`] fields or [`MAX_VALUES`] values.
    #[error("the form is too large")]
    TooLarge,
    /// Several values where one belongs.
    #[error("the form field {0} takes one value")]
    SeveralValues(String),
}

/// One field of a submitted form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub var: String,
    /// Its values in order.
    pub values: Vec<String>,
}

impl Field {
    /// The only value, trimmed; `None` if there is none or it is empty: clients that fill in a form that they were given
    /// send fields that the user left empty.
    pub fn single(&self) -> Result<Option<&str>, FormError> {
        match self.values.as_slice() {
            [] => Ok(None),
            [value] => Ok(Some(value.trim()).filter(|value| !value.is_empty())),
            _ => Err(FormError::SeveralValues(self.var.clone())),
        }
    }
}

/// Reads a submitted form of the given type: its fields in order, `FORM_TYPE` left out, no name twice.
pub fn submitted(form: &Element<'_>, form_type: &'static str) -> Result<Vec<Field>, FormError> {
    if form.attribute("type") != Some("submit") {
        return Err(FormError::NotSubmitted);
    }
    let mut fields: Vec<Field> = Vec::new();
    let mut typed = false;
    for element in form.children_named("field", NS) {
        let var = element.attribute("var").filter(|var| !var.is_empty()).ok_or(FormError::Unnamed)?;
        let values: Vec<String> = element
            .children_named("value", NS)
            .take(MAX_VALUES.saturating_add(1))
            .map(|value| value.text().to_owned())
            .collect();
        if fields.len() >= MAX_FIELDS || values.len() > MAX_VALUES {
            return Err(FormError::TooLarge);
        }
        if var == "FORM_TYPE" {
            if typed || values.as_slice() != [form_type] {
                return Err(FormError::FormType(form_type));
            }
            typed = true;
            continue;
        }
        if fields.iter().any(|field| field.var == var) {
            return Err(FormError::Twice(var.chars().take(64).collect()));
        }
        fields.push(Field { var: var.to_owned(), values });
    }
    if typed { Ok(fields) } else { Err(FormError::FormType(form_type)) }
}
