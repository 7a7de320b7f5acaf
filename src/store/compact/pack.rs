//! From a message to marks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memchr2;

use super::{MARKED, key_run, mark, phrases, push_number};

/// Places remembered for repetitions.
const REMEMBERED: usize = 1 << 10;
/// Shortest repetition that is looked at.
const SHORTEST: usize = 6;
/// Length of a UUID as text.
const UUID: usize = 36;

/// Writes a message as marks. The result may be longer than the message.
pub(super) fn pack(message: &[u8]) -> Vec<u8> {
    let mut writer = Writer {
        message,
        at: 0,
        plain: 0,
        out: Vec::with_capacity(message.len()),
        seen: vec![u32::MAX; REMEMBERED],
        first_uuid: None,
    };
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
    seen: Vec<u32>,
    /// The first UUID.
    first_uuid: Option<&'a [u8]>,
}

/// What the text from here on can be written as.
struct Candidate {
    mark: Mark,
    length: usize,
}

enum Mark {
    Phrase(u8),
    Again { back: usize, length: usize },
    Value(Vec<u8>),
}

impl Candidate {
    fn saved(&self) -> usize {
        let written = match &self.mark {
            Mark::Phrase(_) => 1,
            Mark::Again { back, length } => 1_usize.saturating_add(digits(*back)).saturating_add(digits(*length)),
            Mark::Value(written) => written.len(),
        };
        self.length.saturating_sub(written)
    }

    fn is_uuid(&self) -> bool {
        matches!(&self.mark, Mark::Value(written) if written.first() == Some(&mark::UUID))
    }

    fn push(&self, out: &mut Vec<u8>) {
        match &self.mark {
            Mark::Phrase(code) => out.push(*code),
            Mark::Again { back, length } => {
                out.push(mark::AGAIN);
                push_number(out, *back);
                push_number(out, *length);
            }
            Mark::Value(written) => out.extend_from_slice(written),
        }
    }
}

/// How many bytes [`push_number`] takes for a number.
fn digits(number: usize) -> usize {
    let bits = usize::BITS.saturating_sub(number.leading_zeros()).max(1);
    usize::try_from(bits.div_ceil(7)).unwrap_or(usize::MAX)
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
            best.push(&mut self.out);
            if self.first_uuid.is_none() && best.is_uuid() {
                self.first_uuid = rest.get(..UUID);
            }
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
            return Some(Candidate { mark: Mark::Value(written), length });
        }
        let phrase = phrases::longest(rest).map(|(code, length)| Candidate { mark: Mark::Phrase(code), length });
        let value = match before {
            Some(b'>') => base64(rest).or_else(|| self.uuid(rest)),
            Some(b'\'' | b'"') => self.uuid(rest).or_else(|| number(rest)),
            _ => None,
        };
        let candidates = [phrase, value, self.again(rest)];
        candidates.into_iter().flatten().filter(|best| best.saved() > 0).max_by_key(Candidate::saved)
    }

    /// A UUID in small letters.
    fn uuid(&self, text: &[u8]) -> Option<Candidate> {
        if self.first_uuid.is_some_and(|first| text.starts_with(first)) {
            return Some(Candidate { mark: Mark::Value(vec![mark::FIRST_UUID]), length: UUID });
        }
        uuid(text)
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
        let from = usize::try_from(*self.seen.get(slot(rest)?)?).ok().filter(|from| *from < self.at)?;
        // Compared no further than to where it would repeat itself: what repeats throughout a message would be read to its
        // end at every byte.
        let length = self.message.get(from..self.at)?.iter().zip(rest).take_while(|(a, b)| a == b).count();
        if length < SHORTEST {
            return None;
        }
        Some(Candidate { mark: Mark::Again { back: self.at.saturating_sub(from), length }, length })
    }

    fn remember(&mut self, place: usize) {
        let slot = self.message.get(place..).and_then(slot);
        if let Some(seen) = slot.and_then(|slot| self.seen.get_mut(slot)) {
            *seen = u32::try_from(place).unwrap_or(u32::MAX);
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
    // A `>`, which is looked behind as well, ends the search: many of them would have the message read many times.
    let (digits, rest) = text.split_at_checked(memchr2(b'<', b'>', text)?)?;
    if digits.len() < 8 || !rest.starts_with(b"<") {
        return None;
    }
    // Takes nothing but the one way to write the bytes.
    let bytes = STANDARD.decode(digits).ok()?;
    let mut written = vec![mark::BASE64];
    push_number(&mut written, bytes.len());
    written.extend_from_slice(&bytes);
    Some(Candidate { mark: Mark::Value(written), length: digits.len() })
}

/// A UUID in small letters.
fn uuid(text: &[u8]) -> Option<Candidate> {
    let text = text.get(..UUID)?;
    let mut written = Vec::with_capacity(17);
    written.push(mark::UUID);
    let mut half = None;
    for (place, byte) in text.iter().enumerate() {
        let four = match byte {
            b'-' if matches!(place, 8 | 13 | 18 | 23) => continue,
            _ if matches!(place, 8 | 13 | 18 | 23) => return None,
            b'0'..=b'9' => byte.wrapping_sub(b'0'),
            b'a'..=b'f' => byte.wrapping_sub(b'a').wrapping_add(10),
            _ => return None,
        };
        match half.take() {
            None => half = Some(four << 4),
            Some(upper) => written.push(upper | four),
        }
    }
    Some(Candidate { mark: Mark::Value(written), length: UUID })
}

/// A decimal number that ends with a quote.
fn number(text: &[u8]) -> Option<Candidate> {
    let (number, length) = decimal(text)?;
    let mut written = vec![mark::NUMBER];
    written.extend_from_slice(&number.to_be_bytes());
    Some(Candidate { mark: Mark::Value(written), length })
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
