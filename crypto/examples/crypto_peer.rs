//! A peer that speaks both protocols in lines of JSON, so that any other implementation can be crossed with this one.
//!
//! One object on standard input, one on standard output. Binary is base64; keys are in the protocol's own wire encoding
//! (OMEMO 2: 32 bytes, the identity as Ed25519; legacy: 33 bytes, 0x05 first). `protocol` is `omemo2` or `legacy`; `name`
//! and `dev` say which other device is meant.
//!
//! | in | out |
//! |---|---|
//! | `{"op":"bundle","protocol","n":3}` | `{"ik","spkid","spk","sig","pks":[[id,"pub"],…]}`: this peer's identity, made at the first call |
//! | `{"op":"process","protocol","name","dev","ik","spkid","spk","sig","pkid","pk"}` | `{"ok":1}`: a session was started |
//! | `{"op":"enc","protocol","name","dev","pt"}` | `{"kex":bool,"ct"}`: the content of a `<key/>` |
//! | `{"op":"dec","protocol","name","dev","kex","ct"}` | `{"pt","used_prekey":id or null}` |
//! | `{"op":"seal","protocol","to":[["name",dev],…],"from":"jid","content":"<body…>"}` | `{"encrypted":"<encrypted …>"}` |
//! | `{"op":"open","protocol","from":"jid","dev","encrypted"}` | `{"content"}`, `null` for an empty message |
//! | `{"op":"empty","protocol","name","dev"}` | `{"encrypted"}`: an empty message |
//! | `{"op":"state","protocol"}` | `{"state"}`: all secrets of the peer |
//! | `{"op":"restart","protocol"}` | `{"ok":1}`: the peer has been saved and restored |
//!
//! Whatever fails gives `{"err":"code","text"}`, and the peer goes on. Legacy encrypts the text of a message only: `seal`
//! takes it from the `<body/>`, `open` puts it into one. Nobody has told the peer its own name, so `open` tries the
//! headers in turn.
#![allow(clippy::print_stdout, reason = "the answers")]

use std::io::stdin;

use base64::{Engine, engine::general_purpose::STANDARD};
use multiend_crypto::{
    address::{Address, DeviceId, KeyId},
    bundle::{Bundle, BundleError, Prekey, SignedPrekey},
    device::{Decrypted, Device},
    error::{DecryptError, EncryptError, SessionError},
    generation::{Legacy, Omemo2},
    legacy,
    message::MessageHeader,
    omemo2,
    protocol::{EncryptedElement, Protocol, PublicIdentity},
    sce::Envelope,
};
use serde_json::{Value, json};

/// The account of this peer. Others never see it.
const OWNER: &str = "crypto-peer.invalid";

/// The default namespace of messages, in which a `<body/>` is.
const BODY: &str = "<body xmlns='jabber:client'>";

/// A code and a text.
struct Failure(&'static str, String);

type Answer = Result<Value, Failure>;

fn main() {
    let (mut omemo2, mut legacy) = (None, None);
    for line in stdin().lines() {
        let Ok(line) = line else { return };
        println!("{}", answer_line(&line, &mut omemo2, &mut legacy));
    }
}

/// The answer to one line, from and to the devices of this peer.
pub(crate) fn answer_line(
    line: &str,
    omemo2: &mut Option<Device<Omemo2>>,
    legacy: &mut Option<Device<Legacy>>,
) -> Value {
    answer(line, omemo2, legacy).unwrap_or_else(|Failure(code, text)| json!({ "err": code, "text": text }))
}

fn answer(line: &str, omemo2: &mut Option<Device<Omemo2>>, legacy: &mut Option<Device<Legacy>>) -> Answer {
    let request = Request(serde_json::from_str(line).map_err(|error| bad_request(&error))?);
    match request.text("protocol")? {
        "omemo2" => run(&request, omemo2),
        "legacy" => run(&request, legacy),
        other => Err(bad_request(&format!("unknown protocol {other}"))),
    }
}

/// What the two protocols encrypt, and how their messages address a device.
trait Content: Protocol {
    /// What is to be encrypted of some content.
    fn plaintext(content: &str, from: &str) -> Result<Vec<u8>, Failure>;
    /// The content that was encrypted.
    fn content(plaintext: &[u8], from: &str) -> Result<String, Failure>;
    /// The message once for each of its headers, addressed to `device` alone and sent by `sender`.
    fn readdressed(message: &Self::Message, sender: DeviceId, device: DeviceId) -> Vec<Self::Message>;
}

impl Content for Omemo2 {
    fn plaintext(content: &str, from: &str) -> Result<Vec<u8>, Failure> {
        let envelope = Envelope::new(content).from_jid(from).to_xml();
        envelope.map(String::into_bytes).map_err(|error| Failure("random", error.to_string()))
    }

    fn content(plaintext: &[u8], from: &str) -> Result<String, Failure> {
        let envelope = Envelope::from_xml(plaintext).map_err(|error| Failure("envelope", error.to_string()))?;
        let to = envelope.to.clone().unwrap_or_default();
        envelope.check(from, &to, false).map_err(|error| Failure("envelope", error.to_string()))?;
        Ok(envelope.content)
    }

    fn readdressed(message: &omemo2::EncryptedMessage, sid: DeviceId, rid: DeviceId) -> Vec<omemo2::EncryptedMessage> {
        let headers = message.keys.iter().flat_map(|keys| &keys.headers);
        headers
            .map(|header| {
                let headers = vec![MessageHeader { rid, ..header.clone() }];
                let keys = vec![omemo2::RecipientHeaders { jid: OWNER.to_owned(), headers }];
                omemo2::EncryptedMessage { sid, keys, payload: message.payload.clone() }
            })
            .collect()
    }
}

impl Content for Legacy {
    fn plaintext(content: &str, _from: &str) -> Result<Vec<u8>, Failure> {
        let body = Envelope::new(content.replacen("<body>", BODY, 1)).body();
        body.map(String::into_bytes).ok_or(Failure("content", "there is no <body/>".to_owned()))
    }

    fn content(plaintext: &[u8], _from: &str) -> Result<String, Failure> {
        let text = core::str::from_utf8(plaintext).map_err(|error| Failure("content", error.to_string()))?;
        Ok(Envelope::with_body(text).content)
    }

    fn readdressed(message: &legacy::EncryptedMessage, sid: DeviceId, rid: DeviceId) -> Vec<legacy::EncryptedMessage> {
        let headers = message.headers.iter();
        headers
            .map(|header| {
                let headers = vec![MessageHeader { rid, ..header.clone() }];
                legacy::EncryptedMessage { sid, headers, ..message.clone() }
            })
            .collect()
    }
}

fn run<P: Content>(request: &Request, device: &mut Option<Device<P>>) -> Answer {
    let device = match device {
        Some(device) => device,
        None => {
            let id = DeviceId::random().map_err(|error| Failure("random", error.to_string()))?;
            let made = Device::generate(OWNER, id, 0).map_err(|error| Failure("random", error.to_string()))?;
            device.insert(made)
        }
    };
    match request.text("op")? {
        "bundle" => bundle(request, device),
        "process" => process(request, device),
        "enc" => {
            let header = device.encrypt_key_material(&request.bytes("pt")?, &request.peer()?).map_err(encrypting)?;
            Ok(json!({ "kex": header.kex, "ct": STANDARD.encode(&header.data) }))
        }
        "dec" => {
            let header = MessageHeader { rid: device.id(), kex: request.flag("kex")?, data: request.bytes("ct")? };
            let decrypted = device.decrypt_key_material(&request.peer()?, &header).map_err(|e| decrypting(&e))?;
            let plaintext = decrypted.plaintext.as_ref().map(|plaintext| STANDARD.encode(plaintext));
            Ok(json!({ "pt": plaintext, "used_prekey": decrypted.used_prekey.map(KeyId::get) }))
        }
        "seal" => seal(request, device),
        "empty" => {
            let message = device.encrypt_empty(&request.peer()?).map_err(encrypting)?;
            Ok(json!({ "encrypted": message.write() }))
        }
        "open" => open(request, device),
        "state" => {
            let state = device.to_state().map_err(|error| Failure("state", error.to_string()))?;
            Ok(json!({ "state": String::from_utf8_lossy(&state) }))
        }
        "restart" => {
            let state = device.to_state().map_err(|error| Failure("state", error.to_string()))?;
            *device = Device::from_state(&state).map_err(|error| Failure("state", error.to_string()))?;
            Ok(json!({ "ok": 1 }))
        }
        other => Err(bad_request(&format!("unknown op {other}"))),
    }
}

fn bundle<P: Protocol>(request: &Request, device: &mut Device<P>) -> Answer {
    let count = request.number("n").unwrap_or(1);
    // Prekeys that were used are replaced, so that there are always some to give.
    device.replenish().map_err(|error| Failure("random", error.to_string()))?;
    let Bundle { identity, signed_prekey, prekeys } = device.bundle();
    let encode = |key| STANDARD.encode(P::encode_key(key));
    let prekeys = prekeys.iter().take(usize::try_from(count).unwrap_or(usize::MAX));
    Ok(json!({
        "ik": STANDARD.encode(identity.to_wire()),
        "spkid": signed_prekey.id.get(),
        "spk": encode(&signed_prekey.key),
        "sig": STANDARD.encode(signed_prekey.signature),
        "pks": prekeys.map(|prekey| json!([prekey.id.get(), encode(&prekey.key)])).collect::<Vec<_>>(),
    }))
}

fn process<P: Protocol>(request: &Request, device: &mut Device<P>) -> Answer {
    let key = |name| P::decode_key(&request.bytes(name)?).map_err(|error| Failure("key", format!("{name}: {error}")));
    let id = |name| KeyId::new(request.number(name)?).map_err(|error| Failure("key-id", format!("{name}: {error}")));
    let signature = request.bytes("sig")?;
    let bundle = Bundle::<P> {
        identity: P::Identity::from_wire(&request.bytes("ik")?)
            .map_err(|error| Failure("key", format!("ik: {error}")))?,
        signed_prekey: SignedPrekey {
            id: id("spkid")?,
            key: key("spk")?,
            signature: signature.try_into().map_err(|_| Failure("signature", "sig has not 64 bytes".to_owned()))?,
        },
        prekeys: vec![Prekey { id: id("pkid")?, key: key("pk")? }],
    };
    device.start_session(&request.peer()?, &bundle).map_err(|error| {
        let code = match error {
            SessionError::Bundle(BundleError::Signature(_)) => "signature",
            SessionError::IdentityChanged { .. } => "identity-changed",
            SessionError::NonContributory(_) | SessionError::Key(_) => "key",
            _ => "session",
        };
        Failure(code, error.to_string())
    })?;
    Ok(json!({ "ok": 1 }))
}

fn seal<P: Content>(request: &Request, device: &mut Device<P>) -> Answer {
    let recipients = request.0.get("to").and_then(Value::as_array).ok_or_else(|| bad_request(&"to is missing"))?;
    let recipients = recipients
        .iter()
        .map(|recipient| match recipient.as_array().map(Vec::as_slice) {
            Some([Value::String(name), device]) => address(name, device),
            _ => Err(bad_request(&"to is not a list of [name, dev]")),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let plaintext = P::plaintext(request.text("content")?, request.text("from")?)?;
    let message = device.encrypt(&plaintext, &recipients).map_err(encrypting)?;
    Ok(json!({ "encrypted": message.write() }))
}

fn open<P: Content>(request: &Request, device: &mut Device<P>) -> Answer {
    let from = request.text("from")?;
    let message = P::Message::read(request.text("encrypted")?).map_err(|error| Failure("xml", error.to_string()))?;
    let sender = match request.0.get("dev") {
        None | Some(Value::Null) => message.sender(),
        Some(number) => address(from, number)?.device(),
    };
    let mut result: Result<Decrypted<P>, DecryptError> = Err(DecryptError::NotForThisDevice);
    for message in P::readdressed(&message, sender, device.id()) {
        result = device.decrypt(from, &message);
        if result.is_ok() {
            break;
        }
    }
    let plaintext = result.map_err(|error| decrypting(&error))?.plaintext;
    let content = plaintext.map(|plaintext| P::content(&plaintext, from)).transpose()?;
    Ok(json!({ "content": content }))
}

/// One line of input.
struct Request(Value);

impl Request {
    fn text(&self, name: &str) -> Result<&str, Failure> {
        self.0.get(name).and_then(Value::as_str).ok_or_else(|| bad_request(&format!("{name} is missing or no text")))
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, Failure> {
        STANDARD.decode(self.text(name)?).map_err(|error| bad_request(&format!("{name}: {error}")))
    }

    fn number(&self, name: &str) -> Result<u32, Failure> {
        let number = self.0.get(name).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| bad_request(&format!("{name} is missing or no number")))
    }

    fn flag(&self, name: &str) -> Result<bool, Failure> {
        self.0.get(name).and_then(Value::as_bool).ok_or_else(|| bad_request(&format!("{name} is missing or no flag")))
    }

    fn peer(&self) -> Result<Address, Failure> {
        address(self.text("name")?, self.0.get("dev").unwrap_or(&Value::Null))
    }
}

fn address(name: &str, device: &Value) -> Result<Address, Failure> {
    let number = device.as_u64().and_then(|number| u32::try_from(number).ok());
    let number = number.ok_or_else(|| bad_request(&"dev is missing or no number"))?;
    Address::new(name, number).map_err(|error| Failure("address", error.to_string()))
}

fn bad_request(text: &impl ToString) -> Failure {
    Failure("bad-request", text.to_string())
}

fn encrypting(error: EncryptError) -> Failure {
    let code = match error {
        EncryptError::NoSession(_) => "no-session",
        EncryptError::TooLong(_) | EncryptError::TooManyRecipients(_) => "too-long",
        _ => "encrypt",
    };
    Failure(code, error.to_string())
}

fn decrypting(error: &DecryptError) -> Failure {
    let code = match error {
        DecryptError::NotForThisDevice => "not-for-this-device",
        DecryptError::Sender(_) => "address",
        DecryptError::OwnDevice => "own-device",
        DecryptError::Duplicate => "duplicate",
        DecryptError::NoSession(_) => "no-session",
        DecryptError::Malformed(_) => "malformed",
        DecryptError::UnknownPrekey(_) => "unknown-prekey",
        DecryptError::UnknownSignedPrekey(_) => "unknown-signed-prekey",
        DecryptError::PrekeyOverused(_) => "prekey-overused",
        DecryptError::IdentityChanged { .. } => "identity-changed",
        DecryptError::NonContributory(_) | DecryptError::Key(_) => "key",
        DecryptError::CounterJump { .. } => "counter-jump",
        DecryptError::Forged => "forged",
        DecryptError::PayloadForged => "payload-forged",
        DecryptError::KeyMaterial(_) => "key-material",
        DecryptError::PayloadTooLong => "too-long",
        DecryptError::Random(_) => "random",
    };
    Failure(code, error.to_string())
}
