//! What an owner wants archived, as it is written (XEP-0441).
//!
//! `roster` is refused: a component knows no roster, and to take it for `always` would keep what the user does not want
//! kept, to take it for `never` would lose what it does.

use std::collections::BTreeSet;

use jid::Jid;

use super::{NS, RequestError};
use crate::model::{ArchiveDefault, ArchivePreferences, MAX_PREFERENCE_JIDS};
use crate::stanza::tree::{Element, push_attribute, push_text};

/// Reads `<prefs/>`; its JIDs as the client writes them.
pub fn read_preferences(prefs: &Element<'_>) -> Result<ArchivePreferences, RequestError> {
    let bad = |text: String| RequestError::BadRequest(text);
    let otherwise = match prefs.attribute("default") {
        Some("always") => ArchiveDefault::Always,
        Some("never") => ArchiveDefault::Never,
        Some("roster") => {
            return Err(RequestError::NotImplemented(
                "this archive knows no roster: choose always or never".to_owned(),
            ));
        }
        _ => return Err(bad("the default must be always or never".to_owned())),
    };
    with_lists(prefs, otherwise)
}

/// Reads `<prefs/>` that another server has kept, with `roster` taken for `always`; whether it was. Nobody can be asked, and
/// whoever has no preferences has everything archived as well: so the lists at least hold.
pub fn read_foreign_preferences(prefs: &Element<'_>) -> Result<(ArchivePreferences, bool), RequestError> {
    match prefs.attribute("default") {
        Some("roster") => Ok((with_lists(prefs, ArchiveDefault::Always)?, true)),
        _ => Ok((read_preferences(prefs)?, false)),
    }
}

fn with_lists(prefs: &Element<'_>, otherwise: ArchiveDefault) -> Result<ArchivePreferences, RequestError> {
    let bad = |text: String| RequestError::BadRequest(text);
    let list = |name| {
        let mut jids = BTreeSet::new();
        for jid in prefs.child(name, NS).into_iter().flat_map(|list| list.children_named("jid", NS)) {
            let jid =
                Jid::new(jid.text().trim()).map_err(|_| bad(format!("the list '{name}' holds what is no JID")))?;
            jids.insert(jid);
            if jids.len() > MAX_PREFERENCE_JIDS {
                return Err(bad(format!("preferences may name at most {MAX_PREFERENCE_JIDS} JIDs")));
            }
        }
        Ok(jids)
    };
    ArchivePreferences::new(otherwise, list("always")?, list("never")?).map_err(|error| bad(error.to_string()))
}

/// Appends `<prefs/>`, each JID as `shown` writes it.
pub fn push_preferences(out: &mut String, preferences: &ArchivePreferences, shown: impl Fn(&Jid) -> String) {
    out.push_str("<prefs");
    push_attribute(out, "xmlns", NS);
    push_attribute(out, "default", preferences.otherwise().name());
    out.push('>');
    for (name, jids) in [("always", preferences.always()), ("never", preferences.never())] {
        out.push('<');
        out.push_str(name);
        out.push('>');
        for jid in jids {
            out.push_str("<jid>");
            push_text(out, &shown(jid));
            out.push_str("</jid>");
        }
        out.push_str("</");
        out.push_str(name);
        out.push('>');
    }
    out.push_str("</prefs>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str) -> Result<ArchivePreferences, RequestError> {
        let source = format!("<prefs xmlns='{NS}'{content}</prefs>");
        read_preferences(&Element::parse(source.as_bytes()).unwrap())
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        let written = |preferences: &ArchivePreferences| {
            let mut out = String::new();
            push_preferences(&mut out, preferences, ToString::to_string);
            out
        };
        let read = read(" default='never'><always><jid>Romeo@Montague.lit</jid><jid>a@b/&lt;c</jid></always>").unwrap();
        assert_eq!(
            written(&read),
            format!(
                "<prefs xmlns='{NS}' default='never'><always><jid>a@b/&lt;c</jid><jid>romeo@montague.lit</jid></always>\
                 <never></never></prefs>"
            )
        );
        let again = written(&read);
        assert_eq!(read_preferences(&Element::parse(again.as_bytes()).unwrap()), Ok(read));
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        assert!(matches!(read(" default='roster'>"), Err(RequestError::NotImplemented(_))));
        let many: String = (0..=MAX_PREFERENCE_JIDS).map(|n| format!("<jid>u{n}@b</jid>")).collect();
        for bad in [
            ">",
            " default='sometimes'>",
            " default='always'><never><jid>@</jid></never>",
            " default='always'><never><jid>a@b</jid></never><always><jid>A@b</jid></always>",
            &format!(" default='always'><never>{many}</never>"),
        ] {
            assert!(matches!(read(bad), Err(RequestError::BadRequest(_))), "{bad:.80}");
        }
    }
}
