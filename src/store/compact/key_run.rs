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
//!
//! Nearly all are of one of two kinds of which it is known what is in them ([`layout`](super::layout)):
//!
//! ```text
//! form with its layout, count, then of each header: its number, what is its own
//! ```

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memchr;

use super::layout::Layout;
use super::unpack::{push_base64, push_decimal};
use super::{Bytes, mark, pack, push_number};

/// Most headers of one run.
const MOST: usize = 250;
/// Longest header, in bytes.
const LONGEST: usize = 1_024;
/// How much longer than the first one a header of the same run may be, or shorter.
const SPREAD: usize = 4;

/// The places that a byte of the mask speaks of, the first place's bit first.
const BITS: [u8; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

const CLOSING: &[u8] = b"</key>";
/// By form: what stands before the number of the device, and behind it.
const FORMS: [(&[u8], &[u8]); 2] = [(b"<key rid='", b"'>"), (b"<key rid=\"", b"\">")];
/// Added to the form where the headers are not all of one length.
const UNEVEN: u8 = 0x80;
/// Added to the form, with twice the number of the layout, where all headers have one.
const LAID_OUT: u8 = 0x40;

/// A header of a run: its number, and its bytes by their place among those of all headers.
struct Header {
    device: u32,
    bytes: Range<usize>,
}

/// Headers of one kind, one right behind the other.
#[derive(Default)]
struct Run {
    headers: Vec<Header>,
    bytes: Vec<u8>,
    shortest: usize,
    longest: usize,
}

impl Run {
    fn bytes(&self, header: &Header) -> &[u8] {
        self.bytes.get(header.bytes.clone()).unwrap_or_default()
    }

    /// Takes the header that a text begins with, if there is one of this kind; gives what follows it.
    fn take<'a>(&mut self, text: &'a [u8], opening: &[u8], middle: &[u8]) -> Option<&'a [u8]> {
        let rest = text.strip_prefix(opening)?;
        let (device, length) = pack::decimal(rest)?;
        let rest = rest.get(length..)?.strip_prefix(middle)?;
        let (digits, rest) = rest.split_at_checked(memchr(b'<', rest)?)?;
        let rest = rest.strip_prefix(CLOSING)?;
        let start = self.bytes.len();
        if STANDARD.decode_vec(digits, &mut self.bytes).is_err() {
            self.bytes.truncate(start);
            return None;
        }
        let length = self.bytes.len().saturating_sub(start);
        let first = self.headers.first().map_or(length, |first| first.bytes.len());
        if length == 0 || length > LONGEST || first.abs_diff(length) > SPREAD {
            self.bytes.truncate(start);
            return None;
        }
        (self.shortest, self.longest) = if self.headers.is_empty() {
            (length, length)
        } else {
            (self.shortest.min(length), self.longest.max(length))
        };
        self.headers.push(Header { device, bytes: start..self.bytes.len() });
        Some(rest)
    }

    /// Of each place of the shortest header, whether all headers have the same byte there: counted from the front, or from
    /// the back.
    fn equal(&self, from_the_back: bool) -> Vec<bool> {
        let of = |header| {
            let bytes = self.bytes(header);
            let skipped = if from_the_back { bytes.len().saturating_sub(self.shortest) } else { 0 };
            bytes.get(skipped..).unwrap_or_default()
        };
        let mut equal = vec![true; self.shortest];
        if let Some((first, others)) = self.headers.split_first() {
            for other in others {
                for (equal, (a, b)) in equal.iter_mut().zip(of(first).iter().zip(of(other))) {
                    *equal &= a == b;
                }
            }
        }
        equal
    }
}

/// The headers that a text begins with, if they are at least two or have a layout, and how long they are as text.
pub(super) fn write_run(text: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (form, (opening, middle)) = (0_u8..).zip(FORMS).find(|(_, (opening, _))| text.starts_with(opening))?;
    let mut run = Run::default();
    let mut rest = text;
    while run.headers.len() < MOST {
        let Some(after) = run.take(rest, opening, middle) else { break };
        rest = after;
    }
    let written = match write_laid_out(form, &run) {
        None if run.headers.len() < 2 => return None,
        None => write(form, &run)?,
        Some(written) => written,
    };
    Some((written, text.len().saturating_sub(rest.len())))
}

/// Writes headers that all have one layout.
fn write_laid_out(form: u8, run: &Run) -> Option<Vec<u8>> {
    let layout = Layout::of(run.bytes(run.headers.first()?))?;
    let mut out = Vec::with_capacity(run.bytes.len());
    out.extend([mark::KEYS, form | LAID_OUT | layout.number << 1]);
    push_number(&mut out, run.headers.len());
    for header in &run.headers {
        out.extend_from_slice(&header.device.to_be_bytes());
        layout.take_apart(run.bytes(header), &mut out)?;
    }
    Some(out)
}

fn write(form: u8, run: &Run) -> Option<Vec<u8>> {
    let shortest = run.shortest;
    let uneven = run.longest != shortest;
    let (split, common) = if uneven { best_split(run) } else { (shortest, run.equal(false)) };
    let first = run.bytes(run.headers.first()?);
    let mut out = Vec::with_capacity(run.bytes.len().saturating_add(run.headers.len().saturating_mul(5)));
    out.extend([mark::KEYS, if uneven { form | UNEVEN } else { form }]);
    push_number(&mut out, run.headers.len());
    push_number(&mut out, shortest);
    push_number(&mut out, split);
    for eight in common.chunks(8) {
        out.push(eight.iter().zip(BITS).fold(0, |byte, (is, bit)| byte | if *is { bit } else { 0 }));
    }
    let stretches = Stretches::of(&common, split);
    let more = first.len().checked_sub(shortest)?;
    stretches.push(&mut out, first, more, true)?;
    for header in &run.headers {
        out.extend_from_slice(&header.device.to_be_bytes());
        let bytes = run.bytes(header);
        let more = bytes.len().checked_sub(shortest)?;
        if uneven {
            push_number(&mut out, more);
            out.extend_from_slice(bytes.get(split..split.checked_add(more)?)?);
        }
        stretches.push(&mut out, bytes, more, false)?;
    }
    Some(out)
}

/// Where the headers have most in common before and after it, and what they have in common then.
fn best_split(run: &Run) -> (usize, Vec<bool>) {
    let (mut front, back) = (run.equal(false), run.equal(true));
    let mut score = back.iter().filter(|is| **is).count();
    let (mut best, mut most) = (0, score);
    for (place, (front, back)) in front.iter().zip(&back).enumerate() {
        score = score.saturating_add(usize::from(*front)).saturating_sub(usize::from(*back));
        if score > most {
            (best, most) = (place.saturating_add(1), score);
        }
    }
    for (front, back) in front.iter_mut().zip(back).skip(best) {
        *front = back;
    }
    (best, front)
}

/// Places of a header, one behind the other, that are all in common or all not: before the split, and after it.
struct Stretches {
    before: Vec<(bool, usize)>,
    after: Vec<(bool, usize)>,
}

impl Stretches {
    fn of(common: &[bool], split: usize) -> Self {
        let stretches = |places: &[bool]| {
            places.chunk_by(|a, b| a == b).map(|same| (same.first() == Some(&true), same.len())).collect()
        };
        let (before, after) = common.split_at_checked(split).unwrap_or((common, &[]));
        Self { before: stretches(before), after: stretches(after) }
    }

    /// Appends those bytes of a header that are in common, or those that are not. It has `more` bytes at the split.
    fn push(&self, out: &mut Vec<u8>, header: &[u8], more: usize, wanted: bool) -> Option<()> {
        let mut rest = Bytes(header);
        for (is_common, length) in &self.before {
            let bytes = rest.take(*length)?;
            if *is_common == wanted {
                out.extend_from_slice(bytes);
            }
        }
        rest.take(more)?;
        for (is_common, length) in &self.after {
            let bytes = rest.take(*length)?;
            if *is_common == wanted {
                out.extend_from_slice(bytes);
            }
        }
        Some(())
    }

    /// Appends a header that is made of these bytes, those at the split being `additional`.
    fn join(&self, out: &mut Vec<u8>, common: &[u8], own: &[u8], additional: &[u8]) -> Option<()> {
        let (mut common, mut own) = (Bytes(common), Bytes(own));
        for (is_common, length) in &self.before {
            out.extend_from_slice(if *is_common { &mut common } else { &mut own }.take(*length)?);
        }
        out.extend_from_slice(additional);
        for (is_common, length) in &self.after {
            out.extend_from_slice(if *is_common { &mut common } else { &mut own }.take(*length)?);
        }
        Some(())
    }
}

/// Restores the headers, behind the mark.
pub(super) fn restore_run(bytes: &mut Bytes<'_>, out: &mut Vec<u8>) -> Option<()> {
    let form = bytes.byte()?;
    if form & LAID_OUT != 0 {
        return restore_laid_out(form & !LAID_OUT, bytes, out);
    }
    let uneven = form & UNEVEN != 0;
    let (opening, middle) = FORMS.get(usize::from(form & !UNEVEN))?;
    let count = bytes.number().filter(|count| *count <= MOST)?;
    let shortest = bytes.number().filter(|length| *length <= LONGEST)?;
    let split = bytes.number().filter(|split| *split <= shortest)?;
    let mask = bytes.take(shortest.div_ceil(8))?;
    let common: Vec<bool> = mask.iter().flat_map(|byte| BITS.map(|bit| byte & bit != 0)).take(shortest).collect();
    let stretches = Stretches::of(&common, split);
    let in_common = bytes.take(common.iter().filter(|is| **is).count())?;
    let others = shortest.checked_sub(in_common.len())?;
    let mut header = Vec::with_capacity(shortest);
    for _ in 0..count {
        let device = bytes.four()?;
        let more = if uneven { bytes.number().filter(|more| *more <= LONGEST)? } else { 0 };
        let additional = bytes.take(more)?;
        header.clear();
        stretches.join(&mut header, in_common, bytes.take(others)?, additional)?;
        push_header(out, (opening, middle), device, &header)?;
    }
    Some(())
}

fn restore_laid_out(form: u8, bytes: &mut Bytes<'_>, out: &mut Vec<u8>) -> Option<()> {
    let layout = Layout::numbered(form >> 1)?;
    let around = *FORMS.get(usize::from(form & 1))?;
    let count = bytes.number().filter(|count| *count <= MOST)?;
    let mut header = Vec::with_capacity(LONGEST);
    for _ in 0..count {
        let device = bytes.four()?;
        header.clear();
        layout.put_together(bytes, &mut header)?;
        push_header(out, around, device, &header)?;
    }
    Some(())
}

fn push_header(out: &mut Vec<u8>, (opening, middle): (&[u8], &[u8]), device: u32, header: &[u8]) -> Option<()> {
    out.extend_from_slice(opening);
    push_decimal(out, device);
    out.extend_from_slice(middle);
    push_base64(out, header)?;
    out.extend_from_slice(CLOSING);
    Some(())
}
