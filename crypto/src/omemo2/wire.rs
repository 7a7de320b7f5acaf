//! The three protobuf structures in a `<key/>` (XEP-0384, "Protobuf Schema").
//!
//! prost would give a missing field its default; here every field that the schema calls `required` has to be there, and
//! every key has to be one. What is authenticated are the bytes that came, never a new serialisation of them.

use prost::Message as _;

use crate::{
    curve25519::PublicKey,
    generation::Omemo2,
    identity::IdentityKey,
    message::MessageHeader,
    ratchet,
    wire::{AuthenticatedMessage, ExchangeHeader, Incoming, WireError, check_length, id, number},
};

/// Length in bytes of the truncated HMAC of a ratchet message (XEP-0384, "Double Ratchet", ENCRYPT, step 7).
const MAC_LENGTH: usize = 16;

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
    /// An `OMEMOAuthenticatedMessage`, which protobuf encodes as its bytes.
    #[prost(bytes = "vec", optional, tag = "5")]
    message: Option<Vec<u8>>,
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

/// Serialises an `OMEMOAuthenticatedMessage` with the first bytes of `tag`.
pub(super) fn encode_authenticated(message: Vec<u8>, tag: &[u8]) -> Vec<u8> {
    RawAuthenticatedMessage { mac: Some(tag.iter().take(MAC_LENGTH).copied().collect()), message: Some(message) }
        .encode_to_vec()
}

/// Serialises an `OMEMOKeyExchange` around an `OMEMOAuthenticatedMessage`.
pub(super) fn encode_exchange(exchange: &ExchangeHeader<Omemo2>, authenticated: Vec<u8>) -> Vec<u8> {
    RawKeyExchange {
        pk_id: Some(exchange.prekey.get().into()),
        spk_id: Some(exchange.signed_prekey.get().into()),
        ik: Some(exchange.identity.as_bytes().to_vec()),
        ek: Some(exchange.ephemeral.as_bytes().to_vec()),
        message: Some(authenticated),
    }
    .encode_to_vec()
}

/// Reads what is in a `<key/>`.
pub(super) fn decode(header: &MessageHeader) -> Result<Incoming<Omemo2>, WireError> {
    check_length(&header.data)?;
    if header.kex {
        decode_exchange(&header.data).map(|(exchange, message)| Incoming { exchange: Some(exchange), message })
    } else {
        decode_authenticated(&header.data).map(|message| Incoming { exchange: None, message })
    }
}

fn decode_authenticated(bytes: &[u8]) -> Result<AuthenticatedMessage, WireError> {
    check_authenticated(RawAuthenticatedMessage::decode(bytes).map_err(|_| WireError::Protobuf)?)
}

fn decode_exchange(bytes: &[u8]) -> Result<(ExchangeHeader<Omemo2>, AuthenticatedMessage), WireError> {
    let raw = RawKeyExchange::decode(bytes).map_err(|_| WireError::Protobuf)?;
    let identity = raw.ik.ok_or(WireError::Missing("ik"))?;
    let ephemeral = raw.ek.ok_or(WireError::Missing("ek"))?;
    let header = ExchangeHeader {
        prekey: id("pk_id", raw.pk_id)?,
        signed_prekey: id("spk_id", raw.spk_id)?,
        identity: IdentityKey::from_slice(&identity).map_err(|error| WireError::Key { field: "ik", error })?,
        ephemeral: PublicKey::from_slice(&ephemeral).map_err(|error| WireError::Key { field: "ek", error })?,
        registration: 0,
    };
    Ok((header, decode_authenticated(&raw.message.ok_or(WireError::Missing("message"))?)?))
}

fn check_authenticated(raw: RawAuthenticatedMessage) -> Result<AuthenticatedMessage, WireError> {
    let mac = raw.mac.ok_or(WireError::Missing("mac"))?;
    if mac.len() != MAC_LENGTH {
        return Err(WireError::MacLength { actual: mac.len() });
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        address::{DeviceId, InvalidId, KeyId},
        curve25519::{KeyError, SecretKey},
        identity::IdentityKeyPair,
        message::MAX_HEADER_LENGTH,
    };

    fn header() -> ratchet::Header {
        ratchet::Header { ratchet_key: SecretKey::from_bytes([1; 32]).public_key(), previous: 0, counter: 0 }
    }

    fn exchange() -> ExchangeHeader<Omemo2> {
        ExchangeHeader {
            prekey: KeyId::new(7).unwrap(),
            signed_prekey: KeyId::new(8).unwrap(),
            identity: IdentityKeyPair::from_seed(&[2; 32]).public_key(),
            ephemeral: SecretKey::from_bytes([3; 32]).public_key(),
            registration: 0,
        }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let message = encode_message(&header(), vec![5; 64]);
        let bytes = encode_exchange(&exchange(), encode_authenticated(message.clone(), &[6; 32]));
        let (decoded, authenticated) = decode_exchange(&bytes).unwrap();
        assert_eq!(decoded, exchange());
        assert_eq!(authenticated.header, header());
        assert_eq!(authenticated.message, message);
        assert_eq!(decode_authenticated(&encode_authenticated(message, &[6; 32])).unwrap(), authenticated);
    }

    #[test]
    fn zeros_are_on_the_wire() {
        // `n` and `pn` are required, so that their zeros are written: field 1 and 2, varint.
        assert_eq!(&encode_message(&header(), vec![])[..4], &[0x08, 0, 0x10, 0]);
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes =
            encode_exchange(&exchange(), encode_authenticated(encode_message(&header(), vec![5; 64]), &[6; 32]));
        for end in 0..bytes.len() {
            assert!(decode_exchange(&bytes[..end]).is_err(), "{end}");
        }
        let long = MessageHeader { rid: DeviceId::new(1).unwrap(), kex: true, data: vec![0; MAX_HEADER_LENGTH + 1] };
        assert_eq!(decode(&long), Err(WireError::TooLong { actual: MAX_HEADER_LENGTH + 1 }));
    }

    #[test]
    fn every_missing_field_is_named() {
        let full = RawKeyExchange::decode(
            encode_exchange(&exchange(), encode_authenticated(encode_message(&header(), vec![5; 64]), &[6; 32]))
                .as_slice(),
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
            without(|raw| raw.message = Some(encode_authenticated(vec![], &[0; 15]))),
            WireError::MacLength { actual: 15 }
        );
        let inner = |change: fn(&mut RawMessage)| {
            let mut raw = RawMessage::decode(encode_message(&header(), vec![5; 64]).as_slice()).unwrap();
            change(&mut raw);
            decode_authenticated(&encode_authenticated(raw.encode_to_vec(), &[0; 32])).unwrap_err()
        };
        assert_eq!(inner(|raw| raw.n = None), WireError::Missing("n"));
        assert_eq!(inner(|raw| raw.pn = None), WireError::Missing("pn"));
        assert_eq!(inner(|raw| raw.dh_pub = None), WireError::Missing("dh_pub"));
        assert_eq!(inner(|raw| raw.ciphertext = None), WireError::Missing("ciphertext"));
    }
}
