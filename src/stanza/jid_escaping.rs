//! JID escaping (XEP-0106): any account as the local part of an alias.

/// What may not stand in a local part, and what stands for it.
const ESCAPES: [(char, &str); 10] = [
    (' ', "20"),
    ('"', "22"),
    ('&', "26"),
    ('\'', "27"),
    ('/', "2f"),
    (':', "3a"),
    ('<', "3c"),
    ('>', "3e"),
    ('@', "40"),
    ('\\', "5c"),
];

/// Escapes a text into a local part. A backslash is escaped only where it would otherwise read as an escape (XEP-0106 §4.2).
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(8));
    for (position, character) in text.char_indices() {
        let code = ESCAPES.iter().find(|(plain, _)| *plain == character).map(|(_, code)| *code);
        match code {
            Some(code) if character != '\\' || text.get(position..).and_then(escape_at).is_some() => {
                out.push('\\');
                out.push_str(code);
            }
            _ => out.push(character),
        }
    }
    out
}

/// The text behind an escaped local part.
pub fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let (plain, length) = escape_at(rest).map_or((character, character.len_utf8()), |plain| (plain, 3));
        out.push(plain);
        rest = rest.get(length..).unwrap_or_default();
    }
    out
}

/// The character that the escape at the start of `text` stands for.
fn escape_at(text: &str) -> Option<char> {
    let code = text.strip_prefix('\\')?.get(..2)?;
    ESCAPES.iter().find(|(_, known)| known.eq_ignore_ascii_case(code)).map(|(plain, _)| *plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_xep() {
        for (plain, escaped) in [
            ("space cadet", r"space\20cadet"),
            ("call me \"ishmael\"", r"call\20me\20\22ishmael\22"),
            ("at&t guy", r"at\26t\20guy"),
            ("d'artagnan", r"d\27artagnan"),
            ("/.fanboy", r"\2f.fanboy"),
            ("::foo::", r"\3a\3afoo\3a\3a"),
            ("<foo>", r"\3cfoo\3e"),
            ("user@host", r"user\40host"),
            (r"c:\net", r"c\3a\net"),
            (r"c:\5commas", r"c\3a\5c5commas"),
            (r"c:\cool stuff", r"c\3a\cool\20stuff"),
        ] {
            assert_eq!(escape(plain), escaped);
            assert_eq!(unescape(escaped), plain);
        }
    }

    proptest! {
        #[test]
        fn escaping_is_undone(text in r#"[a-c\\0-9 "&'/:<>@é]{0,20}"#) {
            prop_assert_eq!(unescape(&escape(&text)), text);
        }
    }
}
