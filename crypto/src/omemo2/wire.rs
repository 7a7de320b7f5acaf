//! The three protobuf structures in a `<key/>` (XEP-0384, "Protobuf Schema").
//!
//! prost would give a missing field its default; here every field that the schema calls `required` has to be there, and
//! every key has to be one. What is authenticated are the bytes that came, never a new serialisation of them.

use prost::Message as _;
use thiserror::Error;

use super::address::{InvalidId, KeyId};
use crate::{
    curve25519::{KeyError, PublicKey},
    identity::IdentityKey,
    ratchet,
};

/// The largest content of a `<key/>` in bytes. A key exchange has about 230; fields that we do not know may follow.
pub const MAX_HEADER_LENGTH: usize = 1024;

/// Length in bytes of the truncated HMAC of a ratchet message.
pub(super) const MAC_LENGTH: usize = 16;

/// The content of a `<key/>` is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// It is longer than [`MAX_HEADER_LENGTH`].
    #[error("{actual} bytes, more than {MAX_HEADER_LENGTH}")]
    TooLong {
        /// Number of bytes given.
        actual: usize,
    },
    /// It is truncated or no protobuf at all.
    #[error("not a protobuf of this kind")]
    Protobuf,
    /// A required field is missing.
    #[error("the required field {0} is missing")]
    Missing(&'static str),
    /// A number is larger than its type can hold. Cutting it off, as protobuf allows, would let one message have many
    /// forms.
    #[error("the number in field {0} is too large")]
    Number(&'static str),
    /// The authentication tag does not have 16 bytes.
    #[error("the authentication tag has {actual} bytes, not 16")]
    MacLength {
        /// Number of bytes given.
        actual: usize,
    },
    /// A public key is unusable; among the reasons: it is a low-order point.
    #[error("the key {field} is unusable: {error}")]
    Key {
        /// The field that holds the key.
        field: &'static str,
        /// What is wrong with it.
        error: KeyError,
    },
    /// The id of a prekey is out of range; 0 means that no prekey was used, which the XEP says MUST be rejected.
    #[error("field {field}: {error}")]
    Id {
        /// The field that holds the id.
        field: &'static str,
        /// The id given.
        error: InvalidId,
    },
}

// Numbers are read as 64 bits so that those beyond the 32 of the schema can be refused; the encoding is the same.

#[derive(Clone, PartialEq, prost::Message)]
struct RawMessage {
    #[prost(uint64, optional, tag = "1")]
    n: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    pn: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "3")]
    dh_pub: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "4")]
    ciphertext: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawAuthenticatedMessage {
    #[prost(bytes = "vec", optional, tag = "1")]
    mac: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    message: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawKeyExchange {
    #[prost(uint64, optional, tag = "1")]
    pk_id: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    spk_id: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "3")]
    ik: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "4")]
    ek: Option<Vec<u8>>,
    #[prost(message, optional, tag = "5")]
    message: Option<RawAuthenticatedMessage>,
}

/// `OMEMOAuthenticatedMessage` and the `OMEMOMessage` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AuthenticatedMessage {
    pub(super) mac: [u8; MAC_LENGTH],
    /// The `OMEMOMessage` as it came or will go: what the tag is over.
    pub(super) message: Vec<u8>,
    pub(super) header: ratchet::Header,
    pub(super) ciphertext: Vec<u8>,
}

/// What `OMEMOKeyExchange` says besides its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExchangeHeader {
    pub(super) prekey: KeyId,
    pub(super) signed_prekey: KeyId,
    pub(super) identity: IdentityKey,
    pub(super) ephemeral: PublicKey,
}

/// Serialises an `OMEMOMessage`.
pub(super) fn encode_message(header: &ratchet::Header, ciphertext: Vec<u8>) -> Vec<u8> {
    RawMessage {
        n: Some(header.counter.into()),
        pn: Some(header.previous.into()),
        dh_pub: Some(header.ratchet_key.as_bytes().to_vec()),
        ciphertext: Some(ciphertext),
    }
    .encode_to_vec()
}

/// Serialises an `OMEMOAuthenticatedMessage`.
pub(super) fn encode_authenticated(mac: &[u8; MAC_LENGTH], message: Vec<u8>) -> Vec<u8> {
    raw_authenticated(mac, message).encode_to_vec()
}

/// Serialises an `OMEMOKeyExchange`.
pub(super) fn encode_exchange(exchange: &ExchangeHeader, mac: &[u8; MAC_LENGTH], message: Vec<u8>) -> Vec<u8> {
    RawKeyExchange {
        pk_id: Some(exchange.prekey.get().into()),
        spk_id: Some(exchange.signed_prekey.get().into()),
        ik: Some(exchange.identity.as_bytes().to_vec()),
        ek: Some(exchange.ephemeral.as_bytes().to_vec()),
        message: Some(raw_authenticated(mac, message)),
    }
    .encode_to_vec()
}

fn raw_authenticated(mac: &[u8; MAC_LENGTH], message: Vec<u8>) -> RawAuthenticatedMessage {
    RawAuthenticatedMessage { mac: Some(mac.to_vec()), message: Some(message) }
}

/// Reads an `OMEMOAuthenticatedMessage` and the `OMEMOMessage` in it.
pub(super) fn decode_authenticated(bytes: &[u8]) -> Result<AuthenticatedMessage, WireError> {
    check_length(bytes)?;
    check_authenticated(RawAuthenticatedMessage::decode(bytes).map_err(|_| WireError::Protobuf)?)
}

/// Reads an `OMEMOKeyExchange` with everything in it.
pub(super) fn decode_exchange(bytes: &[u8]) -> Result<(ExchangeHeader, AuthenticatedMessage), WireError> {
    check_length(bytes)?;
    let raw = RawKeyExchange::decode(bytes).map_err(|_| WireError::Protobuf)?;
    let identity = raw.ik.ok_or(WireError::Missing("ik"))?;
    let ephemeral = raw.ek.ok_or(WireError::Missing("ek"))?;
    let header = ExchangeHeader {
        prekey: id("pk_id", raw.pk_id)?,
        signed_prekey: id("spk_id", raw.spk_id)?,
        identity: IdentityKey::from_slice(&identity).map_err(|error| WireError::Key { field: "ik", error })?,
        ephemeral: PublicKey::from_slice(&ephemeral).map_err(|error| WireError::Key { field: "ek", error })?,
    };
    Ok((header, check_authenticated(raw.message.ok_or(WireError::Missing("message"))?)?))
}

fn check_authenticated(raw: RawAuthenticatedMessage) -> Result<AuthenticatedMessage, WireError> {
    let mac = raw.mac.ok_or(WireError::Missing("mac"))?;
    let mac = <[u8; MAC_LENGTH]>::try_from(mac.as_slice()).map_err(|_| WireError::MacLength { actual: mac.len() })?;
    let message = raw.message.ok_or(WireError::Missing("message"))?;

    let inner = RawMessage::decode(message.as_slice()).map_err(|_| WireError::Protobuf)?;
    let ratchet_key = inner.dh_pub.ok_or(WireError::Missing("dh_pub"))?;
    let header = ratchet::Header {
        ratchet_key: PublicKey::from_slice(&ratchet_key).map_err(|error| WireError::Key { field: "dh_pub", error })?,
        previous: number("pn", inner.pn)?,
        counter: number("n", inner.n)?,
    };
    // Optional in the schema, for the header alone is authenticated as one; but no message goes without it.
    let ciphertext = inner.ciphertext.ok_or(WireError::Missing("ciphertext"))?;
    Ok(AuthenticatedMessage { mac, message, header, ciphertext })
}

fn id(field: &'static str, value: Option<u64>) -> Result<KeyId, WireError> {
    KeyId::new(number(field, value)?).map_err(|error| WireError::Id { field, error })
}

fn number(field: &'static str, value: Option<u64>) -> Result<u32, WireError> {
    u32::try_from(value.ok_or(WireError::Missing(field))?).map_err(|_| WireError::Number(field))
}

fn check_length(bytes: &[u8]) -> Result<(), WireError> {
    if bytes.len() > MAX_HEADER_LENGTH { Err(WireError::TooLong { actual: bytes.len() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{curve25519::SecretKey, identity::IdentityKeyPair};

    fn header() -> ratchet::Header {
        ratchet::Header { ratchet_key: SecretKey::from_bytes([1; 32]).public_key(), previous: 0, counter: 0 }
    }

    fn exchange() -> ExchangeHeader {
        ExchangeHeader {
            prekey: KeyId::new(7).unwrap(),
            signed_prekey: KeyId::new(8).unwrap(),
            identity: IdentityKeyPair::from_seed(&[2; 32]).public_key(),
            ephemeral: SecretKey::from_bytes([3; 32]).public_key(),
        }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let message = encode_message(&header(), vec![5; 64]);
        let bytes = encode_exchange(&exchange(), &[6; 16], message.clone());
        let (decoded, authenticated) = decode_exchange(&bytes).unwrap();
        assert_eq!(decoded, exchange());
        assert_eq!(authenticated.header, header());
        assert_eq!(authenticated.message, message);
        assert_eq!(decode_authenticated(&encode_authenticated(&[6; 16], message)).unwrap(), authenticated);
    }

    #[test]
    fn zeros_are_on_the_wire() {
        // `n` and `pn` are required, so that their zeros are written: field 1 and 2, varint.
        assert_eq!(&encode_message(&header(), vec![])[..4], &[0x08, 0, 0x10, 0]);
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = encode_exchange(&exchange(), &[6; 16], encode_message(&header(), vec![5; 64]));
        for end in 0..bytes.len() {
            assert!(decode_exchange(&bytes[..end]).is_err(), "{end}");
        }
        assert_eq!(decode_exchange(&[0; 1025]), Err(WireError::TooLong { actual: 1025 }));
    }

    #[test]
    fn every_missing_field_is_named() {
        let full = RawKeyExchange::decode(
            encode_exchange(&exchange(), &[6; 16], encode_message(&header(), vec![5; 64])).as_slice(),
        )
        .unwrap();
        let without = |change: fn(&mut RawKeyExchange)| {
            let mut raw = full.clone();
            change(&mut raw);
            decode_exchange(&raw.encode_to_vec()).unwrap_err()
        };
        assert_eq!(without(|raw| raw.pk_id = None), WireError::Missing("pk_id"));
        assert_eq!(without(|raw| raw.spk_id = None), WireError::Missing("spk_id"));
        assert_eq!(without(|raw| raw.ik = None), WireError::Missing("ik"));
        assert_eq!(without(|raw| raw.ek = None), WireError::Missing("ek"));
        assert_eq!(without(|raw| raw.message = None), WireError::Missing("message"));
        assert_eq!(without(|raw| raw.pk_id = Some(0)), WireError::Id { field: "pk_id", error: InvalidId(0) });
        assert_eq!(without(|raw| raw.spk_id = Some(1 + (1 << 32))), WireError::Number("spk_id"));
        assert_eq!(
            without(|raw| raw.ek = Some(vec![0; 32])),
            WireError::Key { field: "ek", error: KeyError::LowOrder }
        );
        assert_eq!(
            without(|raw| raw.message.as_mut().unwrap().mac = Some(vec![0; 15])),
            WireError::MacLength { actual: 15 }
        );
        let inner = |change: fn(&mut RawMessage)| {
            let mut raw = RawMessage::decode(encode_message(&header(), vec![5; 64]).as_slice()).unwrap();
            change(&mut raw);
            decode_authenticated(&encode_authenticated(&[0; 16], raw.encode_to_vec())).unwrap_err()
        };
        assert_eq!(inner(|raw| raw.n = None), WireError::Missing("n"));
        assert_eq!(inner(|raw| raw.pn = None), WireError::Missing("pn"));
        assert_eq!(inner(|raw| raw.dh_pub = None), WireError::Missing("dh_pub"));
        assert_eq!(inner(|raw| raw.ciphertext = None), WireError::Missing("ciphertext"));
    }
}
