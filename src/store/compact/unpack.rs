//! From marks back to the message.

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
    while let Some(byte) = bytes.byte() {
        match byte {
            b' '..=b'~' => out.push(byte),
            mark::BYTES => {
                let count = bytes.number()?;
                out.extend_from_slice(bytes.take(count)?);
            }
            mark::BASE64 => {
                let count = bytes.number()?;
                push_base64(&mut out, bytes.take(count)?);
            }
            mark::NUMBER => out.extend_from_slice(bytes.four()?.to_string().as_bytes()),
            mark::UUID => push_uuid(&mut out, bytes.take(16)?),
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

pub(super) fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
}

fn push_uuid(out: &mut Vec<u8>, bytes: &[u8]) {
    let digits = hex::encode(bytes);
    for (place, digit) in digits.bytes().enumerate() {
        if matches!(place, 8 | 12 | 16 | 20) {
            out.push(b'-');
        }
        out.push(digit);
    }
}
