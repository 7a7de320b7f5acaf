//! What messages are made of, as servers write it. What is stored refers to these by their place, so none may ever change or
//! move; new ones go to the end, up to 128.

use std::sync::LazyLock;

/// The phrases. The first is the byte 128.
const PHRASES: &[&str] = &[
    "<message",
    "</message>",
    " type='chat'",
    " type='normal'",
    " xml:lang='en'",
    " xml:lang='",
    " id='",
    "'>",
    "'/>",
    "<encrypted xmlns='eu.siacs.conversations.axolotl'>",
    "<encrypted xmlns='urn:xmpp:omemo:2'>",
    "<header sid='",
    "<keys jid='",
    "<key rid='",
    "<key prekey='true' rid='",
    "' prekey='true'>",
    "<key kex='true' rid='",
    "' kex='true'>",
    "</key>",
    "</keys>",
    "<iv>",
    "</iv>",
    "</header>",
    "<payload>",
    "</payload>",
    "</encrypted>",
    "</iv></header><payload>",
    "</keys></header><payload>",
    "</payload></encrypted>",
    "</header></encrypted>",
    "<store xmlns='urn:xmpp:hints'/>",
    "<no-copy xmlns='urn:xmpp:hints'/>",
    "<no-store xmlns='urn:xmpp:hints'/>",
    "<no-permanent-store xmlns='urn:xmpp:hints'/>",
    "<origin-id xmlns='urn:xmpp:sid:0' id='",
    "<origin-id id='",
    "' xmlns='urn:xmpp:sid:0'/>",
    "<stanza-id xmlns='urn:xmpp:sid:0' by='",
    "<stanza-id xmlns='urn:xmpp:sid:0' id='",
    "<stanza-id by='",
    "<stanza-id id='",
    "<request xmlns='urn:xmpp:receipts'/>",
    "<received xmlns='urn:xmpp:receipts' id='",
    "<markable xmlns='urn:xmpp:chat-markers:0'/>",
    "<displayed xmlns='urn:xmpp:chat-markers:0' id='",
    "<received xmlns='urn:xmpp:chat-markers:0' id='",
    "' xmlns='urn:xmpp:receipts'/>",
    "' xmlns='urn:xmpp:chat-markers:0'/>",
    "<active xmlns='http://jabber.org/protocol/chatstates'/>",
    "<composing xmlns='http://jabber.org/protocol/chatstates'/>",
    "<paused xmlns='http://jabber.org/protocol/chatstates'/>",
    "<inactive xmlns='http://jabber.org/protocol/chatstates'/>",
    "<gone xmlns='http://jabber.org/protocol/chatstates'/>",
    "<encryption xmlns='urn:xmpp:eme:0' ",
    "<encryption name='OMEMO' xmlns='urn:xmpp:eme:0' namespace='eu.siacs.conversations.axolotl'/>",
    "<encryption namespace='eu.siacs.conversations.axolotl' xmlns='urn:xmpp:eme:0' name='OMEMO'/>",
    "name='OMEMO'",
    "namespace='eu.siacs.conversations.axolotl'",
    "namespace='urn:xmpp:omemo:2'",
    " xmlns='urn:xmpp:eme:0'",
    "<body>",
    "</body>",
    "<body xml:lang='en'>",
    "I sent you an OMEMO encrypted message but your client doesn\u{2019}t seem to support that. Find more information on https://conversations.im/omemo",
    "I sent you an OMEMO encrypted message but your client doesn\u{2019}t seem to support that.",
    "This is an OMEMO encrypted message which your client doesn\u{2019}t seem to support. Find more information on https://conversations.im/omemo",
    "You received a message encrypted with OMEMO but your client doesn't support OMEMO.",
    "You received a message encrypted with OMEMO but your client doesn&apos;t support OMEMO.",
    "[This message is OMEMO encrypted]",
    " xmlns='jabber:client'",
    " xmlns='",
    "http://jabber.org/protocol/",
    "urn:xmpp:",
    "<thread>",
    "</thread>",
    "<subject>",
    "</subject>",
    "<reply xmlns='urn:xmpp:reply:0' ",
    "<reactions xmlns='urn:xmpp:reactions:0' id='",
    "<reactions id='",
    "' xmlns='urn:xmpp:reactions:0'>",
    "<reaction>",
    "</reaction>",
    "</reactions>",
    "<fallback xmlns='urn:xmpp:fallback:0' for='",
    "<retract xmlns='urn:xmpp:message-retract:1' id='",
    "<replace xmlns='urn:xmpp:message-correct:0' id='",
    "<replace id='",
    "' xmlns='urn:xmpp:message-correct:0'/>",
    "<x xmlns='jabber:x:oob'><url>",
    "</url></x>",
    "https://",
    "<x xmlns='http://jabber.org/protocol/muc#user'/>",
    "<ephemeral xmlns='urn:xmpp:ephemeral:0' timer='",
    "<openpgp xmlns='urn:xmpp:openpgp:0'>",
    "</openpgp>",
    "<x xmlns='jabber:x:encrypted'>",
    " from='",
    " to='",
    " by='",
    " stamp='",
    "<retracted ",
    "<propose xmlns='urn:xmpp:jingle-message:0' id='",
    "<description xmlns='urn:xmpp:jingle:apps:rtp:1' media='",
    "\\40",
    "&amp;",
    "&lt;",
    "&gt;",
    "&quot;",
    "&apos;",
    "<message type='chat' id='",
    "'><encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='",
    "'><encrypted xmlns='urn:xmpp:omemo:2'><header sid='",
    "<encryption xmlns='urn:xmpp:eme:0' name='OMEMO' namespace='eu.siacs.conversations.axolotl'/>",
    "<encryption xmlns='urn:xmpp:eme:0' name='OMEMO' namespace='urn:xmpp:omemo:2'/>",
    "'/></message>",
    "</body></message>",
];

/// The byte that stands for the first phrase.
const FIRST: u8 = 0x80;

/// A phrase, with the byte that stands for it.
#[derive(Clone, Copy)]
struct Entry {
    /// Its first bytes, up to four, and which those are: nearly all phrases that a text does not begin with differ here.
    first: u32,
    mask: u32,
    code: u8,
    phrase: &'static [u8],
}

/// By their first byte: the phrases that begin with it, longest first.
static BY_FIRST_BYTE: LazyLock<Vec<Vec<Entry>>> = LazyLock::new(|| {
    let mut table = vec![Vec::new(); 256];
    for (code, phrase) in (FIRST..=u8::MAX).zip(PHRASES) {
        let phrase = phrase.as_bytes();
        let mask = first_four(&vec![0xff; phrase.len()]);
        if let Some(list) = phrase.first().and_then(|first| table.get_mut(usize::from(*first))) {
            list.push(Entry { first: first_four(phrase), mask, code, phrase });
        }
    }
    for list in &mut table {
        list.sort_by_key(|entry| std::cmp::Reverse(entry.phrase.len()));
    }
    table
});

/// The first four bytes of a text as a number, 0 in the place of those that it does not have.
fn first_four(text: &[u8]) -> u32 {
    if let Some(four) = text.first_chunk() {
        return u32::from_le_bytes(*four);
    }
    let mut four = [0; 4];
    for (to, from) in four.iter_mut().zip(text) {
        *to = *from;
    }
    u32::from_le_bytes(four)
}

/// The longest phrase that a text begins with: its byte and its length.
pub(super) fn longest(text: &[u8]) -> Option<(u8, usize)> {
    let list = BY_FIRST_BYTE.get(usize::from(*text.first()?))?;
    let first = first_four(text);
    let found = list.iter().find(|entry| first & entry.mask == entry.first && text.starts_with(entry.phrase))?;
    Some((found.code, found.phrase.len()))
}

/// The phrase behind a byte.
pub(super) fn phrase(code: u8) -> Option<&'static [u8]> {
    let place = code.checked_sub(FIRST)?;
    PHRASES.get(usize::from(place)).map(|phrase| phrase.as_bytes())
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// What is stored would come out as something else.
    #[test]
    fn the_phrases_have_not_changed() {
        assert!(PHRASES.len() <= 128);
        let first = PHRASES[..110].join("\n");
        assert_eq!(hex::encode(&Sha256::digest(first.as_bytes())[..8]), "2cb07e43e165518e");
        let next = PHRASES[110..117].join("\n");
        assert_eq!(hex::encode(&Sha256::digest(next.as_bytes())[..8]), "e32e0bd4a9219304");
    }
}
