//! `SignalMessage` and `PreKeySignalMessage` of libsignal's protocol version 3, which are what is in a `<key/>`.
//!
//! A `SignalMessage` is a version byte, a protobuf, and eight bytes of HMAC over both and the two identities. A
//! `PreKeySignalMessage` is a version byte and a protobuf with a `SignalMessage` in it. What is authenticated are the
//! bytes that came, never a new serialisation of them.

use prost::Message as _;

use super::IdentityKey;
use crate::{
    curve25519::{KeyError, PublicKey},
    generation::Legacy,
    message::MessageHeader,
    ratchet,
    signature::{decode_legacy_key, encode_legacy_key},
    wire::{AuthenticatedMessage, ExchangeHeader, Incoming, WireError, check_length, id, number},
};

/// The first byte: the version of the message in the upper half, the latest version that the sender knows in the lower.
const VERSION_BYTE: u8 = 0x33;

/// The version of the message, 3, in its place.
const VERSION: u8 = 0x30;

/// Length in bytes of the truncated HMAC.
const MAC_LENGTH: usize = 8;

// Numbers are read as 64 bits so that those beyond the 32 of the schema can be refused; the encoding is the same.

#[derive(Clone, PartialEq, prost::Message)]
struct RawMessage {
    #[prost(bytes = "vec", optional, tag = "1")]
    ratchet_key: Option<Vec<u8>>,
    #[prost(uint64, optional, tag = "2")]
    counter: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    previous_counter: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    ciphertext: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawPrekeyMessage {
    #[prost(uint64, optional, tag = "1")]
    prekey_id: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "2")]
    base_key: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "3")]
    identity_key: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "4")]
    message: Option<Vec<u8>>,
    #[prost(uint64, optional, tag = "5")]
    registration_id: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    signed_prekey_id: Option<u64>,
}

/// Serialises a `SignalMessage` without its HMAC.
pub(super) fn encode_message(header: &ratchet::Header, ciphertext: Vec<u8>) -> Vec<u8> {
    let raw = RawMessage {
        ratchet_key: Some(encode_legacy_key(&header.ratchet_key).to_vec()),
        counter: Some(header.counter.into()),
        previous_counter: Some(header.previous.into()),
        ciphertext: Some(ciphertext),
    };
    versioned(&raw)
}

/// Appends the first bytes of `tag`.
pub(super) fn encode_tagged(mut message: Vec<u8>, tag: &[u8]) -> Vec<u8> {
    message.extend(tag.iter().take(MAC_LENGTH));
    message
}

/// Serialises a `PreKeySignalMessage` around a `SignalMessage`.
pub(super) fn encode_exchange(exchange: &ExchangeHeader<Legacy>, message: Vec<u8>) -> Vec<u8> {
    let raw = RawPrekeyMessage {
        prekey_id: Some(exchange.prekey.get().into()),
        base_key: Some(encode_legacy_key(&exchange.ephemeral).to_vec()),
        identity_key: Some(exchange.identity.to_bytes().to_vec()),
        message: Some(message),
        registration_id: Some(exchange.registration.into()),
        signed_prekey_id: Some(exchange.signed_prekey.get().into()),
    };
    versioned(&raw)
}

/// Reads what is in a `<key/>`. Some clients forget to mark a key exchange as one; since the first field of the two has
/// different types, neither can be taken for the other.
pub(super) fn decode(header: &MessageHeader) -> Result<Incoming<Legacy>, WireError> {
    check_length(&header.data)?;
    let exchange =
        || decode_exchange(&header.data).map(|(exchange, message)| Incoming { exchange: Some(exchange), message });
    if header.kex {
        return exchange();
    }
    match decode_message(&header.data) {
        Ok(message) => Ok(Incoming { exchange: None, message }),
        Err(error) => exchange().map_err(|_| error),
    }
}

fn decode_message(bytes: &[u8]) -> Result<AuthenticatedMessage, WireError> {
    check_version(bytes)?;
    let (message, mac) = bytes.split_last_chunk::<MAC_LENGTH>().ok_or(WireError::Protobuf)?;
    let raw = RawMessage::decode(message.get(1..).unwrap_or_default()).map_err(|_| WireError::Protobuf)?;
    let ratchet_key = key("ratchetKey", raw.ratchet_key, decode_legacy_key)?;
    // libsignal does not read it, and its schema lets it be absent.
    let previous = number("previousCounter", raw.previous_counter.or(Some(0)))?;
    Ok(AuthenticatedMessage {
        mac: mac.to_vec(),
        message: message.to_vec(),
        header: ratchet::Header { ratchet_key, previous, counter: number("counter", raw.counter)? },
        ciphertext: raw.ciphertext.ok_or(WireError::Missing("ciphertext"))?,
    })
}

fn decode_exchange(bytes: &[u8]) -> Result<(ExchangeHeader<Legacy>, AuthenticatedMessage), WireError> {
    check_version(bytes)?;
    let raw = RawPrekeyMessage::decode(bytes.get(1..).unwrap_or_default()).map_err(|_| WireError::Protobuf)?;
    let header = ExchangeHeader {
        prekey: id("preKeyId", raw.prekey_id)?,
        signed_prekey: id("signedPreKeyId", raw.signed_prekey_id)?,
        identity: key("identityKey", raw.identity_key, IdentityKey::from_slice)?,
        ephemeral: key::<PublicKey>("baseKey", raw.base_key, decode_legacy_key)?,
        // Other libraries leave it out; nothing depends on it.
        registration: number("registrationId", raw.registration_id.or(Some(0)))?,
    };
    Ok((header, decode_message(&raw.message.ok_or(WireError::Missing("message"))?)?))
}

fn key<T>(
    field: &'static str,
    bytes: Option<Vec<u8>>,
    decode: fn(&[u8]) -> Result<T, KeyError>,
) -> Result<T, WireError> {
    decode(&bytes.ok_or(WireError::Missing(field))?).map_err(|error| WireError::Key { field, error })
}

/// The lower half is not looked at: it says what else the sender knows.
fn check_version(bytes: &[u8]) -> Result<(), WireError> {
    match bytes.first() {
        Some(byte) if byte & 0xF0 == VERSION => Ok(()),
        Some(byte) => Err(WireError::Version(*byte)),
        None => Err(WireError::Protobuf),
    }
}

fn versioned(raw: &impl prost::Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(raw.encoded_len().saturating_add(1).saturating_add(MAC_LENGTH));
    bytes.push(VERSION_BYTE);
    bytes.extend(raw.encode_to_vec());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        address::{DeviceId, InvalidId, KeyId},
        curve25519::SecretKey,
        identity::IdentityKeyPair,
        message::MAX_HEADER_LENGTH,
    };

    fn header() -> ratchet::Header {
        ratchet::Header { ratchet_key: SecretKey::from_bytes([1; 32]).public_key(), previous: 0, counter: 0 }
    }

    fn exchange() -> ExchangeHeader<Legacy> {
        ExchangeHeader {
            prekey: KeyId::new(7).unwrap(),
            signed_prekey: KeyId::new(8).unwrap(),
            identity: IdentityKey::from(&IdentityKeyPair::from_seed(&[2; 32])),
            ephemeral: SecretKey::from_bytes([3; 32]).public_key(),
            registration: 99,
        }
    }

    fn message() -> Vec<u8> {
        encode_tagged(encode_message(&header(), vec![5; 64]), &[6; 32])
    }

    fn read(kex: bool, data: Vec<u8>) -> Result<Incoming<Legacy>, WireError> {
        decode(&MessageHeader { rid: DeviceId::new(1).unwrap(), kex, data })
    }

    #[test]
    fn what_was_encoded_is_decoded_even_if_not_marked() {
        let decoded = read(false, message()).unwrap();
        assert_eq!((decoded.exchange, decoded.message.header), (None, header()));
        assert_eq!(decoded.message.mac, [6; 8]);
        for marked in [true, false] {
            let decoded = read(marked, encode_exchange(&exchange(), message())).unwrap();
            assert_eq!(decoded.exchange, Some(exchange()));
            assert_eq!(decoded.message.header, header());
        }
        assert!(read(true, message()).is_err());
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = encode_exchange(&exchange(), message());
        for end in 0..bytes.len() {
            assert!(read(true, bytes[..end].to_vec()).is_err(), "{end}");
            assert!(read(false, bytes[..end].to_vec()).is_err(), "{end}");
        }
        // A message without its last bytes has other bytes as its tag, which the ratchet will refuse; without more of
        // them it is malformed.
        assert!(read(false, message()[..100].to_vec()).is_err());
        assert_eq!(
            read(true, vec![0x33; MAX_HEADER_LENGTH + 1]),
            Err(WireError::TooLong { actual: MAX_HEADER_LENGTH + 1 })
        );
    }

    #[test]
    fn other_versions_are_refused() {
        for version in [0x00, 0x13, 0x23, 0x43, 0xFF] {
            let mut bytes = encode_exchange(&exchange(), message());
            bytes[0] = version;
            assert_eq!(read(true, bytes), Err(WireError::Version(version)));
            let mut bytes = message();
            bytes[0] = version;
            assert_eq!(read(false, bytes.clone()), Err(WireError::Version(version)));
            assert_eq!(read(true, encode_exchange(&exchange(), bytes)), Err(WireError::Version(version)));
        }
    }

    #[test]
    fn every_missing_field_is_named() {
        let without = |change: fn(&mut RawPrekeyMessage)| {
            let mut raw = RawPrekeyMessage::decode(&encode_exchange(&exchange(), message())[1..]).unwrap();
            change(&mut raw);
            read(true, versioned(&raw)).unwrap_err()
        };
        assert_eq!(without(|raw| raw.prekey_id = None), WireError::Missing("preKeyId"));
        assert_eq!(without(|raw| raw.signed_prekey_id = None), WireError::Missing("signedPreKeyId"));
        assert_eq!(without(|raw| raw.base_key = None), WireError::Missing("baseKey"));
        assert_eq!(without(|raw| raw.identity_key = None), WireError::Missing("identityKey"));
        assert_eq!(without(|raw| raw.message = None), WireError::Missing("message"));
        assert_eq!(without(|raw| raw.prekey_id = Some(0)), WireError::Id { field: "preKeyId", error: InvalidId(0) });
        assert_eq!(without(|raw| raw.prekey_id = Some(1 + (1 << 32))), WireError::Number("preKeyId"));
        assert_eq!(
            without(|raw| raw.base_key.as_mut().unwrap()[1..].fill(0)),
            WireError::Key { field: "baseKey", error: KeyError::LowOrder }
        );
        assert_eq!(
            without(|raw| raw.identity_key.as_mut().unwrap()[0] = 0x06),
            WireError::Key { field: "identityKey", error: KeyError::Type }
        );
        let inner = |change: fn(&mut RawMessage)| {
            let mut raw = RawMessage::decode(&encode_message(&header(), vec![5; 64])[1..]).unwrap();
            change(&mut raw);
            read(false, encode_tagged(versioned(&raw), &[0; 32])).unwrap_err()
        };
        assert_eq!(inner(|raw| raw.ratchet_key = None), WireError::Missing("ratchetKey"));
        assert_eq!(inner(|raw| raw.counter = None), WireError::Missing("counter"));
        assert_eq!(inner(|raw| raw.ciphertext = None), WireError::Missing("ciphertext"));
    }
}
