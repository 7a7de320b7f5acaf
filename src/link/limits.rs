//! What one inbound stanza may cost. A stanza that breaks a limit is refused alone; the stream goes on.

/// Bounds on one inbound stanza.
///
/// The defaults leave room for what real clients send: an OMEMO message for 500 devices has about 500 elements nested
/// five deep and 200 KiB, and servers stop at 256 KiB (client) or 512 KiB (server) by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole stanza, from its `<` to its last `>`.
    pub stanza_bytes: usize,
    /// Nesting, the stanza itself being 1. Parsers further up may recurse, so this also bounds their stack.
    pub depth: usize,
    /// Elements in the stanza, itself included. Bounds what a tree of it costs in memory.
    pub elements: usize,
    /// Attributes of one element, namespace declarations included.
    pub attributes: usize,
    /// Bytes of one attribute as written, from the first byte of its name to the last of its value. An element's name
    /// has the same bound.
    pub attribute_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stanza_bytes: 512 * 1024,
            depth: 64,
            elements: 16_384,
            attributes: 32,
            // Just under what rxml takes (8,192 for a value), so that what passes here parses there.
            attribute_bytes: 8_192,
        }
    }
}

/// Why a stanza was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// Longer than [`Limits::stanza_bytes`].
    StanzaBytes,
    /// Nested deeper than [`Limits::depth`].
    Depth,
    /// More elements than [`Limits::elements`].
    Elements,
    /// An element with more attributes than [`Limits::attributes`].
    Attributes,
    /// An attribute or a name longer than [`Limits::attribute_bytes`].
    AttributeBytes,
    /// Breaks "Namespaces in XML 1.0": a prefix that nobody declared, two colons in a name, a forbidden declaration.
    Namespace,
    /// Within every limit, but it came after this component began to shut down.
    ShuttingDown,
    /// Neither message, presence nor IQ.
    NotAStanza,
}

impl RefusalReason {
    /// All reasons, for metrics that start at zero.
    pub const ALL: [Self; 8] = [
        Self::StanzaBytes,
        Self::Depth,
        Self::Elements,
        Self::Attributes,
        Self::AttributeBytes,
        Self::Namespace,
        Self::ShuttingDown,
        Self::NotAStanza,
    ];

    /// The reason as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::StanzaBytes => "stanza_bytes",
            Self::Depth => "depth",
            Self::Elements => "elements",
            Self::Attributes => "attributes",
            Self::AttributeBytes => "attribute_bytes",
            Self::Namespace => "namespace",
            Self::ShuttingDown => "shutting_down",
            Self::NotAStanza => "not_a_stanza",
        }
    }
}
