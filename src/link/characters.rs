//! Which bytes may stand in a stream at all: UTF-8 (RFC 6120 §11.6) of characters that XML 1.0 §2.2 allows, and which
//! characters may stand in a name (XML 1.0 §2.3).

use memchr::memchr_iter;

/// How far a run of bytes is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// Bytes, from the first, that are whole allowed characters.
    pub good: usize,
    /// Whether the byte at `good` begins something that no further bytes can make good.
    pub broken: bool,
}

/// Checks a run of bytes that begins at a character boundary. What follows `good` without being `broken` is the
/// beginning (at most 3 bytes) of a character whose rest is still to come.
pub(super) fn check(bytes: &[u8]) -> Checked {
    let (mut good, mut broken) = match std::str::from_utf8(bytes) {
        Ok(_) => (bytes.len(), false),
        Err(error) => (error.valid_up_to(), error.error_len().is_some()),
    };
    let text = bytes.get(..good).unwrap_or_default();
    if let Some(at) = first_forbidden(text) {
        good = at;
        broken = true;
    }
    Checked { good, broken }
}

fn first_forbidden(text: &[u8]) -> Option<usize> {
    let forbidden_control = |byte: u8| byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r');
    // Without an early exit the compiler makes this wide; nearly all input has no such byte.
    let control = match text.iter().fold(false, |found, &byte| found | forbidden_control(byte)) {
        true => text.iter().position(|&byte| forbidden_control(byte)),
        false => None,
    };
    // U+FFFE and U+FFFF.
    let noncharacter =
        memchr_iter(0xEF, text).find(|&at| matches!(text.get(at..), Some([0xEF, 0xBF, 0xBE | 0xBF, ..])));
    [control, noncharacter].into_iter().flatten().min()
}

/// Whether a character reference may name this code point (XML 1.0 §4.1).
pub(super) fn may_be_referenced(code: u32) -> bool {
    matches!(code, 0x9 | 0xA | 0xD | 0x20..=0xD7FF | 0xE000..=0xFFFD | 0x1_0000..=0x10_FFFF)
}

/// Whether a name may begin with this character. The colon is left to the namespace rules.
pub(super) fn starts_name(c: char) -> bool {
    matches!(c, ':' | 'A'..='Z' | '_' | 'a'..='z' | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}'
        | '\u{370}'..='\u{37D}' | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}' | '\u{2070}'..='\u{218F}'
        | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FFFD}'
        | '\u{10000}'..='\u{EFFFF}')
}

/// Whether a name may go on with this character.
pub(super) fn continues_name(c: char) -> bool {
    starts_name(c) || matches!(c, '-' | '.' | '0'..='9' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
}

/// The character at the front of checked text, and its length in bytes.
pub(super) fn front(text: &[u8]) -> Option<(char, usize)> {
    let length = match text.first()? {
        0..=0x7F => 1,
        0x80..=0xDF => 2,
        0xE0..=0xEF => 3,
        _ => 4,
    };
    let c = std::str::from_utf8(text.get(..length)?).ok()?.chars().next()?;
    Some((c, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_cut_in_two_is_waited_for_and_a_broken_one_is_not() {
        assert_eq!(check("aé".as_bytes()), Checked { good: 3, broken: false });
        assert_eq!(check(b"a\xC3"), Checked { good: 1, broken: false });
        assert_eq!(check(b"a\xC3("), Checked { good: 1, broken: true });
        assert_eq!(check(b"a\xED\xA0\x80"), Checked { good: 1, broken: true });
    }

    #[test]
    fn the_first_forbidden_character_ends_what_is_good() {
        assert_eq!(check(b"ab\x00c\xFF"), Checked { good: 2, broken: true });
        assert_eq!(check("ab\u{FFFF}\u{1}".as_bytes()), Checked { good: 2, broken: true });
        assert!(!check("\t\r\n\u{7F}\u{85}\u{FFFD}".as_bytes()).broken);
    }
}
