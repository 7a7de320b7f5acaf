//! What the headers of both protocols are made of, as every client writes them: a message of a session that is under way.
//! Of one that is laid out like this only the random bytes and the counters are stored.

use super::Bytes;

/// A part of a header.
enum Part {
    /// The same in every header.
    Fixed(&'static [u8]),
    /// So many bytes of its own.
    Own(usize),
    /// A number of its own, in groups of seven bits.
    Number,
    /// How many bytes follow, in one.
    Rest,
}

/// The layouts. What is stored refers to these by their place, so none may ever change or move; there is room for 32.
const LAYOUTS: &[&[Part]] = &[
    // libsignal's version 3: ratchet key, counter, previous counter, ciphertext of 16 bytes of key and 16 of tag; MAC.
    &[
        Part::Fixed(&[0x33, 0x0a, 0x21, 0x05]),
        Part::Own(32),
        Part::Fixed(&[0x10]),
        Part::Number,
        Part::Fixed(&[0x18]),
        Part::Number,
        Part::Fixed(&[0x22, 0x30]),
        Part::Own(48 + 8),
    ],
    // OMEMOAuthenticatedMessage (XEP-0384 §4.4): MAC, and OMEMOMessage with counter, previous counter, ratchet key and the
    // ciphertext of 32 bytes of key and 16 of tag.
    &[
        Part::Fixed(&[0x0a, 0x10]),
        Part::Own(16),
        Part::Fixed(&[0x12]),
        Part::Rest,
        Part::Fixed(&[0x08]),
        Part::Number,
        Part::Fixed(&[0x10]),
        Part::Number,
        Part::Fixed(&[0x1a, 0x20]),
        Part::Own(32),
        Part::Fixed(&[0x22, 0x40]),
        Part::Own(64),
    ],
];

/// Longest number, in bytes: of 64 bits.
const LONGEST_NUMBER: usize = 10;

/// One of the layouts.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Its place.
    pub(super) number: u8,
    parts: &'static [Part],
}

impl Layout {
    /// The layout with this number.
    pub(super) fn numbered(number: u8) -> Option<Self> {
        LAYOUTS.get(usize::from(number)).map(|parts| Self { number, parts })
    }

    /// The layout of a header.
    pub(super) fn of(header: &[u8]) -> Option<Self> {
        (0_u8..).map_while(Self::numbered).find(|layout| layout.take_apart(header, &mut Vec::new()).is_some())
    }

    /// Appends what is a header's own; `None`, with something appended perhaps, if it is not laid out like this.
    pub(super) fn take_apart(self, header: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let mut rest = Bytes(header);
        for part in self.parts {
            match part {
                Part::Fixed(bytes) => {
                    rest.take(bytes.len()).filter(|taken| taken == bytes)?;
                }
                Part::Own(length) => out.extend_from_slice(rest.take(*length)?),
                Part::Number => out.extend_from_slice(number(&mut rest)?),
                Part::Rest => {
                    rest.byte().filter(|length| usize::from(*length) == rest.0.len())?;
                }
            }
        }
        rest.0.is_empty().then_some(())
    }

    /// Appends a header that is made of what comes next in `own`.
    pub(super) fn put_together(self, own: &mut Bytes<'_>, out: &mut Vec<u8>) -> Option<()> {
        let mut lengths_at = None;
        for part in self.parts {
            match part {
                Part::Fixed(bytes) => out.extend_from_slice(bytes),
                Part::Own(length) => out.extend_from_slice(own.take(*length)?),
                Part::Number => out.extend_from_slice(number(own)?),
                Part::Rest => {
                    lengths_at = Some(out.len());
                    out.push(0);
                }
            }
        }
        if let Some(at) = lengths_at {
            let rest = out.len().checked_sub(at)?.checked_sub(1)?;
            *out.get_mut(at)? = u8::try_from(rest).ok()?;
        }
        Some(())
    }
}

/// The bytes of the number that comes next.
fn number<'a>(bytes: &mut Bytes<'a>) -> Option<&'a [u8]> {
    let last = bytes.0.iter().take(LONGEST_NUMBER).position(|byte| byte & 0x80 == 0)?;
    bytes.take(last.checked_add(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is stored would come out as something else.
    #[test]
    fn the_layouts_have_not_changed() {
        let restored = |number: u8| {
            let own: Vec<u8> = (0..200).map(|byte| byte & 0x7f).collect();
            let (mut bytes, mut out) = (Bytes(&own), Vec::new());
            Layout::numbered(number).unwrap().put_together(&mut bytes, &mut out).unwrap();
            assert_eq!(Layout::of(&out).unwrap().number, number);
            hex::encode(out)
        };
        let own = |from: u8, to: u8| (from..to).map(|byte| format!("{:02x}", byte & 0x7f)).collect::<String>();
        assert_eq!(restored(0), format!("330a2105{}102018212230{}", own(0, 32), own(34, 90)));
        let (mac, rest) = (own(0, 16), format!("081010111a20{}2240{}", own(18, 50), own(50, 114)));
        assert_eq!(restored(1), format!("0a10{mac}12{:02x}{rest}", rest.len() / 2));
        assert_eq!(LAYOUTS.len(), 2);
    }
}
