//! Entity and character references: `&lt;` and its four companions, `&#65;`, `&#x41;`, and nothing else (RFC 6120 §11.1).

use super::characters::may_be_referenced;
use super::fault::Fault;

/// As much of a reference as was read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reference {
    /// Its `&` was read.
    Start,
    Named {
        name: [u8; 4],
        length: u8,
    },
    Hash,
    Decimal(u32),
    X,
    Hex(u32),
}

impl Reference {
    /// The next character of a reference; `None` once its `;` was read.
    pub fn step(self, byte: u8) -> Result<Option<Self>, Fault> {
        let digit = |radix: u32| char::from(byte).to_digit(radix);
        Ok(Some(match (self, byte) {
            (Self::Start, b'#') => Self::Hash,
            (Self::Start, b'a'..=b'z') => Self::Named { name: [byte, 0, 0, 0], length: 1 },
            (Self::Named { name, length }, b';') => {
                return match name.get(..usize::from(length)) {
                    Some(b"lt" | b"gt" | b"amp" | b"quot" | b"apos") => Ok(None),
                    _ => Err(Fault::Restricted("an entity that is not predefined")),
                };
            }
            (Self::Named { mut name, length }, b'a'..=b'z') => match name.get_mut(usize::from(length)) {
                Some(place) => {
                    *place = byte;
                    Self::Named { name, length: length.saturating_add(1) }
                }
                None => return Err(Fault::Restricted("an entity that is not predefined")),
            },
            (Self::Hash, b'x') => Self::X,
            (Self::Decimal(code) | Self::Hex(code), b';') => {
                return match may_be_referenced(code) {
                    true => Ok(None),
                    false => Err(Fault::NotWellFormed("a reference to a character that XML does not allow")),
                };
            }
            (Self::Hash, _) if digit(10).is_some() => Self::Decimal(digit(10).unwrap_or_default()),
            (Self::X, _) if digit(16).is_some() => Self::Hex(digit(16).unwrap_or_default()),
            (Self::Decimal(code), _) if digit(10).is_some() => {
                Self::Decimal(code.saturating_mul(10).saturating_add(digit(10).unwrap_or_default()))
            }
            (Self::Hex(code), _) if digit(16).is_some() => {
                Self::Hex(code.saturating_mul(16).saturating_add(digit(16).unwrap_or_default()))
            }
            _ => return Err(Fault::NotWellFormed("a broken entity or character reference")),
        }))
    }
}
