//! Bytes in, whole stanzas out.
//!
//! The framer finds where each stanza of an XMPP stream begins and ends, and hands it up as one slice of the bytes as
//! they came. It does no I/O, never recurses, reads each byte once, and holds at most one stanza of the size that
//! [`Limits`] allow. A stanza that breaks a limit is skipped without being held, however long or deep it is, and reported
//! with what its start tag said, so that its sender can be told (RFC 6120 §8.3); the stream goes on. Bytes that are not
//! restricted XML (RFC 6120 §11) are a [`Fault`], after which nothing more can be read.
//!
//! What it does not see: whether the end tags *inside of a skipped stanza* carry the right names (their count is all that
//! is kept), and whether two attributes with different prefixes are the same after namespace resolution; the parser that
//! reads the stanza sees the latter.

use bytes::Bytes;

pub use super::event::{Event, RawElement, Refusal, StreamHeader};

use super::characters;
use super::fault::Fault;
use super::lexer::{Lexer, Span, Token};
use super::limits::{Limits, RefusalReason};
use super::namespaces::{Namespaces, STREAMS};
use super::stanza_head::{StanzaHead, StanzaKind};

/// Bounds on the stream header, which only the server writes.
const HEADER_BYTES: u64 = 16 * 1024;
const HEADER_ATTRIBUTES: usize = 32;

/// See the [module](self).
pub struct Framer {
    limits: Limits,
    lexer: Lexer,
    namespaces: Namespaces,
    mode: Mode,
    /// Bytes not yet given up; the first stands at stream offset `base`.
    held: Vec<u8>,
    base: u64,
    /// Up to where the characters were checked, and whether a bad one stands there.
    checked: u64,
    broken: bool,
    root: Vec<u8>,
    /// Names of the elements open in the stanza (or of the stream, in its header).
    open: Vec<Span>,
    attributes: Vec<(Span, Span)>,
    elements: usize,
}

#[derive(Debug)]
enum Mode {
    /// Before the end of the stream header.
    Header,
    Between,
    /// In a stanza that begins at this offset.
    Collecting(u64),
    /// In a refused one; `Some` as long as its start tag goes on.
    Skipping(Option<Refusal>),
    Closed,
    Faulty(Fault),
}

impl Framer {
    /// A framer for a new stream.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            lexer: Lexer::new(),
            namespaces: Namespaces::default(),
            mode: Mode::Header,
            held: Vec::new(),
            base: 0,
            checked: 0,
            broken: false,
            root: Vec::new(),
            open: Vec::new(),
            attributes: Vec::new(),
            elements: 0,
        }
    }

    /// Takes in what was read from the peer, in pieces of any size. Call [`Self::next_event`] until it has nothing more
    /// before feeding again: what was fed is held until then.
    pub fn feed(&mut self, bytes: &[u8]) {
        if matches!(self.mode, Mode::Closed | Mode::Faulty(_)) {
            return;
        }
        self.give_up();
        self.held.extend_from_slice(bytes);
        if !self.broken {
            let found = characters::check(tail(&self.held, self.base, self.checked));
            self.checked = self.checked.saturating_add(found.good as u64);
            self.broken = found.broken;
        }
    }

    /// The next event in what was fed; `None` when more is needed, and for ever after the stream was closed. A fault
    /// stays: it is returned again by every further call.
    pub fn next_event(&mut self) -> Result<Option<Event>, Fault> {
        if let Mode::Faulty(fault) = self.mode {
            return Err(fault);
        }
        let result = self.advance();
        if let Err(fault) = result {
            self.mode = Mode::Faulty(fault);
            self.held = Vec::new();
        }
        result
    }

    /// Bytes held at this moment.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    fn advance(&mut self) -> Result<Option<Event>, Fault> {
        while !matches!(self.mode, Mode::Closed) {
            let stop = self.window_end();
            let window = slice(&self.held, self.base, Span { start: self.lexer.position(), end: stop });
            let event = match self.lexer.next(window)? {
                Some(token) => self.on_token(token)?,
                None => match self.on_unfinished()? {
                    None if self.lexer.position() < self.checked => None,
                    None if self.broken => return Err(Fault::Character),
                    None => return Ok(None),
                    event => event,
                },
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// How far to read before looking at the limits: never beyond the longest stanza allowed, so that what is refused,
    /// and why, does not depend on how the bytes were cut.
    fn window_end(&self) -> u64 {
        let end = match self.mode {
            Mode::Header => HEADER_BYTES,
            Mode::Collecting(start) => start.saturating_add(self.limits.stanza_bytes as u64),
            _ => return self.checked,
        };
        // To the next character boundary.
        let cut = tail(&self.held, self.base, end.min(self.checked));
        let rest = cut.iter().take_while(|&&byte| byte & 0xC0 == 0x80).count() as u64;
        end.saturating_add(rest).min(self.checked)
    }

    fn on_token(&mut self, token: Token) -> Result<Option<Event>, Fault> {
        if matches!(self.mode, Mode::Header) {
            return self.on_header_token(token);
        }
        match (token, &self.mode) {
            (Token::Open(at), Mode::Between) => {
                self.mode = Mode::Collecting(at);
                Ok(None)
            }
            (Token::Name(name), Mode::Collecting(_)) => Ok(self.on_name(name)),
            (Token::Attribute { name, value }, Mode::Collecting(_)) => self.on_attribute(name, value),
            (Token::Opened { empty }, &Mode::Collecting(start)) => Ok(self.on_opened(empty, start)),
            (Token::Closed(name), &Mode::Collecting(start)) => {
                let opened = self.open.pop().map(|name| self.text(name));
                if opened != Some(self.text(name)) {
                    return Err(Fault::NotWellFormed("an end tag that does not fit its start tag"));
                }
                Ok(self.on_element_end(start))
            }
            (Token::Closed(name), Mode::Between) => {
                if self.text(name) != self.root {
                    return Err(Fault::NotWellFormed("an end tag that does not fit the stream header"));
                }
                self.mode = Mode::Closed;
                Ok(Some(Event::Close))
            }
            (_, Mode::Skipping(_)) => Ok(self.on_skipped(token)),
            _ => Ok(None),
        }
    }

    /// The bytes at hand end within something. Whether what is there of it is too long already.
    fn on_unfinished(&mut self) -> Result<Option<Event>, Fault> {
        let position = self.lexer.position();
        let too_long = self.lexer.token_in_progress().is_some_and(|start| self.is_long(Span { start, end: position }));
        match self.mode {
            Mode::Header if position >= HEADER_BYTES => Err(Fault::HeaderTooLarge),
            Mode::Collecting(_) if too_long => Ok(self.refuse(RefusalReason::AttributeBytes)),
            Mode::Collecting(start) if position.saturating_sub(start) >= self.limits.stanza_bytes as u64 => {
                Ok(self.refuse(RefusalReason::StanzaBytes))
            }
            Mode::Between => match self.lexer.tag_in_progress() {
                Some(start) if self.is_long(Span { start, end: position }) => {
                    Err(Fault::NotWellFormed("an end tag that does not fit the stream header"))
                }
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn is_long(&self, span: Span) -> bool {
        span.len() > self.limits.attribute_bytes as u64
    }

    fn on_name(&mut self, name: Span) -> Option<Event> {
        self.elements = self.elements.saturating_add(1);
        if self.is_long(name) {
            return self.refuse(RefusalReason::AttributeBytes);
        }
        if self.open.len() >= self.limits.depth {
            return self.refuse(RefusalReason::Depth);
        }
        if self.elements > self.limits.elements {
            return self.refuse(RefusalReason::Elements);
        }
        self.open.push(name);
        self.attributes.clear();
        None
    }

    fn on_attribute(&mut self, name: Span, value: Span) -> Result<Option<Event>, Fault> {
        if self.is_long(Span { start: name.start, end: value.end }) {
            return Ok(self.refuse(RefusalReason::AttributeBytes));
        }
        if self.attributes.iter().any(|&(other, _)| self.text(other) == self.text(name)) {
            return Err(Fault::NotWellFormed("the same attribute twice"));
        }
        if self.attributes.len() >= self.limits.attributes {
            // It is read even so: it may be the one that says whom to answer.
            self.attributes.push((name, value));
            return Ok(self.refuse(RefusalReason::Attributes));
        }
        self.attributes.push((name, value));
        Ok(None)
    }

    fn on_opened(&mut self, empty: bool, start: u64) -> Option<Event> {
        let (depth, name) = (self.open.len(), self.open.last().copied().unwrap_or_default());
        let (held, base) = (&self.held, self.base);
        if let Err(reason) = self.namespaces.enter(depth, name, &self.attributes, |span| slice(held, base, span)) {
            // The start tag is over, and with it, if it is empty, perhaps the stanza.
            let refused = self.refuse_after_tag(reason, start);
            if empty && self.lexer.depth() == 1 {
                self.end_stanza();
            }
            return refused;
        }
        if !empty {
            return None;
        }
        self.open.pop();
        self.on_element_end(start)
    }

    /// An element of a stanza that is being collected is complete, and has been taken from `open`.
    fn on_element_end(&mut self, start: u64) -> Option<Event> {
        self.namespaces.leave(self.open.len().saturating_add(1));
        if self.lexer.depth() > 1 {
            return None;
        }
        let bytes = slice(&self.held, self.base, Span { start, end: self.lexer.position() });
        let name = element_name(bytes);
        let prefix = name.iter().position(|&byte| byte == b':').and_then(|colon| name.get(..colon));
        let of_streams = prefix.is_some_and(|prefix| self.namespaces.of_stream(prefix) == Some(STREAMS));
        let element = RawElement {
            bytes: match self.namespaces.borrowed_declarations() {
                None => Bytes::copy_from_slice(bytes),
                Some(declarations) => {
                    let (front, back) = bytes.split_at_checked(name.len().saturating_add(1)).unwrap_or((bytes, &[]));
                    Bytes::from([front, declarations.as_bytes(), back].concat())
                }
            },
            kind: StanzaKind::of_name(name),
        };
        self.end_stanza();
        Some(if of_streams { Event::StreamElement(element) } else { Event::Element(element) })
    }

    /// Gives up a stanza. It is reported at once, or, if its own start tag goes on, when that has been read.
    fn refuse(&mut self, reason: RefusalReason) -> Option<Event> {
        let Mode::Collecting(start) = self.mode else { return None };
        if self.lexer.depth() > 1 {
            return self.refuse_after_tag(reason, start);
        }
        let mut head = StanzaHead::default();
        if let Some(&name) = self.open.first() {
            head.kind = StanzaKind::of_name(self.text(name));
        }
        for &(name, value) in &self.attributes {
            head.take(self.text(name), self.text(value));
        }
        self.forget_stanza();
        self.mode = Mode::Skipping(Some(Refusal { reason, head }));
        None
    }

    fn refuse_after_tag(&mut self, reason: RefusalReason, start: u64) -> Option<Event> {
        let head = StanzaHead::read(slice(&self.held, self.base, Span { start, end: self.lexer.position() }));
        self.forget_stanza();
        self.mode = Mode::Skipping(None);
        Some(Event::Refused(Refusal { reason, head }))
    }

    fn on_skipped(&mut self, token: Token) -> Option<Event> {
        let Mode::Skipping(refusal) = &mut self.mode else { return None };
        match token {
            Token::Attribute { name, value } => {
                let whole = Span { start: name.start, end: value.end };
                if let Some(refusal) = refusal
                    && whole.len() <= self.limits.attribute_bytes as u64
                {
                    let (held, base) = (&self.held, self.base);
                    refusal.head.take(slice(held, base, name), slice(held, base, value));
                }
                None
            }
            Token::Opened { empty } => {
                let refused = refusal.take().map(Event::Refused);
                if empty && self.lexer.depth() == 1 {
                    self.end_stanza();
                }
                refused
            }
            Token::Closed(_) => {
                if self.lexer.depth() == 1 {
                    self.end_stanza();
                }
                None
            }
            Token::Open(_) | Token::Name(_) => None,
        }
    }

    fn forget_stanza(&mut self) {
        self.open.clear();
        self.attributes.clear();
        self.elements = 0;
        self.namespaces.end_stanza();
    }

    fn end_stanza(&mut self) {
        self.forget_stanza();
        self.mode = Mode::Between;
    }

    fn on_header_token(&mut self, token: Token) -> Result<Option<Event>, Fault> {
        match token {
            Token::Name(name) => self.open.push(name),
            Token::Attribute { name, value } => {
                if self.attributes.len() >= HEADER_ATTRIBUTES {
                    return Err(Fault::HeaderTooLarge);
                }
                self.attributes.push((name, value));
            }
            Token::Opened { empty: true } => return Err(Fault::NotAStream),
            Token::Opened { empty: false } => return self.open_stream().map(|header| Some(Event::Open(header))),
            Token::Open(_) | Token::Closed(_) => {}
        }
        Ok(None)
    }

    fn open_stream(&mut self) -> Result<StreamHeader, Fault> {
        let attributes = self.attributes.iter().map(|&(name, value)| (self.text(name), self.text(value)));
        let header = StreamHeader::read(attributes)?;
        for (prefix, namespace) in header.prefixes() {
            self.namespaces.declare_for_stream(prefix, namespace);
        }
        self.root = self.open.first().map(|&name| self.text(name).to_vec()).unwrap_or_default();
        let namespace = match self.root.strip_suffix(b":stream") {
            Some(prefix) => self.namespaces.of_stream(prefix),
            None if self.root == b"stream" => header.attribute("xmlns"),
            None => None,
        };
        if namespace != Some(STREAMS) {
            return Err(Fault::NotAStream);
        }
        self.end_stanza();
        Ok(header)
    }

    fn text(&self, span: Span) -> &[u8] {
        slice(&self.held, self.base, span)
    }

    /// Lets go of bytes that nothing refers to any more. A stanza's bytes are moved to the front at most once.
    fn give_up(&mut self) {
        let position = self.lexer.position();
        let keep = match self.mode {
            Mode::Header => 0,
            Mode::Collecting(start) => start,
            Mode::Between => self.lexer.tag_in_progress().unwrap_or(position),
            Mode::Skipping(Some(_)) => match self.lexer.token_in_progress() {
                Some(start) if !self.is_long(Span { start, end: position }) => start,
                _ => position,
            },
            Mode::Skipping(None) | Mode::Closed | Mode::Faulty(_) => position,
        };
        let gone = usize::try_from(keep.saturating_sub(self.base)).unwrap_or(usize::MAX).min(self.held.len());
        self.held.drain(..gone);
        self.base = self.base.saturating_add(gone as u64);
    }
}

/// The bytes of a span; nothing if they were given up.
fn slice(held: &[u8], base: u64, span: Span) -> &[u8] {
    let (Some(start), Some(end)) = (span.start.checked_sub(base), span.end.checked_sub(base)) else { return &[] };
    let (Ok(start), Ok(end)) = (usize::try_from(start), usize::try_from(end)) else { return &[] };
    held.get(start..end).unwrap_or_default()
}

fn tail(held: &[u8], base: u64, from: u64) -> &[u8] {
    slice(held, base, Span { start: from, end: base.saturating_add(held.len() as u64) })
}

/// The name of the element that begins at the front of `bytes`.
fn element_name(bytes: &[u8]) -> &[u8] {
    let name = bytes.get(1..).unwrap_or_default();
    let end = name.iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'/' | b'>'));
    end.and_then(|end| name.get(..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
