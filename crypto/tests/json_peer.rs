//! The peer in lines of JSON, given everything that it must not take: it names what is wrong, changes nothing, and goes on.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(dead_code)]
#[path = "../examples/crypto_peer.rs"]
mod crypto_peer;

use multiend_crypto::{
    device::Device,
    generation::{Legacy, Omemo2},
};
use serde_json::{Value, json};

#[derive(Default)]
struct Peer {
    omemo2: Option<Device<Omemo2>>,
    legacy: Option<Device<Legacy>>,
}

impl Peer {
    fn call(&mut self, request: &Value) -> Value {
        self.line(&request.to_string())
    }

    fn line(&mut self, line: &str) -> Value {
        crypto_peer::answer_line(line, &mut self.omemo2, &mut self.legacy)
    }

    fn state(&mut self, protocol: &str) -> Value {
        self.call(&json!({ "op": "state", "protocol": protocol }))["state"].clone()
    }

    /// What is wrong is named so, and nothing has changed.
    fn refuses(&mut self, protocol: &str, request: &Value, codes: &[&str]) {
        let before = self.state(protocol);
        let answer = self.call(request);
        assert!(codes.iter().any(|code| answer["err"] == *code), "{request} gave {answer}");
        assert!(answer["text"].is_string());
        assert_eq!(self.state(protocol), before, "{request}");
    }
}

/// A request to start a session, and then one of each other kind: all of them good.
struct Good {
    process: Value,
    enc: Value,
    dec: Value,
    seal: Value,
    open: Value,
    empty: Value,
}

/// Two peers, the first of which has written to the second, which has read nothing yet.
fn good(protocol: &str) -> (Peer, Peer, Good) {
    let (mut romeo, mut juliet) = (Peer::default(), Peer::default());
    let bundle = juliet.call(&json!({ "op": "bundle", "protocol": protocol, "n": 1 }));
    let (name, from) = ("juliet@capulet.lit", "romeo@montague.lit");
    let process = json!({
        "op": "process", "protocol": protocol, "name": name, "dev": 1, "ik": bundle["ik"], "spkid": bundle["spkid"],
        "spk": bundle["spk"], "sig": bundle["sig"], "pkid": bundle["pks"][0][0], "pk": bundle["pks"][0][1],
    });
    assert_eq!(romeo.call(&process)["ok"], 1);
    let enc = json!({ "op": "enc", "protocol": protocol, "name": name, "dev": 1, "pt": "aGVsbG8=" });
    let sent = romeo.call(&enc);
    let dec = json!({
        "op": "dec", "protocol": protocol, "name": from, "dev": 1, "kex": sent["kex"], "ct": sent["ct"],
    });
    let seal = json!({
        "op": "seal", "protocol": protocol, "to": [[name, 1]], "from": from,
        "content": "<body xmlns='jabber:client'>hello</body>",
    });
    let encrypted = romeo.call(&seal)["encrypted"].clone();
    let open = json!({ "op": "open", "protocol": protocol, "from": from, "dev": 1, "encrypted": encrypted });
    let empty = json!({ "op": "empty", "protocol": protocol, "name": name, "dev": 1 });
    (romeo, juliet, Good { process, enc, dec, seal, open, empty })
}

fn with(request: &Value, field: &str, value: Value) -> Value {
    let mut request = request.clone();
    request[field] = value;
    request
}

fn bad_input_is_named(protocol: &str) {
    let (mut romeo, mut juliet, good) = good(protocol);
    let Good { process, enc, dec, seal, open, empty } = &good;

    // Each field of each request: missing, of another type, out of range.
    for request in [process, enc, seal, empty, dec, open] {
        let reads = request["op"] == "dec" || request["op"] == "open";
        let peer = if reads { &mut juliet } else { &mut romeo };
        for field in request.as_object().unwrap().keys().filter(|field| *field != "protocol") {
            // The sender's number stands in the element as well.
            let optional = field == "dev" && request["op"] == "open";
            if !optional {
                peer.refuses(protocol, &with(request, field, Value::Null), &["bad-request"]);
            }
            peer.refuses(protocol, &with(request, field, json!({ "not": "this" })), &["bad-request"]);
        }
        for number in [json!(0), json!(1_u64 << 31), json!(-1), json!(1.5), json!("1")] {
            for field in ["dev", "spkid", "pkid"].into_iter().filter(|field| request.get(field).is_some()) {
                let codes = ["bad-request", "address", "key-id"];
                peer.refuses(protocol, &with(request, field, number.clone()), &codes);
            }
        }
        if request.get("name").is_some() {
            for name in ["", "x@y/z", &"a".repeat(5000)] {
                peer.refuses(protocol, &with(request, "name", json!(name)), &["address"]);
            }
        }
    }

    // Keys: not base64, too short, too long, of low order, and a signature of somebody else.
    for key in ["ik", "spk", "pk"] {
        romeo.refuses(protocol, &with(process, key, json!("*")), &["bad-request"]);
        for bytes in ["", "BQ==", &"A".repeat(44), &"A".repeat(1 << 16)] {
            romeo.refuses(protocol, &with(process, key, json!(bytes)), &["bad-request", "key"]);
        }
    }
    romeo.refuses(protocol, &with(process, "sig", json!("AAAA")), &["signature"]);
    romeo.refuses(protocol, &with(process, "sig", json!("A".repeat(86) + "==")), &["signature"]);
    romeo.refuses(protocol, &with(process, "spk", process["pk"].clone()), &["signature"]);

    // Messages: cut, too long, made up, as something else, for a session that there is not.
    let whole = dec["ct"].as_str().unwrap();
    for cut in (0..whole.len()).step_by(4) {
        juliet.refuses(protocol, &with(dec, "ct", json!(whole[..cut])), &["malformed", "key", "forged"]);
    }
    juliet.refuses(protocol, &with(dec, "ct", json!("A".repeat(1 << 16))), &["malformed"]);
    if protocol == "omemo2" {
        // Legacy clients forget to mark their key exchanges, so there they are told by what they are.
        juliet.refuses(protocol, &with(dec, "kex", json!(false)), &["malformed"]);
    }
    juliet.refuses(protocol, &with(open, "encrypted", json!("<encrypted")), &["xml"]);
    juliet.refuses(protocol, &with(open, "encrypted", json!("<encrypted xmlns='urn:x'/>")), &["xml"]);
    romeo.refuses(protocol, &with(enc, "dev", json!(2)), &["no-session"]);
    romeo.refuses(protocol, &with(empty, "dev", json!(2)), &["no-session"]);
    romeo.refuses(protocol, &with(seal, "to", json!([])), &["encrypt"]);
    romeo.refuses(protocol, &with(seal, "to", json!([["juliet@capulet.lit"]])), &["bad-request"]);
    romeo.refuses(protocol, &with(seal, "content", json!("x".repeat(2 << 20))), &["too-long", "content"]);
    romeo.refuses(protocol, &with(enc, "op", json!("enk")), &["bad-request"]);

    // After all that, the prekey is there and the first message is read, once.
    let read = juliet.call(dec);
    assert_eq!((read["pt"].as_str(), read["used_prekey"].is_number()), (Some("aGVsbG8="), true), "{read}");
    juliet.refuses(protocol, dec, &["duplicate"]);
    assert_eq!(juliet.call(open)["content"].as_str().unwrap().matches("hello").count(), 1);
}

#[test]
fn omemo2() {
    bad_input_is_named("omemo2");
}

#[test]
fn legacy() {
    bad_input_is_named("legacy");
}

#[test]
fn what_is_no_request_at_all() {
    let mut peer = Peer::default();
    for line in [
        "",
        "{",
        "null",
        "[]",
        "1",
        "\"op\"",
        "{}",
        "{\"op\":\"bundle\"}",
        "{\"op\":\"bundle\",\"protocol\":\"omemo3\"}",
    ] {
        assert_eq!(peer.line(line)["err"], "bad-request", "{line}");
    }
    assert!(peer.line("{\"op\":\"bundle\",\"protocol\":\"legacy\"}")["ik"].is_string());
}
