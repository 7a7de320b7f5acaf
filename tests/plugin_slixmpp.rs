//! slixmpp with slixmpp-omemo, which nobody here wrote and which knows nothing of multiend, on a Prosody and on an ejabberd
//! with the plugin: two devices on each side, both protocols, at their own addresses. With them the reference client. Each
//! server and each database has its turn with the other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod devices;
mod slixmpp;
#[allow(unused)]
mod support;

use devices::World;
use multiend_client::{Door, Protocol, Protocols};
use slixmpp::Peer;
use support::DOMAIN;
use support::ejabberd::Ejabberd;
use support::multiend::Multiend;
use support::plugin::{Deployment, Kind, Server, Setup};
use support::ports::free_port;
use support::postgres::Postgres;
use support::prosody::Prosody;

struct Place<S> {
    setup: Setup<S>,
    states: tempfile::TempDir,
}

impl<S: Server> Place<S> {
    /// With multiend on a PostgreSQL database, or on SQLite.
    fn new(database: Option<&str>) -> Self {
        let server = Deployment::<S>::new(&["alice", "bob"]).start();
        let multiend = Multiend::builder(server.component_port());
        let multiend = match database {
            Some(url) => multiend.database(url).start(),
            None => multiend.start(),
        };
        Self { setup: Setup { server, multiend }, states: tempfile::tempdir().unwrap() }
    }

    /// A device on slixmpp; the same again if it has been there before.
    fn slixmpp(&self, user: &str, device: &str) -> Peer {
        let state = self.states.path().join(format!("{user}-{device}.json"));
        Peer::start(self.setup.server.c2s_port(), user, &state)
    }

    /// When a device of bob's published each of its bundles.
    fn published(&self, device: u64) -> Vec<(String, String)> {
        let bob = format!("bob@{DOMAIN}");
        let (status, devices, errors) = self.setup.multiend.command(&["admin", "devices", &bob, "--json"]);
        assert!(status.success(), "{errors}");
        let devices: serde_json::Value = serde_json::from_str(&devices).unwrap();
        let lines =
            devices["devices"].as_array().unwrap().iter().filter(|line| line["device"].as_u64() == Some(device));
        let published =
            |line: &serde_json::Value| ["protocol", "published_at"].map(|key| line[key].as_str().unwrap().into());
        lines.map(published).map(|[protocol, at]| (protocol, at)).collect()
    }

    /// What the database says: how many prekeys were issued, and that none was twice.
    fn issued(&self) -> u64 {
        let (status, stats, errors) = self.setup.multiend.command(&["admin", "stats", "--json"]);
        assert!(status.success(), "{errors}");
        let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
        assert_eq!(stats["directory"]["issued_twice"], 0, "{stats}");
        stats["directory"]["issued"].as_u64().unwrap()
    }
}

async fn two_devices_of_each_side_read_everything_in_both_protocols<S: Server>(database: Option<&str>) {
    let place = Place::<S>::new(database);
    let mut alice = [place.slixmpp("alice", "phone"), place.slixmpp("alice", "laptop")];
    let mut bob = [place.slixmpp("bob", "phone"), place.slixmpp("bob", "laptop")];
    for protocol in [Protocol::Omemo2, Protocol::Legacy] {
        for round in 0..3 {
            for (from, to, sender) in
                [("alice", "bob", 0), ("bob", "alice", 1), ("alice", "bob", 1), ("bob", "alice", 0)]
            {
                let text = format!("{from} {sender} {round} äöü <&>");
                let (senders, readers) = if from == "alice" { (&mut alice, &mut bob) } else { (&mut bob, &mut alice) };
                senders[sender].says(to, protocol, &text);
                for reader in readers {
                    reader.reads(from, protocol, &text);
                }
                let carbon = senders[1 - sender].reads(from, protocol, &text);
                assert_eq!(carbon["via"], "carbon");
                assert!(carbon["place"].is_string(), "a carbon names its place in the archive as well");
            }
        }
    }
    // A device that joins later reads what comes from then on.
    let mut tablet = place.slixmpp("bob", "tablet");
    for protocol in [Protocol::Omemo2, Protocol::Legacy] {
        alice[0].says("bob", protocol, &format!("welcome in {protocol:?}"));
        for reader in bob.iter_mut().chain([&mut tablet, &mut alice[1]]) {
            reader.reads("alice", protocol, &format!("welcome in {protocol:?}"));
        }
    }
    let issued = place.issued();
    assert!(issued > 0);
    let device = bob[0].device_id();
    let published = place.published(device);
    assert_eq!(published.len(), 2);
    // Who comes back compares what it published with what is there, finds it unchanged, and needs no new session.
    let [phone, mut laptop] = bob;
    phone.goes_away();
    let mut phone = place.slixmpp("bob", "phone");
    alice[1].says("bob", Protocol::Omemo2, "again");
    for device in [&mut phone, &mut laptop, &mut alice[0]] {
        device.reads("alice", Protocol::Omemo2, "again");
    }
    assert_eq!(place.issued(), issued, "no device has asked for another prekey");
    assert_eq!(place.published(device), published, "and it has not published again what is there");
    // Every message once in each archive: 12 rounds of one each, two welcomes, one more.
    let copies = place.setup.multiend.metric("multiend_archive_copies_total{class=\"content\",result=\"stored\"}");
    assert!(copies >= 2.0 * (24.0 + 2.0 + 1.0), "{copies}");
    laptop.goes_away();
}

async fn a_device_that_was_away_catches_up_from_the_archive<S: Server>(database: Option<&str>) {
    let place = Place::<S>::new(database);
    let world = World::new(place.setup.server.c2s_port(), Door::Direct);
    let mut bob = place.slixmpp("bob", "phone");
    let mut alice = world.device_in(Protocols::both(Protocol::Omemo2), "alice", "phone").await;
    let mut sibling = place.slixmpp("alice", "laptop");
    for protocol in [Protocol::Omemo2, Protocol::Legacy] {
        bob.says("alice", protocol, "hello");
        alice.reads("bob", "hello").await;
        sibling.reads("bob", protocol, "hello");
    }
    alice.goes_away().await;
    for number in 0..5 {
        for protocol in [Protocol::Omemo2, Protocol::Legacy] {
            let text = format!("while she was away {number} {protocol:?}");
            bob.says("alice", protocol, &text);
            sibling.reads("bob", protocol, &text);
        }
    }
    alice.comes_back(&world).await;
    alice.catches_up().await;
    for number in 0..5 {
        for protocol in [Protocol::Omemo2, Protocol::Legacy] {
            alice.reads("bob", &format!("while she was away {number} {protocol:?}")).await;
        }
    }
    alice.has_nothing_unreadable();
    assert!(place.setup.multiend.metric("multiend_archive_trimmed_bytes_total") > 0.0, "headers for others stay away");
    alice.says("bob", "all read").await;
    bob.reads("alice", Protocol::Omemo2, "all read");
    // And the other way: it is slixmpp that reads the archive.
    bob.goes_away();
    let texts: Vec<String> = (0..5).map(|number| format!("while he was away {number}")).collect();
    for text in &texts {
        alice.says("bob", text).await;
        sibling.reads("alice", Protocol::Omemo2, text);
    }
    let mut bob = place.slixmpp("bob", "phone");
    bob.catches_up();
    for text in &texts {
        let told = bob.reads("alice", Protocol::Omemo2, text);
        // Prosody keeps it for him besides, and gives it to who comes online before he asks the archive.
        assert!(told["via"] == "archive" || (S::KIND == Kind::Prosody && told["via"] == "live"), "{told}");
    }
    let rest = bob.take_rest();
    assert!(!rest.iter().any(|event| event["event"] == "received"), "each is read once: {rest:?}");
    bob.says("alice", Protocol::Omemo2, "read as well");
    alice.reads("bob", "read as well").await;
    place.issued();
}

async fn a_contact_on_another_server_reads_and_answers_in_both_protocols<S: Server>() {
    // The other server is a stock one; every machine finds it by its name.
    let (here, there) = (free_port(), free_port());
    let carol = "carol@localhost";
    let server = Deployment::<S>::new(&["alice"]).federates(here, "localhost", there).start();
    let other = Prosody::builder().domain("localhost").user("carol", carol).federates(there, &[(DOMAIN, here)]).start();
    let multiend = Multiend::builder(server.component_port()).start();
    let place = Place { setup: Setup { server, multiend }, states: tempfile::tempdir().unwrap() };
    let mut alice = vec![place.slixmpp("alice", "phone"), place.slixmpp("alice", "laptop")];
    let mut writer = Peer::start(other.c2s_port(), carol, &place.states.path().join("carol.json"));
    for protocol in [Protocol::Omemo2, Protocol::Legacy] {
        let text = format!("from there in {protocol:?}");
        writer.says("alice", protocol, &text);
        for device in &mut alice {
            device.reads(carol, protocol, &text);
        }
        let text = format!("from here in {protocol:?}");
        alice[0].says(carol, protocol, &text);
        writer.reads("alice", protocol, &text);
        alice[1].reads("alice", protocol, &text);
    }
    let issued = place.issued();
    assert!(issued >= 4, "one to carol for each device and protocol: {issued}");
    // No contact, she has subscribed to the list, and is told of a device that joins. ejabberd's PEP tells subscribers only
    // whose presence it sees, so of other servers only contacts (tests/plugin/federation.rs).
    if S::KIND == Kind::Ejabberd {
        return;
    }
    alice.push(place.slixmpp("alice", "tablet"));
    let tablet = alice.last_mut().unwrap();
    for protocol in [Protocol::Omemo2, Protocol::Legacy] {
        let start = std::time::Instant::now();
        let mut number = 0;
        // The news is on its way while she writes.
        while !tablet.take_rest().iter().any(|event| {
            event["event"] == "received" && event["from"] == carol && event["protocol"] == slixmpp::name(protocol)
        }) {
            assert!(start.elapsed() < devices::DEADLINE, "she does not write to the tablet in {protocol:?}");
            writer.says("alice", protocol, &format!("to the tablet too in {protocol:?}, {number}"));
            number += 1;
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }
    assert!(place.issued() >= issued + 2);
}

mod on_prosody {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_contact_on_another_server_reads_and_answers_in_both_protocols() {
        super::a_contact_on_another_server_reads_and_answers_in_both_protocols::<super::Prosody>().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_devices_of_each_side_read_everything_in_both_protocols() {
        super::two_devices_of_each_side_read_everything_in_both_protocols::<super::Prosody>(None).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_device_that_was_away_catches_up_from_the_archive() {
        let database = super::Postgres::shared().fresh_database().await;
        super::a_device_that_was_away_catches_up_from_the_archive::<super::Prosody>(Some(&database)).await;
    }
}

mod on_ejabberd {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_contact_on_another_server_reads_and_answers_in_both_protocols() {
        super::a_contact_on_another_server_reads_and_answers_in_both_protocols::<super::Ejabberd>().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_devices_of_each_side_read_everything_in_both_protocols() {
        let database = super::Postgres::shared().fresh_database().await;
        super::two_devices_of_each_side_read_everything_in_both_protocols::<super::Ejabberd>(Some(&database)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_device_that_was_away_catches_up_from_the_archive() {
        super::a_device_that_was_away_catches_up_from_the_archive::<super::Ejabberd>(None).await;
    }
}
