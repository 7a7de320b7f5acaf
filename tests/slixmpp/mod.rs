//! A device on slixmpp and slixmpp-omemo, in a process of its own; see `peer.py`.
#![allow(dead_code)]

mod python;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use multiend_client::Protocol;
use serde_json::{Value, json};

use crate::devices::account;

/// How long it may take to log in, or to read a message.
const DEADLINE: Duration = Duration::from_secs(120);

/// A running peer. Its state outlives it in a file.
pub struct Peer {
    process: Child,
    commands: Option<ChildStdin>,
    events: Receiver<Value>,
    told: Vec<Value>,
    online: Value,
}

impl Peer {
    /// Logs `user` in, whose password is its name, with the OMEMO state of that file, whose name is its resource too; returns
    /// once it is published.
    pub fn start(c2s_port: u16, user: &str, state: &Path) -> Self {
        // With a resource of its own choice: only then does slixmpp tell servers what it wants to be notified of.
        let resource = state.file_stem().and_then(|name| name.to_str()).expect("a name");
        // It ends with its standard input, so with the test, however that ends.
        let mut process = python::script("peer.py")
            .args([&format!("{}/{resource}", account(user)), user, &c2s_port.to_string()])
            .arg(state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python runs");
        let commands = process.stdin.take();
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let mut peer = Self { process, commands, events, told: Vec::new(), online: Value::Null };
        peer.online = peer.waits_for("its login", |event| event["event"] == "online");
        peer
    }

    /// Its device id.
    pub fn device_id(&self) -> u64 {
        self.online["device"].as_u64().expect("a number")
    }

    /// The fingerprint of its identity key.
    pub fn fingerprint(&self) -> &str {
        self.online["fingerprint"].as_str().expect("a text")
    }

    /// Sends a text to every device of `user` in a protocol.
    pub fn says(&mut self, user: &str, protocol: Protocol, text: &str) {
        self.says_for(user, protocol, text, None);
    }

    /// The same; the archive hides it after a time, in whole seconds.
    pub fn says_for(&mut self, user: &str, protocol: Protocol, text: &str, timer: Option<Duration>) {
        self.obeys(&json!({
            "send": text, "to": account(user).as_str(), "protocol": name(protocol),
            "timer": timer.map(|timer| timer.as_secs()),
        }));
        self.waits_for(text, |event| event["event"] == "sent" && event["text"] == text);
    }

    /// How many other devices of its account it knows.
    pub fn siblings(&mut self) -> u64 {
        self.obeys(&json!({ "siblings": true }));
        self.waits_for("its siblings", |event| event["event"] == "siblings")["count"].as_u64().expect("a number")
    }

    /// Reads its archive to the end, and says in how many pages.
    pub fn catches_up(&mut self) -> usize {
        self.obeys(&json!({ "catch_up": true }));
        let done = self.waits_for("the end of the archive", |event| event["event"] == "caught_up");
        done["pages"].as_u64().and_then(|pages| usize::try_from(pages).ok()).expect("a number")
    }

    /// Waits until it has decrypted this text from this user in this protocol, and gives what it was told of it.
    pub fn reads(&mut self, user: &str, protocol: Protocol, text: &str) -> Value {
        let from = account(user);
        self.waits_for(text, |event| {
            event["event"] == "received"
                && event["text"] == text
                && event["from"] == from.as_str()
                && event["protocol"] == name(protocol)
        })
    }

    /// Takes out what it was told and nobody has waited for.
    pub fn take_rest(&mut self) -> Vec<Value> {
        self.told.extend(self.events.try_iter());
        std::mem::take(&mut self.told)
    }

    fn obeys(&mut self, command: &Value) {
        writeln!(self.commands.as_mut().expect("it runs"), "{command}").expect("it reads");
    }

    /// Logs out and ends. Nothing was left that a test did not wait for.
    pub fn goes_away(mut self) {
        self.commands = None;
        let start = Instant::now();
        while self.process.try_wait().expect("it can be waited for").is_none() {
            assert!(start.elapsed() < DEADLINE, "the peer does not end");
            std::thread::sleep(Duration::from_millis(15));
        }
        self.told.extend(self.events.try_iter());
        assert!(self.told.is_empty(), "not waited for: {:?}", self.told);
    }

    /// Takes out the first event that is wanted. A failure is the end of the test.
    pub fn waits_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(failed) = self.told.iter().find(|event| event["event"] == "failed") {
                panic!("the peer failed: {failed}");
            }
            if let Some(at) = self.told.iter().position(&wanted) {
                return self.told.remove(at);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => self.told.push(event),
                Err(_) => panic!("the peer waited in vain for {what}; it was told {:?}", self.told),
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Omemo2 => "omemo2",
        Protocol::Legacy => "legacy",
    }
}
