//! From marks back to the message.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Bytes, LONGEST, MARKED, key_run, mark, phrases};

/// The message; `None` for bytes that [`super::pack`] has not made.
pub(super) fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Bytes(packed);
    if bytes.byte()? != MARKED {
        return None;
    }
    let mut out = Vec::with_capacity(packed.len().saturating_mul(2));
    let mut first_uuid = None;
    while let Some(byte) = bytes.byte() {
        match byte {
            b' '..=b'~' => out.push(byte),
            mark::BYTES => {
                let count = bytes.number()?;
                out.extend_from_slice(bytes.take(count)?);
            }
            mark::BASE64 => {
                let count = bytes.number()?;
                push_base64(&mut out, bytes.take(count)?)?;
            }
            mark::NUMBER => push_decimal(&mut out, bytes.four()?),
            mark::UUID => {
                let uuid = bytes.take(16)?;
                first_uuid.get_or_insert(uuid);
                push_uuid(&mut out, uuid);
            }
            mark::FIRST_UUID => push_uuid(&mut out, first_uuid?),
            mark::AGAIN => {
                let back = bytes.number()?;
                let length = bytes.number()?;
                let from = out.len().checked_sub(back)?;
                let end = from.checked_add(length).filter(|end| *end <= out.len())?;
                out.extend_from_within(from..end);
            }
            mark::KEYS => key_run::restore_run(&mut bytes, &mut out)?,
            code => out.extend_from_slice(phrases::phrase(code)?),
        }
        if out.len() > LONGEST {
            return None;
        }
    }
    Some(out)
}

/// Appends bytes in base64. `None` for more than can be written.
pub(super) fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    let start = out.len();
    let length = base64::encoded_len(bytes.len(), true)?;
    out.resize(start.checked_add(length)?, 0);
    STANDARD.encode_slice(bytes, out.get_mut(start..)?).ok()?;
    Some(())
}

/// Appends a number as it is usually written.
pub(super) fn push_decimal(out: &mut Vec<u8>, number: u32) {
    // Writing to memory does not fail.
    let _ = write!(out, "{number}");
}

fn push_uuid(out: &mut Vec<u8>, bytes: &[u8]) {
    for (place, byte) in bytes.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        for four in [byte >> 4, byte & 0xf] {
            out.push(if four < 10 { b'0' | four } else { b'a'.wrapping_add(four).wrapping_sub(10) });
        }
    }
}
