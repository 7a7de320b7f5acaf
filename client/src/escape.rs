//! JID escaping (XEP-0106): how `alice@example.org` fits into the local part of an alias.

/// The characters that a local part cannot hold, and the backslash itself, with their escapes.
const ESCAPES: [(char, &str); 10] = [
    (' ', r"\20"),
    ('"', r"\22"),
    ('&', r"\26"),
    ('\'', r"\27"),
    ('/', r"\2f"),
    (':', r"\3a"),
    ('<', r"\3c"),
    ('>', r"\3e"),
    ('@', r"\40"),
    ('\\', r"\5c"),
];

/// Escapes text for use as a local part. A backslash is escaped only where it would otherwise be read as the start of an
/// escape (XEP-0106 §3.2).
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        match ESCAPES.iter().find(|(plain, _)| *plain == character) {
            Some((_, escape)) if character != '\\' || escape_at(rest).is_some() => escaped.push_str(escape),
            _ => escaped.push(character),
        }
        rest = rest.get(character.len_utf8()..).unwrap_or_default();
    }
    escaped
}

/// Reverses [`escape`].
pub(crate) fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let (character, length) = escape_at(rest).unwrap_or((character, character.len_utf8()));
        plain.push(character);
        rest = rest.get(length..).unwrap_or_default();
    }
    plain
}

/// The character that an escape at the very start of `text` stands for, with the escape's length.
fn escape_at(text: &str) -> Option<(char, usize)> {
    ESCAPES.iter().find(|(_, escape)| text.starts_with(escape)).map(|(plain, escape)| (*plain, escape.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (r"c:\cool stuff", r"c\3a\cool\20stuff"),
            (r"c:\5commas", r"c\3a\5c5commas"),
        ] {
            assert_eq!(escape(plain), escaped);
            assert_eq!(unescape(escaped), plain);
        }
    }
}
