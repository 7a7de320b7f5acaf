//! The grammar of restricted XML (RFC 6120 §11.1) as a state machine over bytes: where tags and attributes begin and
//! end, and that everything between them is well-formed.
//!
//! It holds no input and allocates nothing: tokens are spans of stream offsets, and whoever feeds it keeps the bytes as
//! long as it wants to read the spans. Limits, matching of end tags, duplicate attributes and namespaces are the
//! framer's business.

use memchr::{memchr, memchr3};

use super::characters::{continues_name, front, starts_name};
use super::fault::Fault;
use super::reference::Reference;

/// A run of the stream, by offsets from its first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub start: u64,
    pub end: u64,
}

impl Span {
    pub fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// What the framer needs to know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A start tag begins: the offset of its `<`. Comes with the first character of its name.
    Open(u64),
    /// The name of the start tag is complete.
    Name(Span),
    /// An attribute is complete; the value is without its quotes.
    Attribute { name: Span, value: Span },
    /// The start tag is complete.
    Opened { empty: bool },
    /// An end tag is complete.
    Closed(Span),
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing read yet: an XML declaration may come.
    Start,
    StartAngle,
    Declaration {
        length: u16,
        question: bool,
    },
    Text {
        brackets: u8,
    },
    Angle,
    Name,
    /// Inside a start tag, after the name or a value; `space` allows an attribute.
    Tag {
        space: bool,
    },
    Slash,
    AttributeName,
    Equals,
    Quote,
    Value {
        quote: u8,
    },
    EndAngle,
    EndName,
    EndSpace,
    Reference {
        place: Place,
        reference: Reference,
    },
    Bang {
        matched: u8,
    },
    Cdata {
        brackets: u8,
    },
}

/// Where to go on after a reference.
#[derive(Clone, Copy, Debug)]
enum Place {
    Text,
    Value { quote: u8 },
}

/// No declaration that a server writes comes near this.
const DECLARATION_BYTES: u16 = 256;
const CDATA: &[u8] = b"[CDATA[";

pub(super) struct Lexer {
    state: State,
    /// Stream offset of the next byte.
    position: u64,
    /// Elements open now; 1 between stanzas.
    depth: u64,
    /// The `<` of the tag being read.
    angle: u64,
    /// First byte of the name or attribute being read.
    token: u64,
    attribute_name: Span,
    value: u64,
    end_name: Span,
}

impl Lexer {
    pub fn new() -> Self {
        Self {
            state: State::Start,
            position: 0,
            depth: 0,
            angle: 0,
            token: 0,
            attribute_name: Span::default(),
            value: 0,
            end_name: Span::default(),
        }
    }

    /// Stream offset of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Elements open: 0 before and after the stream, 1 between stanzas. A start tag counts once it is complete.
    pub fn depth(&self) -> u64 {
        self.depth
    }

    /// Where the tag begins that is being read.
    pub fn tag_in_progress(&self) -> Option<u64> {
        match self.state {
            State::Start | State::Text { .. } | State::Declaration { .. } | State::Cdata { .. } => None,
            State::Reference { place: Place::Text, .. } => None,
            _ => Some(self.angle),
        }
    }

    /// Where the name or attribute of a start tag begins that is being read.
    pub fn token_in_progress(&self) -> Option<u64> {
        match self.state {
            State::Name | State::AttributeName | State::Equals | State::Quote | State::Value { .. } => Some(self.token),
            State::Reference { place: Place::Value { .. }, .. } => Some(self.token),
            _ => None,
        }
    }

    /// Reads up to the end of the next token, or all of `input`, which begins at [`Self::position`], consists of whole
    /// characters and was checked.
    pub fn next(&mut self, input: &[u8]) -> Result<Option<Token>, Fault> {
        let base = self.position;
        let mut rest = input;
        while let Some((&byte, tail)) = rest.split_first() {
            let here = base.saturating_add(length(input).saturating_sub(length(rest)));
            let (state, remaining, token) = match self.whole(rest, here) {
                Some(whole) => whole,
                None => self.step(byte, rest, tail, here)?,
            };
            self.state = state;
            rest = remaining;
            if token.is_some() {
                self.position = base.saturating_add(length(input).saturating_sub(length(rest)));
                return Ok(token);
            }
        }
        self.position = base.saturating_add(length(input));
        Ok(None)
    }

    /// What most of a stanza is made of, in one step where it is all there and written as servers write it: an end tag, or
    /// an attribute. Anything else is for [`Self::step`], which says the same of these in more steps.
    #[inline]
    fn whole<'a>(&mut self, rest: &'a [u8], here: u64) -> Option<(State, &'a [u8], Option<Token>)> {
        match self.state {
            State::Angle if self.depth > 0 => {
                let (name, tail) = ascii_name(rest.strip_prefix(b"/")?)?;
                let tail = tail.strip_prefix(b">")?;
                let start = here.saturating_add(1);
                self.depth = self.depth.saturating_sub(1);
                let name = Span { start, end: start.saturating_add(length(name)) };
                Some((State::Text { brackets: 0 }, tail, Some(Token::Closed(name))))
            }
            State::Tag { space: false } => {
                let (name, tail) = ascii_name(rest.strip_prefix(b" ")?)?;
                let (quote, value) = tail.strip_prefix(b"=")?.split_first()?;
                if !matches!(quote, b'\'' | b'"') {
                    return None;
                }
                let at = memchr3(*quote, b'<', b'&', value)?;
                let (stop, tail) = split_at(value, at);
                if stop != *quote {
                    return None;
                }
                let start = here.saturating_add(1);
                let name = Span { start, end: start.saturating_add(length(name)) };
                let start = name.end.saturating_add(2);
                let value = Span { start, end: start.saturating_add(at as u64) };
                Some((State::Tag { space: false }, tail, Some(Token::Attribute { name, value })))
            }
            _ => None,
        }
    }

    /// One step: the new state, the input that remains, and the token that was completed.
    #[inline]
    fn step<'a>(&mut self, byte: u8, rest: &'a [u8], tail: &'a [u8], here: u64) -> Step<'a> {
        let after = here.saturating_add(1);
        match self.state {
            State::Text { brackets: 0 } if self.depth > 1 => {
                let Some(at) = memchr3(b'<', b'&', b']', rest) else {
                    return go(State::Text { brackets: 0 }, &[]);
                };
                let (stop, tail) = split_at(rest, at);
                match stop {
                    b'<' => {
                        self.angle = here.saturating_add(at as u64);
                        go(State::Angle, tail)
                    }
                    b'&' => go(State::Reference { place: Place::Text, reference: Reference::Start }, tail),
                    _ => go(State::Text { brackets: 1 }, tail),
                }
            }
            State::Text { brackets } if self.depth > 1 => match byte {
                b']' => go(State::Text { brackets: 2 }, tail),
                b'>' if brackets == 2 => Err(Fault::NotWellFormed("]]> outside CDATA")),
                _ => go(State::Text { brackets: 0 }, rest),
            },
            State::Start if byte == b'<' => {
                self.angle = here;
                go(State::StartAngle, tail)
            }
            State::Start | State::Text { .. } => match byte {
                b' ' | b'\t' | b'\r' | b'\n' => go(State::Text { brackets: 0 }, tail),
                b'<' => {
                    self.angle = here;
                    go(State::Angle, tail)
                }
                _ => Err(Fault::TextBetweenStanzas),
            },
            State::StartAngle if byte == b'?' => go(State::Declaration { length: 0, question: false }, tail),
            State::StartAngle => self.angle(byte, rest, tail, here),
            State::Declaration { length, question } => declaration(byte, tail, length, question),
            State::Angle => self.angle(byte, rest, tail, here),
            State::Name => match name_end(rest) {
                None => go(State::Name, &[]),
                Some(at) => {
                    let span = Span { start: self.token, end: here.saturating_add(at as u64) };
                    done(State::Tag { space: false }, rest.get(at..).unwrap_or_default(), Token::Name(span))
                }
            },
            State::Tag { space } => match byte {
                b' ' | b'\t' | b'\r' | b'\n' => go(State::Tag { space: true }, tail),
                b'>' => {
                    self.depth = self.depth.saturating_add(1);
                    done(State::Text { brackets: 0 }, tail, Token::Opened { empty: false })
                }
                b'/' => go(State::Slash, tail),
                _ if space && begins_name(rest) => {
                    self.token = here;
                    go(State::AttributeName, rest)
                }
                _ => Err(Fault::NotWellFormed("an attribute was expected in a start tag")),
            },
            State::Slash if byte == b'>' => done(State::Text { brackets: 0 }, tail, Token::Opened { empty: true }),
            State::Slash => Err(Fault::NotWellFormed("> was expected after / in a tag")),
            State::AttributeName => match name_end(rest) {
                None => go(State::AttributeName, &[]),
                Some(at) => {
                    self.attribute_name = Span { start: self.token, end: here.saturating_add(at as u64) };
                    go(State::Equals, rest.get(at..).unwrap_or_default())
                }
            },
            State::Equals => match byte {
                b' ' | b'\t' | b'\r' | b'\n' => go(State::Equals, tail),
                b'=' => go(State::Quote, tail),
                _ => Err(Fault::NotWellFormed("= was expected after the name of an attribute")),
            },
            State::Quote => match byte {
                b' ' | b'\t' | b'\r' | b'\n' => go(State::Quote, tail),
                b'"' | b'\'' => {
                    self.value = after;
                    go(State::Value { quote: byte }, tail)
                }
                _ => Err(Fault::NotWellFormed("a quoted attribute value was expected")),
            },
            State::Value { quote } => {
                let Some(at) = memchr3(quote, b'<', b'&', rest) else {
                    return go(State::Value { quote }, &[]);
                };
                let (stop, tail) = split_at(rest, at);
                match stop {
                    b'<' => Err(Fault::NotWellFormed("< in an attribute value")),
                    b'&' => {
                        let place = Place::Value { quote };
                        go(State::Reference { place, reference: Reference::Start }, tail)
                    }
                    _ => {
                        let value = Span { start: self.value, end: here.saturating_add(at as u64) };
                        let token = Token::Attribute { name: self.attribute_name, value };
                        done(State::Tag { space: false }, tail, token)
                    }
                }
            }
            State::EndAngle if begins_name(rest) => go(State::EndName, rest),
            State::EndAngle => Err(Fault::NotWellFormed("a name was expected after </")),
            State::EndName => match name_end(rest) {
                None => go(State::EndName, &[]),
                Some(at) => {
                    self.end_name = Span { start: self.token, end: here.saturating_add(at as u64) };
                    go(State::EndSpace, rest.get(at..).unwrap_or_default())
                }
            },
            State::EndSpace => match byte {
                b' ' | b'\t' | b'\r' | b'\n' => go(State::EndSpace, tail),
                b'>' => {
                    self.depth = self.depth.saturating_sub(1);
                    done(State::Text { brackets: 0 }, tail, Token::Closed(self.end_name))
                }
                _ => Err(Fault::NotWellFormed("> was expected after the name of an end tag")),
            },
            State::Reference { place, reference } => match reference.step(byte)? {
                Some(reference) => go(State::Reference { place, reference }, tail),
                None => match place {
                    Place::Text => go(State::Text { brackets: 0 }, tail),
                    Place::Value { quote } => go(State::Value { quote }, tail),
                },
            },
            State::Bang { matched } => self.bang(byte, tail, matched),
            State::Cdata { brackets: 0 } => match memchr(b']', rest) {
                None => go(State::Cdata { brackets: 0 }, &[]),
                Some(at) => go(State::Cdata { brackets: 1 }, split_at(rest, at).1),
            },
            State::Cdata { brackets } => match byte {
                b']' => go(State::Cdata { brackets: 2 }, tail),
                b'>' if brackets == 2 => go(State::Text { brackets: 0 }, tail),
                _ => go(State::Cdata { brackets: 0 }, tail),
            },
        }
    }

    /// After `<`.
    fn angle<'a>(&mut self, byte: u8, rest: &'a [u8], tail: &'a [u8], here: u64) -> Step<'a> {
        match byte {
            b'/' if self.depth > 0 => {
                self.token = here.saturating_add(1);
                go(State::EndAngle, tail)
            }
            b'!' => go(State::Bang { matched: 0 }, tail),
            b'?' => Err(Fault::Restricted("a processing instruction")),
            _ if begins_name(rest) => {
                self.token = here;
                done(State::Name, rest, Token::Open(self.angle))
            }
            _ => Err(Fault::NotWellFormed("a name was expected after <")),
        }
    }

    /// After `<!`: only a CDATA section may come.
    fn bang<'a>(&mut self, byte: u8, tail: &'a [u8], matched: u8) -> Step<'a> {
        let matched = usize::from(matched);
        if CDATA.get(matched) != Some(&byte) {
            return Err(match (matched, byte) {
                (0, b'-') => Fault::Restricted("a comment"),
                (0, b'D') => Fault::Restricted("a document type declaration"),
                _ => Fault::NotWellFormed("unknown markup after <!"),
            });
        }
        if matched.saturating_add(1) < CDATA.len() {
            return go(State::Bang { matched: u8::try_from(matched.saturating_add(1)).unwrap_or(u8::MAX) }, tail);
        }
        match self.depth {
            0 | 1 => Err(Fault::TextBetweenStanzas),
            _ => go(State::Cdata { brackets: 0 }, tail),
        }
    }
}

type Step<'a> = Result<(State, &'a [u8], Option<Token>), Fault>;

fn go(state: State, rest: &[u8]) -> Step<'_> {
    Ok((state, rest, None))
}

fn done(state: State, rest: &[u8], token: Token) -> Step<'_> {
    Ok((state, rest, Some(token)))
}

fn length(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

/// The byte at `at`, which lies inside, and what follows it.
fn split_at(rest: &[u8], at: usize) -> (u8, &[u8]) {
    rest.get(at..).and_then(<[u8]>::split_first).map_or((0, &[]), |(&stop, tail)| (stop, tail))
}

/// Reads the XML declaration. What it says does not matter: the stream is UTF-8 and XML 1.0 or breaks its rules.
fn declaration(byte: u8, tail: &[u8], length: u16, question: bool) -> Step<'_> {
    match (length, byte) {
        (0, b'x') | (1, b'm') | (2, b'l') | (3, b' ' | b'\t' | b'\r' | b'\n') => {}
        (0..=3, _) => return Err(Fault::Restricted("a processing instruction")),
        (DECLARATION_BYTES.., _) => return Err(Fault::NotWellFormed("an endless XML declaration")),
        (_, b'>') if question => return go(State::Text { brackets: 0 }, tail),
        (_, b'<') => return Err(Fault::NotWellFormed("< in the XML declaration")),
        _ => {}
    }
    go(State::Declaration { length: length.saturating_add(1), question: byte == b'?' }, tail)
}

/// A name of ASCII characters that a text begins with, and what follows it. What follows in the name may be no ASCII.
fn ascii_name(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, tail) = rest.split_at_checked(rest.iter().position(|byte| !in_ascii_name(*byte))?)?;
    matches!(name.first()?, b'a'..=b'z' | b'A'..=b'Z' | b'_' | b':').then_some((name, tail))
}

fn in_ascii_name(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b':')
}

fn begins_name(rest: &[u8]) -> bool {
    front(rest).is_some_and(|(c, _)| starts_name(c))
}

/// Where the name at the front of `rest` ends, if it ends in it. Ends at anything that is not a name character: what may
/// stand there is for the next state to say.
fn name_end(rest: &[u8]) -> Option<usize> {
    let mut at = 0_usize;
    loop {
        match rest.get(at)? {
            byte if in_ascii_name(*byte) => at = at.saturating_add(1),
            0..=0x7F => return Some(at),
            _ => match rest.get(at..).and_then(front) {
                Some((c, length)) if continues_name(c) => at = at.saturating_add(length),
                _ => return Some(at),
            },
        }
    }
}
