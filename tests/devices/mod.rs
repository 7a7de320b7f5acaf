//! Devices as end-to-end tests speak of them: a reference client, what it has been told, and where its state is.
#![allow(dead_code, unreachable_pub)]

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use multiend_client::{CaughtUp, Client, Door, Event, Protocols, Received, SendOptions, Sent, Settings};
use tempfile::TempDir;
use xmpp_parsers::jid::BareJid;

use crate::support::{COMPONENT, DOMAIN, ports::loopback};

/// How long anything may take, on a machine that is busy with all the other tests.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// A server and a place for the devices' states.
pub struct World {
    c2s_port: u16,
    door: Door,
    states: TempDir,
}

impl World {
    /// Devices that log in at this port and use this door.
    pub fn new(c2s_port: u16, door: Door) -> Self {
        let states = tempfile::Builder::new().prefix("multiend-devices-").tempdir().unwrap();
        Self { c2s_port, door, states }
    }

    /// Devices that reach directory and archive through the usual component.
    pub fn behind_component(c2s_port: u16) -> Self {
        Self::new(c2s_port, Door::Alias { component: COMPONENT.parse().unwrap() })
    }

    /// The settings of a device of `user`, whose password is its name.
    pub fn settings(&self, user: &str, resource: &str) -> Settings {
        let state: PathBuf = self.states.path().join(format!("{user}-{resource}.json"));
        Settings::new(account(user), resource, user, loopback(self.c2s_port), self.door.clone(), state)
    }

    /// A device that is online.
    pub async fn device(&self, user: &str, resource: &str) -> Device {
        self.device_in(Protocols::default(), user, resource).await
    }

    /// A device that is online and writes in these protocols.
    pub async fn device_in(&self, protocols: Protocols, user: &str, resource: &str) -> Device {
        let mut settings = self.settings(user, resource);
        settings.protocols = protocols;
        let mut device = Device { settings, client: None, told: Mutex::default() };
        device.comes_back(self).await;
        device
    }
}

/// The account of a user of the tests' domain, or of one that is named with another domain.
pub fn account(user: &str) -> BareJid {
    if user.contains('@') { user.parse().unwrap() } else { format!("{user}@{DOMAIN}").parse().unwrap() }
}

/// One device of one user.
pub struct Device {
    settings: Settings,
    client: Option<Client>,
    told: Mutex<Vec<Event>>,
}

impl Device {
    /// The running client.
    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("the device is online")
    }

    /// Its account.
    pub fn jid(&self) -> BareJid {
        self.settings.account.clone()
    }

    /// Its name for people.
    pub fn name(&self) -> String {
        format!(
            "{}/{}",
            self.settings.account.node().map(ToString::to_string).unwrap_or_default(),
            self.settings.resource
        )
    }

    /// From the next start on it writes in these protocols.
    pub fn will_write_in(&mut self, protocols: Protocols) {
        self.settings.protocols = protocols;
    }

    /// Connects (again).
    pub async fn comes_back(&mut self, _: &World) {
        self.client = Some(Client::connect(self.settings.clone()).await.expect("the device connects"));
    }

    /// Closes in good order.
    pub async fn goes_away(&mut self) {
        self.drain();
        self.client.take().expect("the device is online").close().await.expect("the state is saved");
    }

    /// Stops as a crash would: nothing is saved that was not before, and what it was told is forgotten.
    pub fn crashes(&mut self) {
        self.client = None;
        self.told().clear();
    }

    /// Sends a text and waits for its acknowledgement.
    pub async fn says(&self, user: &str, body: &str) -> Sent {
        self.says_with(user, body, SendOptions::default()).await
    }

    /// The same with options.
    pub async fn says_with(&self, user: &str, body: &str, options: SendOptions) -> Sent {
        self.client().send(&account(user), body, options).await.unwrap_or_else(|error| panic!("{body}: {error}"))
    }

    /// Reads the archive to its end.
    pub async fn catches_up(&self) -> CaughtUp {
        self.client().catch_up().await.expect("the archive can be read")
    }

    /// Waits until it has this text from this user, once.
    pub async fn reads(&self, from: &str, body: &str) -> Received {
        let from = account(from);
        let found = |event: &Event| matches!(event, Event::Received(r) if r.from == from && r.body == body);
        match self.waits_for(body, found).await {
            Event::Received(received) => received,
            _ => panic!("only a message was looked for"),
        }
    }

    /// Waits for an event and takes it out of what it was told.
    pub async fn waits_for(&self, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        let search = async {
            loop {
                let at = self.told().iter().position(&wanted);
                if let Some(at) = at {
                    return self.told().remove(at);
                }
                let event = self.client().next_event().await;
                self.told().push(event);
            }
        };
        match tokio::time::timeout(DEADLINE, search).await {
            Ok(event) => event,
            Err(_) => panic!(
                "{}/{} waited in vain for {what}; it was told {:?}",
                self.jid(),
                self.settings.resource,
                self.told()
            ),
        }
    }

    /// Everything that it was told and that nobody has waited for.
    pub fn rest(&self) -> Vec<Event> {
        self.drain();
        self.told().clone()
    }

    /// Nothing came that it could not read.
    pub fn has_nothing_unreadable(&self) {
        let unreadable: Vec<Event> = self
            .rest()
            .into_iter()
            .filter(|event| matches!(event, Event::Undecryptable { .. } | Event::Failed { .. }))
            .collect();
        assert!(unreadable.is_empty(), "{}/{}: {unreadable:?}", self.jid(), self.settings.resource);
    }

    /// Whether its state says how far a user's history of devices has come.
    pub fn knows_history_of(&self, user: &str) -> bool {
        let state = std::fs::read_to_string(&self.settings.state_file).unwrap_or_default();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap_or_default();
        state["histories"][account(user).as_str()]["head"]["index"].as_u64().is_some_and(|index| index > 0)
    }

    fn drain(&self) {
        while let Some(event) = self.client.as_ref().and_then(Client::try_next_event) {
            self.told().push(event);
        }
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Vec<Event>> {
        self.told.lock().expect("no test panics while it holds this")
    }
}
