//! From a message to marks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{MARKED, key_run, mark, phrases, push_number};

/// Places remembered for repetitions.
const REMEMBERED: usize = 1 << 10;
/// Shortest repetition that is looked at.
const SHORTEST: usize = 6;

/// Writes a message as marks. The result may be longer than the message.
pub(super) fn pack(message: &[u8]) -> Vec<u8> {
    let mut writer =
        Writer { message, at: 0, plain: 0, out: Vec::with_capacity(message.len()), seen: vec![usize::MAX; REMEMBERED] };
    writer.out.push(MARKED);
    while writer.step() {}
    writer.out
}

struct Writer<'a> {
    message: &'a [u8],
    /// How far it is written, but for the last bytes that stand for themselves and cannot alone.
    at: usize,
    /// How many those are.
    plain: usize,
    out: Vec<u8>,
    /// By a hash of four bytes, where they stood last.
    seen: Vec<usize>,
}

/// What the text from here on can be written as.
struct Candidate {
    written: Vec<u8>,
    length: usize,
}

impl Candidate {
    fn saved(&self) -> usize {
        self.length.saturating_sub(self.written.len())
    }
}

impl Writer<'_> {
    /// Writes what comes next; `false` at the end.
    fn step(&mut self) -> bool {
        let rest = self.message.get(self.at..).unwrap_or_default();
        let Some(byte) = rest.first().copied() else {
            self.flush();
            return false;
        };
        let before = self.at.checked_sub(1).and_then(|place| self.message.get(place)).copied();
        if let Some(best) = self.best(rest, byte, before) {
            self.flush();
            self.out.extend_from_slice(&best.written);
            self.remember(self.at);
            self.at = self.at.saturating_add(best.length);
            return true;
        }
        self.remember(self.at);
        self.at = self.at.saturating_add(1);
        if matches!(byte, b' '..=b'~') {
            self.flush_before(self.at.saturating_sub(1));
            self.out.push(byte);
        } else {
            self.plain = self.plain.saturating_add(1);
        }
        true
    }

    fn best(&self, rest: &[u8], byte: u8, before: Option<u8>) -> Option<Candidate> {
        if byte == b'<'
            && let Some((written, length)) = key_run::write_run(rest)
        {
            return Some(Candidate { written, length });
        }
        let phrase = phrases::longest(rest).map(|(code, length)| Candidate { written: vec![code], length });
        let value = match before {
            Some(b'>') => base64(rest).or_else(|| uuid(rest)),
            Some(b'\'' | b'"') => uuid(rest).or_else(|| number(rest)),
            _ => None,
        };
        let candidates = [phrase, value, self.again(rest)];
        candidates.into_iter().flatten().filter(|best| best.saved() > 0).max_by_key(Candidate::saved)
    }

    /// Writes the bytes that cannot stand for themselves, all of which come before the present place.
    fn flush(&mut self) {
        self.flush_before(self.at);
    }

    fn flush_before(&mut self, end: usize) {
        if self.plain == 0 {
            return;
        }
        let bytes = end.checked_sub(self.plain).and_then(|start| self.message.get(start..end)).unwrap_or_default();
        self.out.push(mark::BYTES);
        push_number(&mut self.out, bytes.len());
        self.out.extend_from_slice(bytes);
        self.plain = 0;
    }

    /// What stood before already.
    fn again(&self, rest: &[u8]) -> Option<Candidate> {
        let from = self.seen.get(slot(rest)?).copied().filter(|from| *from < self.at)?;
        let length = self.message.get(from..)?.iter().zip(rest).take_while(|(a, b)| a == b).count();
        // No further than to where it would repeat itself.
        let length = length.min(self.at.saturating_sub(from));
        if length < SHORTEST {
            return None;
        }
        let mut written = vec![mark::AGAIN];
        push_number(&mut written, self.at.saturating_sub(from));
        push_number(&mut written, length);
        Some(Candidate { written, length })
    }

    fn remember(&mut self, place: usize) {
        let slot = self.message.get(place..).and_then(slot);
        if let Some(seen) = slot.and_then(|slot| self.seen.get_mut(slot)) {
            *seen = place;
        }
    }
}

/// Where the first four bytes are remembered.
fn slot(text: &[u8]) -> Option<usize> {
    let four = u32::from_le_bytes(*text.first_chunk()?);
    usize::try_from(four.wrapping_mul(0x9e37_79b1) >> 22).ok().filter(|slot| *slot < REMEMBERED)
}

/// Base64 up to the next `<`, if it is written as we would write it.
fn base64(text: &[u8]) -> Option<Candidate> {
    let length = text.iter().position(|byte| !is_base64(*byte))?;
    let (digits, rest) = text.split_at_checked(length)?;
    if length < 8 || rest.first() != Some(&b'<') {
        return None;
    }
    // Takes nothing but the one way to write the bytes.
    let bytes = STANDARD.decode(digits).ok()?;
    let mut written = vec![mark::BASE64];
    push_number(&mut written, bytes.len());
    written.extend_from_slice(&bytes);
    Some(Candidate { written, length })
}

pub(super) fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

/// A UUID in small letters.
fn uuid(text: &[u8]) -> Option<Candidate> {
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    let mut bytes = vec![mark::UUID];
    let mut rest = text;
    for (place, digits) in GROUPS.into_iter().enumerate() {
        if place > 0 {
            rest = rest.strip_prefix(b"-")?;
        }
        let (group, after) = rest.split_at_checked(digits)?;
        if group.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        bytes.extend(hex::decode(group).ok()?);
        rest = after;
    }
    Some(Candidate { written: bytes, length: 36 })
}

/// A decimal number that ends with a quote.
fn number(text: &[u8]) -> Option<Candidate> {
    let (number, length) = decimal(text)?;
    let mut written = vec![mark::NUMBER];
    written.extend_from_slice(&number.to_be_bytes());
    Some(Candidate { written, length })
}

/// A number as it is usually written, and its length.
pub(super) fn decimal(text: &[u8]) -> Option<(u32, usize)> {
    let length = text.iter().take(11).position(|byte| !byte.is_ascii_digit())?;
    let digits = text.get(..length)?;
    if digits.is_empty() || (length > 1 && digits.first() == Some(&b'0')) {
        return None;
    }
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((number, length))
}
