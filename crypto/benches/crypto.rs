//! What the operations of a client cost, side by side with libsignal-client and vodozemac.
//!
//! `cargo bench -p multiend-crypto` measures both protocols and vodozemac with criterion, has `tests/interop` measure
//! libsignal-client in a loop inside its own process, and writes all figures to `target/bench/crypto.json`. An operation
//! begins and ends with bytes as they are on the wire; nothing is saved in between, except by libsignal-client, whose
//! interface saves a session whenever it is used.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use criterion::Criterion;
use multiend_crypto::{
    address::{Address, DeviceId},
    bundle::Bundle,
    device::Device,
    generation::{Legacy, Omemo2},
    protocol::{EncryptedElement, Protocol},
};
use serde_json::{Value, json};
use vodozemac::olm::{Account, OlmMessage, Session, SessionConfig};

/// As many bytes as OMEMO 2 sends through a session: the key of a payload and its tag.
const MATERIAL: [u8; 48] = [7; 48];

/// A short message in its envelope.
const TEXT: [u8; 400] = [b'x'; 400];

/// To how many devices a message goes.
const RECIPIENTS: [u32; 3] = [1, 10, 100];

fn main() {
    let home = root().join("target/bench");
    let mut criterion = Criterion::default()
        .output_directory(&home.join("criterion"))
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30)
        .configure_from_args();
    ours::<Omemo2>(&mut criterion);
    ours::<Legacy>(&mut criterion);
    vodozemac(&mut criterion);
    criterion.final_summary();
    // `cargo test` runs each benchmark once, and measures nothing.
    if std::env::args().any(|argument| argument == "--bench") {
        report(&home, &libsignal());
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn device<P: Protocol>(jid: &str, id: u32) -> (Device<P>, Address) {
    let device = Device::generate(jid, DeviceId::new(id).unwrap(), 0).unwrap();
    let address = Address::of_device(jid, device.id()).unwrap();
    (device, address)
}

/// Starts a session and has it answered.
fn connect<P: Protocol>(from: &mut Device<P>, sender: &Address, to: &mut Device<P>, recipient: &Address) {
    from.start_session(recipient, &to.bundle()).unwrap();
    let message = from.encrypt_empty(recipient).unwrap();
    to.decrypt(sender.jid(), &message).unwrap();
    let answer = to.encrypt_empty(sender).unwrap();
    from.decrypt(recipient.jid(), &answer).unwrap();
}

fn ours<P: Protocol>(criterion: &mut Criterion) {
    let (mut alice, to_alice) = device::<P>("alice@example.org", 1);
    let (mut bob, to_bob) = device::<P>("bob@example.org", 1);
    let mut group = criterion.benchmark_group(P::NAME);

    let bundle = bob.bundle();
    group.bench_function("session_start", |bencher| bencher.iter(|| alice.start_session(&to_bob, &bundle).unwrap()));
    group.bench_function("bundle_verify", |bencher| bencher.iter(|| bundle.verify().unwrap()));
    let xml = bundle.to_xml();
    group.bench_function("bundle_read", |bencher| bencher.iter(|| Bundle::<P>::from_xml(&xml).unwrap()));

    connect(&mut alice, &to_alice, &mut bob, &to_bob);
    group.bench_function("decrypt", |bencher| {
        bencher.iter_custom(|count| {
            let headers: Vec<_> = (0..count).map(|_| alice.encrypt_key_material(&MATERIAL, &to_bob).unwrap()).collect();
            let start = Instant::now();
            for header in &headers {
                bob.decrypt_key_material(&to_alice, header).unwrap();
            }
            start.elapsed()
        });
    });
    group.bench_function("decrypt_element", |bencher| {
        bencher.iter_custom(|count| {
            let messages: Vec<_> =
                (0..count).map(|_| alice.encrypt(&TEXT, std::slice::from_ref(&to_bob)).unwrap().write()).collect();
            let start = Instant::now();
            for message in &messages {
                bob.decrypt(to_alice.jid(), &P::Message::read(message).unwrap()).unwrap();
            }
            start.elapsed()
        });
    });

    let mut recipients = Vec::new();
    for id in 1..=100 {
        let (mut other, recipient) = device::<P>("many@example.org", id);
        connect(&mut alice, &to_alice, &mut other, &recipient);
        recipients.push(recipient);
    }
    for count in RECIPIENTS {
        let recipients = &recipients[..usize::try_from(count).unwrap()];
        group.bench_function(format!("encrypt_{count}"), |bencher| {
            bencher.iter(|| alice.encrypt(&TEXT, recipients).unwrap());
        });
    }
    group.finish();
}

/// The Double Ratchet of Matrix, in Rust and of the same shape. Its sessions start with three key agreements instead of four,
/// and its first step of the ratchet is taken by the other side. The signature of the one-time key, which is not checked by
/// vodozemac but by the client on it, is checked here too: both begin with keys that nobody has checked.
fn vodozemac(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("vodozemac");
    let alice = Account::new();
    let mut bob = Account::new();
    let one_time_key = |bob: &mut Account| {
        bob.generate_one_time_keys(1);
        let key = *bob.one_time_keys().values().next().unwrap();
        bob.mark_keys_as_published();
        key
    };
    let connect = |bob: &mut Account| -> (Session, Session) {
        let key = one_time_key(bob);
        let config = SessionConfig::version_1();
        let mut here = alice.create_outbound_session(config, bob.curve25519_key(), key).unwrap();
        let OlmMessage::PreKey(first) = here.encrypt(MATERIAL).unwrap() else { panic!() };
        let mut there = bob.create_inbound_session(config, alice.curve25519_key(), &first).unwrap().session;
        here.decrypt(&there.encrypt(MATERIAL).unwrap()).unwrap();
        (here, there)
    };

    let key = one_time_key(&mut bob);
    let identity = bob.curve25519_key();
    let (signature, signer) = (bob.sign(key.as_bytes()), bob.ed25519_key());
    group.bench_function("session_start", |bencher| {
        bencher.iter(|| {
            signer.verify(key.as_bytes(), &signature).unwrap();
            alice.create_outbound_session(SessionConfig::version_1(), identity, key).unwrap()
        });
    });
    group.bench_function("bundle_verify", |bencher| {
        bencher.iter(|| signer.verify(key.as_bytes(), &signature).unwrap());
    });
    let (mut here, mut there) = connect(&mut bob);
    group.bench_function("decrypt", |bencher| {
        bencher.iter_custom(|count| {
            let messages: Vec<_> = (0..count).map(|_| here.encrypt(MATERIAL).unwrap().to_parts()).collect();
            let start = Instant::now();
            for (kind, bytes) in &messages {
                there.decrypt(&OlmMessage::from_parts(*kind, bytes).unwrap()).unwrap();
            }
            start.elapsed()
        });
    });
    let mut sessions: Vec<Session> = (0..100).map(|_| connect(&mut Account::new()).0).collect();
    for count in RECIPIENTS {
        let sessions = &mut sessions[..usize::try_from(count).unwrap()];
        group.bench_function(format!("encrypt_{count}"), |bencher| {
            bencher.iter(|| {
                sessions.iter_mut().map(|session| session.encrypt(MATERIAL).unwrap().to_parts()).collect::<Vec<_>>()
            });
        });
    }
    group.finish();
}

/// Nanoseconds for each operation, as libsignal-client's process measures them.
fn libsignal() -> BTreeMap<String, f64> {
    let interop = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    let output = Command::new(interop.join("run.sh")).arg("--libsignal").stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "libsignal-client could not be installed");
    let modules = String::from_utf8(output.stdout).unwrap();
    let mut peer = Command::new("node")
        .arg(interop.join("libsignal_peer.js"))
        .env("NODE_PATH", modules.trim())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let request = json!({ "op": "bench", "material": STANDARD.encode(MATERIAL) });
    writeln!(peer.stdin.take().unwrap(), "{request}").unwrap();
    let answer: Value = serde_json::from_slice(&peer.wait_with_output().unwrap().stdout).unwrap();
    serde_json::from_value(answer["figures"].clone()).unwrap_or_else(|_| panic!("{answer}"))
}

/// Nanoseconds, and the bounds between which they are with 95 % confidence.
struct Measured {
    low: f64,
    median: f64,
    high: f64,
}

/// Writes `crypto.json`: each operation of each protocol, with the others' time for the same as its target, which holds
/// if it cannot be told from being missed.
fn report(home: &Path, libsignal: &BTreeMap<String, f64>) {
    let measured = |group: &str, operation: &str| -> Option<Measured> {
        let path = home.join("criterion").join(group).join(operation).join("new/estimates.json");
        let estimates: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        let median = &estimates["median"];
        let bound = |name: &str| median["confidence_interval"][name].as_f64();
        Some(Measured {
            low: bound("lower_bound")?,
            median: median["point_estimate"].as_f64()?,
            high: bound("upper_bound")?,
        })
    };
    let microseconds = |nanoseconds: f64| (nanoseconds / 10.0).round() / 100.0;
    let mut figures = Vec::new();
    for protocol in [Omemo2::NAME, Legacy::NAME] {
        let operations = ["session_start", "encrypt_1", "encrypt_10", "encrypt_100", "decrypt", "bundle_verify"];
        for operation in operations {
            let Some(value) = measured(protocol, operation) else { continue };
            let others = [
                ("libsignal", libsignal.get(operation).copied()),
                ("vodozemac", measured("vodozemac", operation).map(|other| other.high)),
            ];
            for (other, target) in others {
                let Some(target) = target else { continue };
                figures.push(json!({
                    "name": format!("{protocol} {operation}, against {other}"),
                    "value": microseconds(value.median),
                    "unit": "µs",
                    "target": format!("<= {}", microseconds(target)),
                    "holds": value.low <= target,
                }));
            }
        }
    }
    std::fs::create_dir_all(home).unwrap();
    let text = serde_json::to_string_pretty(&json!({ "figures": figures })).unwrap();
    std::fs::write(home.join("crypto.json"), text + "\n").unwrap();
}
