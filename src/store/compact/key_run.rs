//! The headers for several devices, one right behind the other: `<key rid='1'>…</key><key rid='2'>…</key>`.
//!
//! The tags are the same in all, and so are some bytes of what is in them: marks of its format, counters. What all have in
//! common is written once. A counter is a byte longer in some, so what stands before a certain place (`split`) is compared
//! from the front, what stands after it from the back, and a longer header has its additional bytes at that place.
//!
//! ```text
//! form, count, length of the shortest, split, which bytes all have in common (a bit each), those bytes,
//! then of each header: its number, how much longer it is (unless none is), its other bytes
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::unpack::push_base64;
use super::{Bytes, mark, pack, push_number};

/// Most headers of one run.
const MOST: usize = 250;
/// Longest header, in bytes.
const LONGEST: usize = 1_024;
/// How much longer than the first one a header of the same run may be, or shorter.
const SPREAD: usize = 4;

const CLOSING: &[u8] = b"</key>";
/// By form: what stands before the number of the device, and behind it.
const FORMS: [(&[u8], &[u8]); 2] = [(b"<key rid='", b"'>"), (b"<key rid=\"", b"\">")];
/// Added to the form where the headers are not all of one length.
const UNEVEN: u8 = 0x80;

struct Header {
    device: u32,
    bytes: Vec<u8>,
}

impl Header {
    /// The byte at a place of the shortest header.
    fn at(&self, place: usize, shortest: usize, split: usize) -> Option<u8> {
        let more = self.bytes.len().checked_sub(shortest)?;
        let place = if place < split { place } else { place.checked_add(more)? };
        self.bytes.get(place).copied()
    }
}

/// The headers that a text begins with, if there are at least two of them, and how long they are as text.
pub(super) fn write_run(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (form, (opening, middle)) = (0_u8..).zip(FORMS).find(|(_, (opening, _))| text.starts_with(opening))?;
    let mut headers: Vec<Header> = Vec::new();
    let mut rest = text;
    while headers.len() < MOST {
        let Some((header, after)) = take(rest, opening, middle) else { break };
        let of_one_kind = headers.first().is_none_or(|first| first.bytes.len().abs_diff(header.bytes.len()) <= SPREAD);
        if !of_one_kind {
            break;
        }
        headers.push(header);
        rest = after;
    }
    if headers.len() < 2 {
        return None;
    }
    Some((write(form, &headers)?, text.len().saturating_sub(rest.len())))
}

fn take<'a>(text: &'a [u8], opening: &[u8], middle: &[u8]) -> Option<(Header, &'a [u8])> {
    let rest = text.strip_prefix(opening)?;
    let (device, length) = pack::decimal(rest)?;
    let rest = rest.get(length..)?.strip_prefix(middle)?;
    let length = rest.iter().position(|byte| !pack::is_base64(*byte))?;
    let (digits, rest) = rest.split_at_checked(length)?;
    let bytes = STANDARD.decode(digits).ok().filter(|bytes| !bytes.is_empty() && bytes.len() <= LONGEST)?;
    Some((Header { device, bytes }, rest.strip_prefix(CLOSING)?))
}

fn write(form: u8, headers: &[Header]) -> Option<Vec<u8>> {
    let shortest = headers.iter().map(|header| header.bytes.len()).min()?;
    let uneven = headers.iter().any(|header| header.bytes.len() != shortest);
    let split = if uneven { best_split(headers, shortest) } else { shortest };
    let common: Vec<bool> = (0..shortest).map(|place| are_equal(headers, place, shortest, split)).collect();
    let first = headers.first()?;
    let mut out = vec![mark::KEYS, if uneven { form | UNEVEN } else { form }];
    push_number(&mut out, headers.len());
    push_number(&mut out, shortest);
    push_number(&mut out, split);
    for eight in common.chunks(8) {
        out.push(
            eight
                .iter()
                .zip([1_u8, 2, 4, 8, 16, 32, 64, 128])
                .fold(0, |byte, (is, bit)| byte | if *is { bit } else { 0 }),
        );
    }
    let of = |header: &Header, wanted: bool| {
        let places = common.iter().enumerate().filter(move |(_, is)| **is == wanted);
        places.filter_map(|(place, _)| header.at(place, shortest, split)).collect::<Vec<u8>>()
    };
    out.extend(of(first, true));
    for header in headers {
        out.extend_from_slice(&header.device.to_be_bytes());
        let more = header.bytes.len().checked_sub(shortest)?;
        if uneven {
            push_number(&mut out, more);
            out.extend_from_slice(header.bytes.get(split..split.checked_add(more)?)?);
        }
        out.extend(of(header, false));
    }
    Some(out)
}

fn are_equal(headers: &[Header], place: usize, shortest: usize, split: usize) -> bool {
    let mut bytes = headers.iter().map(|header| header.at(place, shortest, split));
    let first = bytes.next().flatten();
    first.is_some() && bytes.all(|byte| byte == first)
}

/// Where the headers have most in common before and after it.
fn best_split(headers: &[Header], shortest: usize) -> usize {
    let equal =
        |split: usize| -> Vec<bool> { (0..shortest).map(|place| are_equal(headers, place, shortest, split)).collect() };
    // All from the front, and all from the back.
    let (front, back) = (equal(shortest), equal(0));
    let mut score = back.iter().filter(|is| **is).count();
    let (mut best, mut most) = (0, score);
    for (place, (front, back)) in front.iter().zip(&back).enumerate() {
        score = score.saturating_add(usize::from(*front)).saturating_sub(usize::from(*back));
        if score > most {
            (best, most) = (place.saturating_add(1), score);
        }
    }
    best
}

/// Restores the headers, behind the mark.
pub(super) fn restore_run(bytes: &mut Bytes<'_>, out: &mut Vec<u8>) -> Option<()> {
    let form = bytes.byte()?;
    let uneven = form & UNEVEN != 0;
    let (opening, middle) = FORMS.get(usize::from(form & !UNEVEN))?;
    let count = bytes.number().filter(|count| *count <= MOST)?;
    let shortest = bytes.number().filter(|length| *length <= LONGEST)?;
    let split = bytes.number().filter(|split| *split <= shortest)?;
    let mask = bytes.take(shortest.div_ceil(8))?;
    let common: Vec<bool> = mask
        .iter()
        .flat_map(|byte| [1_u8, 2, 4, 8, 16, 32, 64, 128].map(|bit| byte & bit != 0))
        .take(shortest)
        .collect();
    let in_common = bytes.take(common.iter().filter(|is| **is).count())?;
    let others = shortest.checked_sub(in_common.len())?;
    for _ in 0..count {
        let device = bytes.four()?;
        let more = if uneven { bytes.number().filter(|more| *more <= LONGEST)? } else { 0 };
        let additional = bytes.take(more)?;
        let (mut shared, mut own) = (in_common.iter(), bytes.take(others)?.iter());
        let mut header = Vec::with_capacity(shortest.saturating_add(more));
        for (place, is_common) in common.iter().enumerate() {
            if place == split {
                header.extend_from_slice(additional);
            }
            header.push(*if *is_common { shared.next()? } else { own.next()? });
        }
        if split == shortest {
            header.extend_from_slice(additional);
        }
        out.extend_from_slice(opening);
        out.extend_from_slice(device.to_string().as_bytes());
        out.extend_from_slice(middle);
        push_base64(out, &header);
        out.extend_from_slice(CLOSING);
    }
    Some(())
}
