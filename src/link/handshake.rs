//! What is said at the beginning of a stream (XEP-0114 §3).

use jid::DomainRef;
use secrecy::{ExposeSecret, SecretString};
use sha1::{Digest, Sha1};

/// Our stream header, addressed to the component's own name as XEP-0114 wants it.
pub(super) fn stream_header(component: &DomainRef) -> String {
    format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
         xmlns:stream='http://etherx.jabber.org/streams' to='{}'>",
        quick_xml::escape::escape(component.as_str())
    )
}

/// The `<handshake/>` that proves the secret for the stream of this id.
pub(super) fn handshake(stream_id: &str, secret: &SecretString) -> String {
    let mut hash = Sha1::new();
    hash.update(stream_id.as_bytes());
    hash.update(secret.expose_secret().as_bytes());
    format!("<handshake>{}</handshake>", hex::encode(hash.finalize()))
}

/// Whether the server has accepted our handshake with this element.
pub(super) fn is_accepted(element: &[u8]) -> bool {
    element.strip_prefix(b"<handshake").is_some_and(|rest| matches!(rest.first(), Some(b'/' | b'>' | b' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_sha1sum() {
        // printf '%s%s' 3BF96D32 secret | sha1sum
        let expected = "<handshake>b09ea9b3b7f586be8a08d0a3dd7466f110aeb136</handshake>";
        assert_eq!(handshake("3BF96D32", &SecretString::from("secret")), expected);
    }
}
