//! What makes the inbound stream unreadable.

/// The stream cannot be read further: where the next stanza begins is no longer certain. The connection is closed with
/// the stream error that [`Fault::condition`] names, and made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The bytes are not XML 1.0.
    #[error("not well-formed XML: {0}")]
    NotWellFormed(&'static str),
    /// A part of XML that RFC 6120 §11.1 forbids in streams.
    #[error("forbidden in XMPP streams: {0}")]
    Restricted(&'static str),
    /// Not UTF-8, or a character that XML does not allow.
    #[error("a character that is not valid UTF-8 or not allowed in XML")]
    Character,
    /// Something other than white space between two stanzas.
    #[error("text outside of any stanza")]
    TextBetweenStanzas,
    /// The root element is not `stream` of the streams namespace.
    #[error("the peer does not speak XMPP: its first element is no stream header")]
    NotAStream,
    /// The stream header is longer than any server's.
    #[error("the stream header is too long")]
    HeaderTooLarge,
}

impl Fault {
    /// The stream error condition for it (RFC 6120 §4.9.3).
    pub fn condition(self) -> &'static str {
        match self {
            Self::NotWellFormed(_) | Self::Character => "not-well-formed",
            Self::Restricted(_) => "restricted-xml",
            Self::TextBetweenStanzas => "bad-format",
            Self::NotAStream => "invalid-namespace",
            Self::HeaderTooLarge => "policy-violation",
        }
    }
}
