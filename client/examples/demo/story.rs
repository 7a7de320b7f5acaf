//! The story itself.

use std::time::Duration;

use multiend_client::{Protocol, Via};

use crate::devices::{DEADLINE, World};
use crate::options::Clients;
use crate::outcome::Outcome;
use crate::participant::{Leftover, Participant, Reading};
use crate::plaintext;
use crate::servers::Servers;
use crate::support::process::poll_async;
use crate::support::{DOMAIN, xmpp};

/// Messages in each direction while everybody is there.
const EACH_WAY: usize = 100;
/// How many of these are said in turn, so that each device has spoken to each other in both protocols.
const HELLOS: usize = 4;
/// Messages while one device is away.
const WHILE_AWAY: usize = 50;
/// After this the archive hides the message that expires.
const LIFE: Duration = Duration::from_secs(2);
/// What is sent in clear on purpose, to show that the search would find it.
const CONTROL: &str = "this-one-is-in-clear-on-purpose";

/// The four devices, in this order.
type People = [Participant; 4];
const ALICE_PHONE: usize = 0;
const ALICE_LAPTOP: usize = 1;
const BOB_PHONE: usize = 2;
const BOB_LAPTOP: usize = 3;

/// Tells it.
pub async fn tell(servers: &mut Servers, clients: Clients) -> Outcome {
    let mut outcome = Outcome::default();
    // Part of every text: what the database must not hold.
    let secret = format!("secret-{}", hex::encode(rand_bytes()));
    let world = servers.world();
    let mut people = everybody_publishes(&world, clients).await;
    everybody_talks(&mut people, &secret, &mut outcome).await;
    one_device_is_away(&world, &mut people, &secret, &mut outcome).await;
    one_message_expires(servers, &world, &mut people, &secret, &mut outcome).await;
    nothing_is_left_over(&mut people, &mut outcome);
    ask_the_database(servers, &secret, &mut outcome).await;
    for device in &mut people {
        device.goes_away().await;
    }
    outcome
}

/// In which protocol a message goes, for clients that have to be told: half of them in either.
fn protocol_of(number: usize) -> Protocol {
    if (number / 2).is_multiple_of(2) { Protocol::Omemo2 } else { Protocol::Legacy }
}

async fn everybody_publishes(world: &World, clients: Clients) -> People {
    println!("\n1. Everybody publishes: each device makes its keys and puts its bundle and itself into the directory.");
    let mut people = [
        Participant::join(clients, world, "alice", "phone").await,
        Participant::join(clients, world, "alice", "laptop").await,
        Participant::join(clients, world, "bob", "phone").await,
        Participant::join(clients, world, "bob", "laptop").await,
    ];
    for device in &mut people {
        device.meets_its_sibling().await;
        let (id, fingerprint) = device.identity().await;
        println!(
            "   {:<13} is device {id:>10}, fingerprint {}…",
            device.name(),
            fingerprint.get(..16).unwrap_or_default()
        );
    }
    people
}

async fn everybody_talks(people: &mut People, secret: &str, outcome: &mut Outcome) {
    println!("\n2. {EACH_WAY} messages each way, from all four devices, read by all the others.");
    let text = |from: &str, number: usize| format!("{from} says {secret} number {number}");
    let writers =
        |number: usize| [("alice", ALICE_PHONE + number % 2, "bob"), ("bob", BOB_PHONE + number % 2, "alice")];
    // Everybody says hello in turn, in either protocol: many clients lose messages when two begin a session at once.
    for number in 0..HELLOS {
        for (from, writer, to) in writers(number) {
            people[writer].says(to, &text(from, number), protocol_of(number)).await;
            all_but(people, &[writer], from, &text(from, number), protocol_of(number), outcome).await;
        }
    }
    let speak = async |devices: &mut [Participant], from: &str, to: &str| {
        for number in HELLOS..EACH_WAY {
            devices[number % 2].says(to, &text(from, number), protocol_of(number)).await;
        }
    };
    let (alice, bob) = people.split_at_mut(BOB_PHONE);
    tokio::join!(speak(alice, "alice", "bob"), speak(bob, "bob", "alice"));
    outcome.sent += 2 * EACH_WAY;
    for number in HELLOS..EACH_WAY {
        for (from, writer, _) in writers(number) {
            all_but(people, &[writer], from, &text(from, number), protocol_of(number), outcome).await;
        }
    }
    println!("   {} messages sent, read {} times.", outcome.sent, outcome.decrypted);
}

async fn one_device_is_away(world: &World, people: &mut People, secret: &str, outcome: &mut Outcome) {
    println!("\n3. alice's laptop goes away; {WHILE_AWAY} messages go to and fro; it comes back and catches up.");
    people[ALICE_LAPTOP].goes_away().await;
    let text = |number: usize| format!("while the laptop is away, {secret} number {number}");
    let writer = |number: usize| {
        if number.is_multiple_of(2) { ("bob", BOB_PHONE, "alice") } else { ("alice", ALICE_PHONE, "bob") }
    };
    for number in 0..WHILE_AWAY {
        let (from, speaker, to) = writer(number);
        people[speaker].says(to, &text(number), protocol_of(number)).await;
        outcome.sent += 1;
        all_but(people, &[speaker, ALICE_LAPTOP], from, &text(number), protocol_of(number), outcome).await;
    }
    people[ALICE_LAPTOP].comes_back(world).await;
    let pages = people[ALICE_LAPTOP].catches_up().await;
    let mut from_archive = 0;
    for number in 0..WHILE_AWAY {
        let (from, ..) = writer(number);
        let read = reads(&mut people[ALICE_LAPTOP], from, &text(number), protocol_of(number), outcome).await;
        from_archive += usize::from(read.via == Via::Archive);
    }
    outcome.expect(from_archive == WHILE_AWAY, || format!("only {from_archive} were read from the archive"));
    println!("   It fetched {pages} pages and read all {from_archive} from the archive.");
}

async fn one_message_expires(
    servers: &Servers,
    world: &World,
    people: &mut People,
    secret: &str,
    outcome: &mut Outcome,
) {
    println!("\n4. A message that lives {} seconds, sent while alice's laptop is away again.", LIFE.as_secs());
    let protocol = Protocol::Omemo2;
    people[ALICE_LAPTOP].goes_away().await;
    let (short, next) = (format!("short-lived {secret}"), format!("after the short-lived one {secret}"));
    people[BOB_PHONE].says_for("alice", &short, protocol, Some(LIFE)).await;
    reads(&mut people[BOB_LAPTOP], "bob", &short, protocol, outcome).await;
    let place = reads(&mut people[ALICE_PHONE], "bob", &short, protocol, outcome).await.place;
    people[BOB_PHONE].says("alice", &next, protocol).await;
    outcome.sent += 2;
    all_but(people, &[BOB_PHONE, ALICE_LAPTOP], "bob", &next, protocol, outcome).await;
    let Some(place) = place else {
        outcome.surprises.push("the short-lived message came without its place in the archive".to_owned());
        return;
    };
    wait_until_hidden(servers, &place).await;
    let laptop = &mut people[ALICE_LAPTOP];
    laptop.comes_back(world).await;
    laptop.catches_up().await;
    reads(laptop, "bob", &next, protocol, outcome).await;
    let told = laptop.leftovers();
    outcome.expired_visible +=
        told.iter().filter(|left| matches!(left, Leftover::Read(text) if *text == short)).count();
    let shown_gone = told.iter().any(|left| matches!(left, Leftover::Expired(at) if *at == place));
    outcome.expect(shown_gone, || "the laptop was not told that a message has expired".to_owned());
    println!("   alice's phone read it in time; the laptop finds its place empty and reads the message after it.");
}

/// Looks at alice's archive with a client that shares no code with ours, until the message at `place` is hidden.
async fn wait_until_hidden(servers: &Servers, place: &str) {
    let mut witness = Witness::new(servers).await;
    poll_async("the end of the short-lived message", DEADLINE, async || {
        let newest = witness.newest_of_archive().await;
        let result = newest.iter().find(|result| result.contains(place))?;
        (!result.contains("<encrypted")).then_some(())
    })
    .await;
}

fn nothing_is_left_over(people: &mut People, outcome: &mut Outcome) {
    for device in people {
        for left in device.leftovers() {
            match left {
                Leftover::Read(text) => {
                    outcome.surprises.push(format!("{} read once too often: {text}", device.name()));
                }
                Leftover::Surprise(what) => outcome.surprises.push(format!("{}: {what}", device.name())),
                Leftover::Expired(_) => {}
            }
        }
    }
}

async fn ask_the_database(servers: &mut Servers, secret: &str, outcome: &mut Outcome) {
    println!("\n5. What the database holds.");
    send_the_control(servers).await;
    let (status, totals, errors) = servers.multiend.command(&["admin", "stats", "--json"]);
    assert!(status.success(), "multiend admin stats: {errors}");
    let totals: serde_json::Value = serde_json::from_str(&totals).expect("multiend admin stats --json prints JSON");
    let number = |table: &str, field: &str| totals[table][field].as_u64().expect("a total");
    outcome.prekeys_issued = number("directory", "issued");
    outcome.prekeys_issued_twice = number("directory", "issued_twice");
    outcome.trimmed_bytes_saved = servers.multiend.metric("multiend_archive_trimmed_bytes_total") as u64;
    let stored = servers.multiend.metric("multiend_archive_copies_total{class=\"content\",result=\"stored\"}") as usize;
    let sent = outcome.sent;
    outcome.expect(stored == 2 * sent, || format!("{stored} copies of {sent} messages were archived"));
    println!(
        "   {} bundles; {} prekeys issued, {} of them twice.",
        number("directory", "bundles"),
        outcome.prekeys_issued,
        outcome.prekeys_issued_twice
    );
    println!(
        "   {} copies of {} messages in {} bytes; {} bytes of headers for others were not sent.",
        number("archive", "copies"),
        number("archive", "bodies"),
        number("archive", "body_bytes"),
        outcome.trimmed_bytes_saved
    );
    let values = plaintext::everything_in(&servers.database_url).await;
    let files: Vec<u8> =
        servers.data_directories().iter().flat_map(|directory| plaintext::everything_under(directory)).collect();
    let control = plaintext::count(&values, CONTROL);
    outcome.plaintext_found = plaintext::count(&values, secret) + plaintext::count(&files, secret);
    outcome.expect(control > 0, || "the search does not find what is known to be there in clear".to_owned());
    println!(
        "   Of what was encrypted, {} in clear in {} bytes of values and {} bytes of files; a control sent in clear \
         was found {control} time(s).",
        if outcome.plaintext_found == 0 { "nothing".to_owned() } else { format!("{} texts", outcome.plaintext_found) },
        values.len(),
        files.len()
    );
}

/// Sends one message in clear, which the archive keeps: the search must find it.
async fn send_the_control(servers: &Servers) {
    let mut careless = Witness::new(servers).await;
    let to = servers.address_of("bob");
    let control = format!("<message type='chat' id='control' to='{to}'><body>{CONTROL}</body></message>");
    careless.client.send_raw(&control).await;
    poll_async("the control in the archive", DEADLINE, async || {
        careless.newest_of_archive().await.iter().any(|result| result.contains(CONTROL)).then_some(())
    })
    .await;
}

/// A session of alice's on a client that shares no code with any other of the story.
struct Witness {
    client: xmpp::Client,
    archive: String,
}

impl Witness {
    async fn new(servers: &Servers) -> Self {
        let client = xmpp::Client::connect(servers.c2s_port(), DOMAIN, "alice", "witness").await;
        Self { client, archive: servers.address_of("alice") }
    }

    /// The newest results of alice's archive, as they are.
    async fn newest_of_archive(&mut self) -> Vec<String> {
        let query = "<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>10</max><before/>\
                     </set></query>";
        let fin = self.client.request("set", Some(&self.archive), query).await;
        assert_eq!(fin.attr("type"), Some("result"), "{fin:?}");
        self.client.everything_until_pong(DOMAIN).await.iter().map(String::from).collect()
    }
}

/// Has all devices read a message but these: its writer, and who is away.
async fn all_but(
    people: &mut People,
    but: &[usize],
    from: &str,
    text: &str,
    protocol: Protocol,
    outcome: &mut Outcome,
) {
    for (_, reader) in people.iter_mut().enumerate().filter(|(place, _)| !but.contains(place)) {
        reads(reader, from, text, protocol, outcome).await;
    }
}

/// Has a device read a message that it should read.
async fn reads(device: &mut Participant, from: &str, text: &str, protocol: Protocol, outcome: &mut Outcome) -> Reading {
    outcome.expected_reads += 1;
    let reading = device.reads(from, text, protocol).await;
    outcome.decrypted += 1;
    outcome.expect(reading.conversation != device.account(), || format!("{} saw a message to itself", device.name()));
    reading
}

fn rand_bytes() -> [u8; 8] {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("randomness");
    bytes
}
