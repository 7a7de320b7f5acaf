//! Result set management (XEP-0059).

use super::tree::{Element, push_attribute, push_text};

/// The namespace.
pub const NS: &str = "http://jabber.org/protocol/rsm";

/// Which page is asked for. Items are named by texts that mean something to the protocol around this one only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// Most items in the page; 0 asks for the count only (§2.7). A number that is too large to hold is the largest.
    pub max: Option<u32>,
    /// The page after this item. An empty element means the same as none.
    pub after: Option<String>,
    /// The page before this item; `Some("")` for the last page (§2.5).
    pub before: Option<String>,
    /// Whether a page by number is asked for (§2.6).
    pub index: bool,
}

/// A `<max/>` that is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("<max/> must be a number")]
pub struct BadMax;

impl Request {
    /// Reads the `<set/>` child of `parent`; without one, nothing is asked for.
    pub fn of(parent: &Element<'_>) -> Result<Self, BadMax> {
        let Some(set) = parent.child("set", NS) else { return Ok(Self::default()) };
        let text = |name| set.child(name, NS).map(|child: &Element<'_>| child.text().trim().to_owned());
        Ok(Self {
            max: text("max").map(|max| number(&max)).transpose()?,
            after: text("after").filter(|after| !after.is_empty()),
            before: text("before"),
            index: set.child("index", NS).is_some(),
        })
    }
}

fn number(text: &str) -> Result<u32, BadMax> {
    if text.is_empty() || text.len() > 40 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadMax);
    }
    Ok(text.parse().unwrap_or(u32::MAX))
}

/// What a page says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// The first and the last item of the page in the order of the whole; `None` for an empty page.
    pub ends: Option<(String, String)>,
    /// The size of the whole, where known.
    pub count: Option<u64>,
}

impl Reply {
    /// Appends `<set/>`.
    pub fn push(&self, out: &mut String) {
        out.push_str("<set");
        push_attribute(out, "xmlns", NS);
        out.push('>');
        let mut element = |name: &str, text: &str| {
            out.push('<');
            out.push_str(name);
            out.push('>');
            push_text(out, text);
            out.push_str("</");
            out.push_str(name);
            out.push('>');
        };
        if let Some((first, last)) = &self.ends {
            element("first", first);
            element("last", last);
        }
        if let Some(count) = self.count {
            element("count", &count.to_string());
        }
        out.push_str("</set>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(set: &str) -> Result<Request, BadMax> {
        let source = format!("<q><set xmlns='{NS}'>{set}</set></q>");
        Request::of(&Element::parse(source.as_bytes()).unwrap())
    }

    #[test]
    fn requests_as_clients_write_them() {
        assert_eq!(Request::of(&Element::parse(b"<q/>").unwrap()), Ok(Request::default()));
        let last = parse("<max>10</max><before/>").unwrap();
        assert_eq!((last.max, last.before.as_deref(), last.after), (Some(10), Some(""), None));
        let next = parse("<after> a&amp;b </after><max>0</max>").unwrap();
        assert_eq!((next.max, next.after.as_deref()), (Some(0), Some("a&b")));
        assert_eq!(parse("<after/>").unwrap(), Request::default());
        assert!(parse("<index>371</index>").unwrap().index);
        assert_eq!(parse("<max>99999999999999999999</max>").unwrap().max, Some(u32::MAX));
        for bad in ["<max/>", "<max>-1</max>", "<max>ten</max>", "<max>1.5</max>"] {
            assert_eq!(parse(bad), Err(BadMax), "{bad}");
        }
    }
}
