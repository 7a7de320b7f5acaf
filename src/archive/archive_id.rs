//! Archive ids that nobody can guess and that come out the same for a retry (XEP-0313 §3, XEP-0359 §3), and the names by
//! which a retraction finds its message (XEP-0424).
//!
//! An id must be unpredictable to everybody outside, and the same message brought twice (after a lost acknowledgement, by
//! a second instance) must get the same id, so that the store sees that it has it. A keyed hash is both. The key is the
//! deployment's, from [`crate::store::ArchiveStore::archive_id_secret`]; whoever has it can guess ids.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jid::BareJid;
use sha2::Sha256;

use crate::model::{ArchiveId, Origin, Owner};

/// Length of an id before it is written as text: 128 bits.
const ID_BYTES: usize = 16;

/// No randomness from the operating system, or no id from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness;

/// Makes archive ids.
#[derive(Clone)]
pub struct ArchiveIds {
    keyed: Hmac<Sha256>,
}

impl std::fmt::Debug for ArchiveIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ArchiveIds(secret)")
    }
}

/// What an id is made from. The same values give the same id.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// In whose archive.
    pub owner: &'a Owner,
    /// Who sent the message.
    pub sender: &'a BareJid,
    /// To whom: with short ids and short texts, only this tells two messages apart.
    pub recipient: &'a BareJid,
    /// The id that the sender gave the stanza. Without one, nothing says that two equal messages are one.
    pub stanza_id: Option<&'a str>,
    /// What it says, in a form that does not depend on how a server happened to write it ([`crate::stanza::meaning`]).
    pub content: &'a [u8],
}

impl ArchiveIds {
    /// With the deployment's secret.
    pub fn new(secret: &[u8; 32]) -> Self {
        // A key of the block size or less is never refused; 64 bytes is that of SHA-256.
        let mut block = [0_u8; 64];
        let (key, _) = block.split_at_mut(secret.len());
        key.copy_from_slice(secret);
        Self { keyed: Hmac::new(&block.into()) }
    }

    /// The id for a copy: always the same for a message with a stanza id, random for one without.
    pub fn id(&self, named: &Named<'_>) -> Result<ArchiveId, NoRandomness> {
        let Some(stanza_id) = named.stanza_id.filter(|id| !id.is_empty()) else {
            let mut bytes = [0_u8; ID_BYTES];
            getrandom::fill(&mut bytes).map_err(|_| NoRandomness)?;
            return written(&bytes);
        };
        let fields = [
            named.owner.as_str().as_bytes(),
            named.sender.as_str().as_bytes(),
            named.recipient.as_str().as_bytes(),
            stanza_id.as_bytes(),
            named.content,
        ];
        written(self.hash(&fields).get(..ID_BYTES).unwrap_or_default())
    }

    /// What the author of a message calls it. With the secret in it, nobody can make two messages have the same.
    pub fn origin(&self, author: &BareJid, recipient: &BareJid, stanza_id: &str) -> Origin {
        let fields = [&b"origin"[..], author.as_str().as_bytes(), recipient.as_str().as_bytes(), stanza_id.as_bytes()];
        let hash = self.hash(&fields);
        let first = hash.first_chunk().copied().unwrap_or_default();
        Origin::new(i64::from_be_bytes(first))
    }

    fn hash(&self, fields: &[&[u8]]) -> [u8; 32] {
        let mut keyed = self.keyed.clone();
        for field in fields {
            // With its length before it, no field can pass for a part of another.
            keyed.update(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
            keyed.update(field);
        }
        keyed.finalize().into_bytes().into()
    }
}

fn written(bytes: &[u8]) -> Result<ArchiveId, NoRandomness> {
    ArchiveId::parse(&URL_SAFE_NO_PAD.encode(bytes)).map_err(|_| NoRandomness)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(secret: u8, owner: &str, sender: &str, recipient: &str, stanza_id: Option<&str>, body: &str) -> ArchiveId {
        let named = Named {
            owner: &Owner::parse(owner).unwrap(),
            sender: &BareJid::new(sender).unwrap(),
            recipient: &BareJid::new(recipient).unwrap(),
            stanza_id,
            content: body.as_bytes(),
        };
        ArchiveIds::new(&[secret; 32]).id(&named).unwrap()
    }

    #[test]
    fn a_retry_gets_the_same_id_and_nothing_else_does() {
        let base = id(1, "a@x", "a@x", "b@x", Some("1"), "<message/>");
        assert_eq!(base, id(1, "a@x", "a@x", "b@x", Some("1"), "<message/>"));
        assert_eq!(base.as_str().len(), 22);
        let others = [
            id(2, "a@x", "a@x", "b@x", Some("1"), "<message/>"),
            id(1, "b@x", "a@x", "b@x", Some("1"), "<message/>"),
            id(1, "a@x", "b@x", "b@x", Some("1"), "<message/>"),
            id(1, "a@x", "a@x", "c@x", Some("1"), "<message/>"),
            id(1, "a@x", "a@x", "b@x", Some("2"), "<message/>"),
            id(1, "a@x", "a@x", "b@x", Some("1"), "<message />"),
            id(1, "a@x", "a@x", "b@x", Some("1<"), "message/>"),
        ];
        for (i, other) in others.iter().enumerate() {
            assert_ne!(base, *other, "{i}");
            assert!(!others[i + 1..].contains(other), "{i}");
        }
    }

    #[test]
    fn without_a_stanza_id_no_two_messages_are_one() {
        for none in [None, Some("")] {
            assert_ne!(id(1, "a@x", "a@x", "b@x", none, "m"), id(1, "a@x", "a@x", "b@x", none, "m"));
        }
    }
}
