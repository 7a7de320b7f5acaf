//! The bytes of a message as they are stored: shorter, and restored exactly.
//!
//! Most of an OMEMO message is key material in base64: a third of it is gone once it is stored as the bytes that it stands
//! for. What is around it says nearly the same in every message. So the text is written as marks: a phrase out of a fixed
//! list ([`phrases`]), base64, a number, a UUID, a repetition, and the headers for many devices at once ([`key_run`]), which
//! differ in their keys only. What is none of these stands for itself. No XML is read: the text is looked at as bytes, and
//! every mark stands for text that it restores to the byte, whatever that text means.
//!
//! [`pack`] checks its own work: what would not come out as it went in is stored as it is.
//!
//! | first byte | what follows |
//! |---|---|
//! | 0 | the message itself |
//! | 1 | marks |
//! | any other | belongs to the message itself, as everything did before there were marks |

mod key_run;
mod layout;
mod pack;
mod phrases;
mod unpack;

use super::StoreError;

/// The message itself follows.
const PLAIN: u8 = 0;
/// Marks follow.
const MARKED: u8 = 1;

/// Longest message that is restored: that of the longest stanza that can be configured.
const LONGEST: usize = 16 * 1024 * 1024;

/// What a byte stands for that is neither a printable ASCII character, which stands for itself, nor a phrase (128 and up).
mod mark {
    /// Bytes as they are; their number is before them.
    pub(super) const BYTES: u8 = 1;
    /// Bytes that stand in base64; their number is before them.
    pub(super) const BASE64: u8 = 2;
    /// A decimal number, in four bytes.
    pub(super) const NUMBER: u8 = 3;
    /// A UUID in small letters, in sixteen bytes.
    pub(super) const UUID: u8 = 4;
    /// What stood so many bytes before, for so many bytes.
    pub(super) const AGAIN: u8 = 5;
    /// Headers for several devices.
    pub(super) const KEYS: u8 = 6;
    /// The first UUID of the message again.
    pub(super) const FIRST_UUID: u8 = 7;
}

/// The bytes to store for a message.
pub(super) fn pack(message: &[u8]) -> Vec<u8> {
    if message.first() == Some(&b'<') {
        let packed = pack::pack(message);
        if packed.len() < message.len() && unpack::unpack(&packed).is_some_and(|restored| restored == message) {
            return packed;
        }
    }
    if matches!(message.first(), Some(&(PLAIN | MARKED))) {
        let mut plain = Vec::with_capacity(message.len().saturating_add(1));
        plain.push(PLAIN);
        plain.extend_from_slice(message);
        return plain;
    }
    message.to_vec()
}

/// The message behind stored bytes.
pub(super) fn unpack(stored: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    match stored.split_first() {
        Some((&PLAIN, message)) => Ok(message.to_vec()),
        Some((&MARKED, _)) => unpack::unpack(&stored).ok_or(StoreError::Corrupt("message")),
        _ => Ok(stored),
    }
}

/// Appends a number in groups of seven bits, the lowest first.
fn push_number(out: &mut Vec<u8>, number: usize) {
    let mut rest = number;
    while rest >= 0x80 {
        out.push(u8::try_from(rest & 0x7f).unwrap_or_default() | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap_or_default());
}

/// Takes bytes off the front, one way or the other.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn four(&mut self) -> Option<u32> {
        self.take(4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
    }

    /// A number as [`push_number`] writes it, up to 2^28.
    fn number(&mut self) -> Option<usize> {
        let mut number = 0_usize;
        for shift in [0_u32, 7, 14, 21] {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
