//! Legacy OMEMO as a [`Protocol`]: what is particular to it.

use zeroize::Zeroizing;

use super::{EncryptedMessage, IdentityKey, NAMESPACE, bundle, payload, wire};
use crate::{
    address::DeviceId,
    bundle::{Bundle, BundleError},
    curve25519::{KeyError, PublicKey},
    generation::Legacy,
    identity::{IdentityKeyPair, SIGNATURE_LENGTH},
    message::{KeyMaterial, MessageHeader, PayloadError},
    protocol::{Parties, Protocol},
    random::RandomError,
    ratchet,
    signature::{SignatureError, decode_legacy_key, encode_legacy_key},
    wire::{ExchangeHeader, Incoming, WireError},
    xeddsa,
};

impl Protocol for Legacy {
    const NAME: &'static str = "legacy";
    const NAMESPACE: &'static str = NAMESPACE;

    type Identity = IdentityKey;
    type Message = EncryptedMessage;
    type Payload = payload::Sealed;

    fn identity_of(pair: &IdentityKeyPair) -> IdentityKey {
        IdentityKey::from(pair)
    }

    fn encode_key(key: &PublicKey) -> Vec<u8> {
        encode_legacy_key(key).to_vec()
    }

    fn decode_key(bytes: &[u8]) -> Result<PublicKey, KeyError> {
        decode_legacy_key(bytes)
    }

    /// Over the 33 bytes of the signed prekey. The bundle is the same each time that it is written, so the signature is
    /// made without randomness.
    fn sign_prekey(pair: &IdentityKeyPair, key: &PublicKey) -> [u8; SIGNATURE_LENGTH] {
        xeddsa::sign_as_ed25519(pair, &encode_legacy_key(key))
    }

    fn verify_prekey(
        identity: &IdentityKey,
        key: &PublicKey,
        signature: &[u8; SIGNATURE_LENGTH],
    ) -> Result<(), SignatureError> {
        xeddsa::verify(identity.key(), &encode_legacy_key(key), signature)
    }

    fn write_bundle(bundle: &Bundle<Self>) -> String {
        bundle::write(bundle)
    }

    fn read_bundle(xml: &str) -> Result<Bundle<Self>, BundleError> {
        bundle::read(xml)
    }

    fn encode_message(header: &ratchet::Header, ciphertext: Vec<u8>) -> Vec<u8> {
        wire::encode_message(header, ciphertext)
    }

    /// The sender's identity, then the receiver's, whoever started the session (libsignal, `SignalMessage`).
    fn associated(parties: Parties<'_, IdentityKey>) -> Vec<u8> {
        let Parties { initiator, responder, initiator_sends } = parties;
        let (sender, receiver) = if initiator_sends { (initiator, responder) } else { (responder, initiator) };
        [sender.to_bytes(), receiver.to_bytes()].concat()
    }

    fn encode_tagged(message: Vec<u8>, tag: &[u8; 32]) -> Vec<u8> {
        wire::encode_tagged(message, tag)
    }

    fn encode_exchange(exchange: &ExchangeHeader<Self>, tagged: Vec<u8>) -> Vec<u8> {
        wire::encode_exchange(exchange, tagged)
    }

    fn decode(header: &MessageHeader) -> Result<Incoming<Self>, WireError> {
        wire::decode(header)
    }

    fn seal(plaintext: &[u8]) -> Result<(KeyMaterial, payload::Sealed), RandomError> {
        payload::seal(plaintext)
    }

    fn seal_empty() -> Result<(KeyMaterial, payload::Sealed), RandomError> {
        payload::seal_empty()
    }

    fn open(material: &[u8], message: &EncryptedMessage) -> Result<Option<Zeroizing<Vec<u8>>>, PayloadError> {
        payload::open(material, &message.iv, message.payload.as_deref())
    }

    fn assemble(sid: DeviceId, headers: Vec<(&str, MessageHeader)>, sealed: payload::Sealed) -> EncryptedMessage {
        let payload::Sealed { iv, payload } = sealed;
        EncryptedMessage { sid, headers: headers.into_iter().map(|(_, header)| header).collect(), iv, payload }
    }
}
