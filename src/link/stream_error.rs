//! Stream errors (RFC 6120 §4.9): what the server says before it ends the stream, and what we say before we do.

use std::fmt;

use quick_xml::events::Event;

/// A `<stream:error/>` as the server sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamError {
    /// The defined condition, such as `conflict`.
    pub condition: String,
    /// What the server's operator may read about it.
    pub text: Option<String>,
}

impl StreamError {
    /// Reads a whole `<stream:error/>`. `None` if the element is something else.
    pub fn read(element: &[u8]) -> Option<Self> {
        let mut reader = quick_xml::Reader::from_reader(element);
        let mut error = Self { condition: "undefined-condition".to_owned(), text: None };
        let mut depth = 0_u32;
        let mut in_text = false;
        loop {
            match reader.read_event().ok()? {
                Event::Start(tag) | Event::Empty(tag) if depth == 0 && tag.local_name().as_ref() != "error" => {
                    return None;
                }
                Event::Empty(tag) if depth == 1 => error.note(tag.local_name().as_ref()),
                Event::Start(tag) => {
                    if depth == 1 {
                        error.note(tag.local_name().as_ref());
                        in_text = tag.local_name().as_ref() == "text";
                    }
                    depth = depth.saturating_add(1);
                }
                Event::Text(text) if in_text => error.text.get_or_insert_default().push_str(&text),
                Event::End(_) => {
                    depth = depth.saturating_sub(1);
                    in_text = false;
                    if depth == 0 {
                        return Some(error);
                    }
                }
                Event::Eof => return Some(error),
                _ => {}
            }
        }
    }

    /// The first child that is not `<text/>` names the condition; an application's own follows it.
    fn note(&mut self, child: &str) {
        if child != "text" && self.condition == "undefined-condition" {
            child.clone_into(&mut self.condition);
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => write!(f, "{} ({text})", self.condition),
            None => f.write_str(&self.condition),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condition_and_text_are_told_apart_in_any_order() {
        let error = StreamError::read(
            b"<stream:error><text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>Replaced by a new connection</text>\
              <conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><own xmlns='x'><deep/></own></stream:error>",
        )
        .unwrap();
        assert_eq!(error.to_string(), "conflict (Replaced by a new connection)");
        assert_eq!(StreamError::read(b"<stream:features/>"), None);
        assert_eq!(StreamError::read(b"<stream:error/>").unwrap().condition, "undefined-condition");
    }
}
