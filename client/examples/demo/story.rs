//! The story itself.

use std::time::Duration;

use multiend_client::{Event, SendOptions, Sent, Via};

use crate::devices::{DEADLINE, Device, World, account};
use crate::outcome::Outcome;
use crate::plaintext;
use crate::servers::Servers;
use crate::support::process::poll_async;
use crate::support::{COMPONENT, DOMAIN, xmpp};

/// Messages in each direction while everybody is there.
const EACH_WAY: usize = 100;
/// Messages while one device is away.
const WHILE_AWAY: usize = 50;
/// After this the archive hides the message that expires.
const LIFE: Duration = Duration::from_secs(2);
/// What is sent in clear on purpose, to show that the search would find it.
const CONTROL: &str = "this-one-is-in-clear-on-purpose";

/// The four devices.
struct People {
    alice_phone: Device,
    alice_laptop: Device,
    bob_phone: Device,
    bob_laptop: Device,
}

impl People {
    fn all(&self) -> [&Device; 4] {
        [&self.alice_phone, &self.alice_laptop, &self.bob_phone, &self.bob_laptop]
    }
}

/// Tells it.
pub async fn tell(servers: &mut Servers) -> Outcome {
    let mut outcome = Outcome::default();
    // Part of every text: what the database must not hold.
    let secret = format!("secret-{}", hex::encode(rand_bytes()));
    let world = World::behind_component(servers.prosody.c2s_port());
    let mut people = everybody_publishes(&world).await;
    everybody_talks(&people, &secret, &mut outcome).await;
    one_device_is_away(&world, &mut people, &secret, &mut outcome).await;
    one_message_expires(servers, &world, &mut people, &secret, &mut outcome).await;
    nothing_is_left_over(&people, &mut outcome);
    ask_the_database(servers, &secret, &mut outcome).await;
    for device in [people.alice_phone, people.alice_laptop, people.bob_phone, people.bob_laptop].iter_mut() {
        device.goes_away().await;
    }
    outcome
}

async fn everybody_publishes(world: &World) -> People {
    println!("\n1. Everybody publishes: each device makes its keys and puts its bundle and itself into the directory.");
    let people = People {
        alice_phone: world.device("alice", "phone").await,
        alice_laptop: world.device("alice", "laptop").await,
        bob_phone: world.device("bob", "phone").await,
        bob_laptop: world.device("bob", "laptop").await,
    };
    for device in people.all() {
        let fingerprint = device.client().fingerprint().await;
        println!(
            "   {:<13} is device {:>10}, fingerprint {}…",
            device.name(),
            device.client().device_id().await,
            fingerprint.get(..16).unwrap_or_default()
        );
    }
    people
}

async fn everybody_talks(people: &People, secret: &str, outcome: &mut Outcome) {
    println!("\n2. {EACH_WAY} messages each way, from all four devices, read by all the others.");
    let text = |from: &str, number: usize| format!("{from} says {secret} number {number}");
    let speak = async |devices: [&Device; 2], from: &str, to: &str| {
        for number in 0..EACH_WAY {
            devices[number % 2].says(to, &text(from, number)).await;
        }
    };
    tokio::join!(
        speak([&people.alice_phone, &people.alice_laptop], "alice", "bob"),
        speak([&people.bob_phone, &people.bob_laptop], "bob", "alice"),
    );
    outcome.sent += 2 * EACH_WAY;
    for number in 0..EACH_WAY {
        let [alice, bob] = [text("alice", number), text("bob", number)];
        let [alice_other, bob_other] = if number % 2 == 0 {
            [&people.alice_laptop, &people.bob_laptop]
        } else {
            [&people.alice_phone, &people.bob_phone]
        };
        for reader in [alice_other, &people.bob_phone, &people.bob_laptop] {
            reads(reader, "alice", &alice, outcome).await;
        }
        for reader in [bob_other, &people.alice_phone, &people.alice_laptop] {
            reads(reader, "bob", &bob, outcome).await;
        }
    }
    println!("   {} messages sent and acknowledged, read {} times.", outcome.sent, outcome.decrypted);
}

async fn one_device_is_away(world: &World, people: &mut People, secret: &str, outcome: &mut Outcome) {
    println!("\n3. alice's laptop goes away; {WHILE_AWAY} messages go to and fro; it comes back and catches up.");
    people.alice_laptop.goes_away().await;
    let text = |number: usize| format!("while the laptop is away, {secret} number {number}");
    for number in 0..WHILE_AWAY {
        let (speaker, from, to) =
            if number % 2 == 0 { (&people.bob_phone, "bob", "alice") } else { (&people.alice_phone, "alice", "bob") };
        speaker.says(to, &text(number)).await;
        outcome.sent += 1;
        let other = if number % 2 == 0 { &people.alice_phone } else { &people.bob_phone };
        for reader in [other, &people.bob_laptop] {
            reads(reader, from, &text(number), outcome).await;
        }
    }
    people.alice_laptop.comes_back(world).await;
    let caught_up = people.alice_laptop.catches_up().await;
    let mut from_archive = 0;
    for number in 0..WHILE_AWAY {
        let from = if number % 2 == 0 { "bob" } else { "alice" };
        let via = reads(&people.alice_laptop, from, &text(number), outcome).await;
        from_archive += usize::from(via == Some(Via::Archive));
    }
    outcome.expect(from_archive == WHILE_AWAY, || format!("only {from_archive} were read from the archive"));
    println!("   It fetched {} pages and read all {from_archive} from the archive.", caught_up.pages);
}

async fn one_message_expires(
    servers: &Servers,
    world: &World,
    people: &mut People,
    secret: &str,
    outcome: &mut Outcome,
) {
    println!("\n4. A message that lives {} seconds, sent while alice's laptop is away again.", LIFE.as_secs());
    people.alice_laptop.goes_away().await;
    let (short, next) = (format!("short-lived {secret}"), format!("after the short-lived one {secret}"));
    let options = SendOptions { expire_after: Some(LIFE) };
    people.bob_phone.says_with("alice", &short, options).await;
    reads(&people.bob_laptop, "bob", &short, outcome).await;
    let place = reads_at(&people.alice_phone, "bob", &short, outcome).await;
    let Sent { .. } = people.bob_phone.says("alice", &next).await;
    outcome.sent += 2;
    for reader in [&people.alice_phone, &people.bob_laptop] {
        reads(reader, "bob", &next, outcome).await;
    }
    let Some(place) = place else {
        outcome.surprises.push("the short-lived message came without its place in the archive".to_owned());
        return;
    };
    wait_until_hidden(servers, &place).await;
    people.alice_laptop.comes_back(world).await;
    people.alice_laptop.catches_up().await;
    reads(&people.alice_laptop, "bob", &next, outcome).await;
    let told = people.alice_laptop.rest();
    outcome.expired_visible +=
        told.iter().filter(|event| matches!(event, Event::Received(message) if message.body == short)).count();
    let shown_gone =
        told.iter().any(|event| matches!(event, Event::Expired { archive_id, .. } if *archive_id == place));
    outcome.expect(shown_gone, || "the laptop was not told that a message has expired".to_owned());
    println!("   alice's phone read it in time; the laptop finds its place empty and reads the message after it.");
}

/// Looks at alice's archive with a client that shares no code with ours, until the message at `place` is hidden.
async fn wait_until_hidden(servers: &Servers, place: &str) {
    let mut witness = xmpp::Client::connect(servers.prosody.c2s_port(), DOMAIN, "alice", "witness").await;
    let archive = format!("alice\\40{DOMAIN}@{COMPONENT}");
    poll_async("the end of the short-lived message", DEADLINE, async || {
        let query = "<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>10</max><before/>\
                     </set></query>";
        let fin = witness.request("set", Some(&archive), query).await;
        assert_eq!(fin.attr("type"), Some("result"), "{fin:?}");
        let results = witness.everything_until_pong(DOMAIN).await;
        let result = results.iter().map(String::from).find(|result| result.contains(place))?;
        (!result.contains("<encrypted")).then_some(())
    })
    .await;
}

fn nothing_is_left_over(people: &People, outcome: &mut Outcome) {
    for device in people.all() {
        for event in device.rest() {
            match event {
                Event::Received(message) => {
                    outcome.surprises.push(format!(
                        "{} read once too often: {}",
                        device.name(),
                        message.id.unwrap_or_default()
                    ));
                }
                Event::Undecryptable { .. }
                | Event::Failed { .. }
                | Event::DeviceSkipped { .. }
                | Event::HistoryBroken { .. }
                | Event::ArchiveRestarted => {
                    outcome.surprises.push(format!("{}: {event:?}", device.name()));
                }
                Event::DeviceListChanged { .. } | Event::Expired { .. } => {}
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
    let files = plaintext::everything_under(&servers.multiend.data_dir());
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
    let mut careless = xmpp::Client::connect(servers.prosody.c2s_port(), DOMAIN, "alice", "careless").await;
    careless
        .send_raw(&format!(
            "<message type='chat' id='control' to='bob\\40{DOMAIN}@{COMPONENT}'><body>{CONTROL}</body>\
             <request xmlns='urn:multiend:0'/></message>"
        ))
        .await;
    careless
        .wait_for("the acknowledgement of the control", |stanza| stanza.has_child("archived", "urn:multiend:0"))
        .await;
}

/// Has a device read a message that it should read. Says how it came.
async fn reads(device: &Device, from: &str, body: &str, outcome: &mut Outcome) -> Option<Via> {
    outcome.expected_reads += 1;
    let received = device.reads(from, body).await;
    outcome.decrypted += 1;
    let conversation = if device.jid() == received.from { received.conversation } else { received.from };
    outcome.expect(conversation != device.jid(), || format!("{} saw a message to itself", device.name()));
    Some(received.via)
}

/// The same; says where in the device's archive it is.
async fn reads_at(device: &Device, from: &str, body: &str, outcome: &mut Outcome) -> Option<String> {
    outcome.expected_reads += 1;
    let received = device.reads(from, body).await;
    outcome.decrypted += 1;
    outcome.expect(received.from == account(from), || "another sender".to_owned());
    received.archive_id
}

fn rand_bytes() -> [u8; 8] {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("randomness");
    bytes
}
