//! OMEMO 2 as a [`Protocol`]: what is particular to it, each thing named by its section of XEP-0384.

use zeroize::Zeroizing;

use super::{EncryptedMessage, NAMESPACE, RecipientHeaders, bundle, payload, wire};
use crate::{
    address::DeviceId,
    bundle::{Bundle, BundleError},
    curve25519::{KeyError, PublicKey},
    generation::Omemo2,
    identity::{IdentityKey, IdentityKeyPair, SIGNATURE_LENGTH},
    message::{KeyMaterial, MessageHeader, PayloadError},
    protocol::{Parties, Protocol, PublicIdentity},
    random::RandomError,
    ratchet,
    signature::SignatureError,
    wire::{ExchangeHeader, Incoming, WireError},
};

impl PublicIdentity for IdentityKey {
    fn fingerprint(&self) -> String {
        Self::fingerprint(self)
    }

    fn to_wire(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_wire(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::from_slice(bytes)
    }

    fn agreement_key(&self) -> Result<PublicKey, KeyError> {
        self.to_curve25519()
    }
}

impl Protocol for Omemo2 {
    const NAME: &'static str = "omemo2";
    const NAMESPACE: &'static str = NAMESPACE;

    type Identity = IdentityKey;
    type Message = EncryptedMessage;
    type Payload = Option<Vec<u8>>;

    fn identity_of(pair: &IdentityKeyPair) -> IdentityKey {
        pair.public_key()
    }

    fn encode_key(key: &PublicKey) -> Vec<u8> {
        key.as_bytes().to_vec()
    }

    fn decode_key(bytes: &[u8]) -> Result<PublicKey, KeyError> {
        PublicKey::from_slice(bytes)
    }

    /// "Key Exchange": Ed25519 over the bytes of the signed prekey.
    fn sign_prekey(pair: &IdentityKeyPair, key: &PublicKey) -> [u8; SIGNATURE_LENGTH] {
        pair.sign(key.as_bytes())
    }

    fn verify_prekey(
        identity: &IdentityKey,
        key: &PublicKey,
        signature: &[u8; SIGNATURE_LENGTH],
    ) -> Result<(), SignatureError> {
        identity.verify(key.as_bytes(), signature)
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

    /// "Key Exchange": `AD = Encode(IK_A) || Encode(IK_B)`, A being who started the session. "Double Ratchet", ENCRYPT,
    /// steps 5 to 7: the tag is over `CONCAT(ad, header)`, the header being the serialised message with its ciphertext.
    fn associated(parties: Parties<'_, IdentityKey>) -> Vec<u8> {
        [*parties.initiator.as_bytes(), *parties.responder.as_bytes()].concat()
    }

    fn encode_tagged(message: Vec<u8>, tag: &[u8; 32]) -> Vec<u8> {
        wire::encode_authenticated(message, tag)
    }

    fn encode_exchange(exchange: &ExchangeHeader<Self>, tagged: Vec<u8>) -> Vec<u8> {
        wire::encode_exchange(exchange, tagged)
    }

    fn decode(header: &MessageHeader) -> Result<Incoming<Self>, WireError> {
        wire::decode(header)
    }

    fn seal(plaintext: &[u8]) -> Result<(KeyMaterial, Option<Vec<u8>>), RandomError> {
        payload::seal(plaintext).map(|(material, payload)| (material, Some(payload)))
    }

    fn seal_empty() -> Result<(KeyMaterial, Option<Vec<u8>>), RandomError> {
        Ok((payload::seal_empty(), None))
    }

    fn open(material: &[u8], message: &EncryptedMessage) -> Result<Option<Zeroizing<Vec<u8>>>, PayloadError> {
        payload::open(material, message.payload.as_deref())
    }

    fn assemble(sid: DeviceId, headers: Vec<(&str, MessageHeader)>, payload: Option<Vec<u8>>) -> EncryptedMessage {
        let mut keys: Vec<RecipientHeaders> = Vec::new();
        for (jid, header) in headers {
            match keys.last_mut() {
                Some(last) if last.jid == jid => last.headers.push(header),
                _ => keys.push(RecipientHeaders { jid: jid.to_owned(), headers: vec![header] }),
            }
        }
        EncryptedMessage { sid, keys, payload }
    }
}
