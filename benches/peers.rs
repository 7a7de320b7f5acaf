//! What archiving costs an XMPP server: Prosody without an archive, with its own in files and in PostgreSQL, and with our
//! plugin and multiend on the same PostgreSQL. Not a part of `make bench`: `make bench-peers`.
//!
//! In each round every setup takes the same messages, from one account of the server to another, one after the other on a
//! fresh server; what counts is the processor time that each program used, which says the same on a busy machine. fsync is
//! on in PostgreSQL, and the plugin's journal is forced to disk. The end is when the last message is in the archives.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    unreachable_pub
)]

#[path = "support/figures.rs"]
mod figures;
#[path = "../tests/support/mod.rs"]
#[allow(unused)]
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use figures::Figures;
use support::DOMAIN;
use support::multiend::Multiend;
use support::plugin;
use support::postgres::{Fsync, Postgres};
use support::process::poll_async;
use support::prosody::Prosody;
use support::xmpp::Client;

const ROUNDS: usize = 3;
const MESSAGES: usize = 1_500;
/// Sent before the clock starts.
const WARM_UP: usize = 100;
/// Headers of a message: five devices on each side.
const HEADERS: usize = 10;
/// How long all of it may take to get into the archives.
const DEADLINE: Duration = Duration::from_secs(120);
/// Clock ticks a second in /proc, on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// What keeps the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Setup {
    Nothing,
    Files,
    Sql,
    Plugin,
}

impl Setup {
    const ALL: [Self; 4] = [Self::Nothing, Self::Files, Self::Sql, Self::Plugin];

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no archive",
            Self::Files => "own archive, files",
            Self::Sql => "own archive, PostgreSQL",
            Self::Plugin => "plugin",
        }
    }
}

/// Of one run, in microseconds a message, and messages a second.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    server: f64,
    database: f64,
    multiend: f64,
    rate: f64,
    /// Copies too many or too few in the archives.
    astray: u64,
}

fn main() {
    if !std::env::args().any(|argument| argument == "--peers") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let mut costs: BTreeMap<Setup, Vec<Cost>> = BTreeMap::new();
    for round in 0..ROUNDS {
        for setup in Setup::ALL {
            let cost = measure(setup).await;
            println!("round {round}, {}: {cost:.0?}", setup.name());
            costs.entry(setup).or_default().push(cost);
        }
    }
    let mut figures = Figures::default();
    let median = |setup: Setup, of: fn(&Cost) -> f64| {
        let mut values: Vec<f64> = costs[&setup].iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for setup in Setup::ALL {
        let name = |what: &str| format!("Prosody, {}: {what}", setup.name());
        figures.plain(&name("messages"), median(setup, |cost| cost.rate), "/s");
        figures.plain(&name("CPU of the server"), median(setup, |cost| cost.server), "us/message");
        let all = median(setup, |cost| cost.server + cost.database + cost.multiend);
        figures.plain(&name("CPU of server, database and multiend"), all, "us/message");
    }
    let server = |setup| median(setup, |cost| cost.server);
    figures.at_least(
        "Prosody: CPU with its own archive in PostgreSQL, over CPU with the plugin",
        server(Setup::Sql) / server(Setup::Plugin),
        "",
        2.0,
    );
    figures.plain(
        "Prosody: the same, without what it does for a message in any case",
        (server(Setup::Sql) - server(Setup::Nothing)) / (server(Setup::Plugin) - server(Setup::Nothing)).max(1.0),
        "",
    );
    let astray = costs[&Setup::Plugin].iter().map(|cost| cost.astray).sum();
    figures.none("Prosody, plugin: copies too many or too few in the archives", astray);
    figures.write("peers");
}

async fn measure(setup: Setup) -> Cost {
    let postgres = Postgres::start(Fsync::On);
    let url = postgres.fresh_database().await;
    let users = ["alice", "bob"];
    let own = |storage: &str| {
        let sql = format!(
            "sql = {{ driver = \"PostgreSQL\"; database = \"{}\"; username = \"postgres\"; password = \"\"; \
             host = \"127.0.0.1\"; port = {} }}",
            database_of(&url),
            postgres.port()
        );
        Prosody::builder().users(&users).module("mam").global(&sql).host(&format!(
            "archive_expires_after = \"never\"\nstorage = {{ archive = \"{storage}\" }}\ndefault_archive_policy = true"
        ))
    };
    let server = match setup {
        Setup::Nothing => Prosody::builder().users(&users).start(),
        Setup::Files => own("internal").start(),
        Setup::Sql => own("sql").start(),
        Setup::Plugin => plugin::prosody(&users).start(),
    };
    let mut multiend = (setup == Setup::Plugin)
        .then(|| Multiend::builder(server.component_port()).env("MULTIEND_LOG__LEVEL", "info").database(&url).start());
    let mut alice = Client::connect(server.c2s_port(), DOMAIN, "alice", "phone").await;
    let mut bob = Client::connect(server.c2s_port(), DOMAIN, "bob", "phone").await;
    alice.online().await;
    bob.online().await;
    exchange(&mut alice, &mut bob, 0..WARM_UP).await;
    archived(&multiend, WARM_UP).await;
    let pids = |multiend: &mut Option<Multiend>| {
        let database =
            processor_time(postgres.pid()) + children(postgres.pid()).into_iter().map(processor_time).sum::<f64>();
        let component = multiend.as_mut().map_or(0.0, |multiend| processor_time(multiend.process().pid()));
        [processor_time(server.pid()), database, component]
    };
    let before = pids(&mut multiend);
    let start = Instant::now();
    exchange(&mut alice, &mut bob, WARM_UP..WARM_UP + MESSAGES).await;
    archived(&multiend, WARM_UP + MESSAGES).await;
    let rate = MESSAGES as f64 / start.elapsed().as_secs_f64();
    let after = pids(&mut multiend);
    let used = |which: usize| (after[which] - before[which]) * 1e6 / MESSAGES as f64;
    let expected = 2.0 * (WARM_UP + MESSAGES) as f64;
    let astray = multiend.as_ref().map_or(0.0, |multiend| (stored(multiend) - expected).abs()) as u64;
    Cost { server: used(0), database: used(1), multiend: used(2), rate, astray }
}

/// Messages from the one to the other, until the last has arrived.
async fn exchange(alice: &mut Client, bob: &mut Client, numbers: std::ops::Range<usize>) {
    let last = format!("id='m{}'", numbers.end - 1);
    let keys: String =
        (0..HEADERS).map(|rid| format!("<key rid='{}'>{}</key>", 1000 + rid, "QUFB".repeat(33))).collect();
    let text = |n: usize| {
        format!(
            "<message type='chat' id='m{n}' to='bob@{DOMAIN}'><encrypted xmlns='eu.siacs.conversations.axolotl'>\
             <header sid='1'>{keys}<iv>AAAAAAAAAAAAAAAA</iv></header><payload>{}</payload></encrypted>\
             <store xmlns='urn:xmpp:hints'/></message>",
            "UGF5".repeat(40)
        )
    };
    let send = async {
        for n in numbers {
            alice.send_raw(&text(n)).await;
        }
    };
    let receive = async { while !bob.next_raw().await.expect("the stream goes on").contains(&last) {} };
    tokio::join!(send, receive);
}

/// Returns when so many messages are in both archives. The server's own are there when a message has arrived.
async fn archived(multiend: &Option<Multiend>, messages: usize) {
    let Some(multiend) = multiend else { return };
    poll_async("the archives", DEADLINE, async || (stored(multiend) >= 2.0 * messages as f64).then_some(())).await;
}

/// Copies in all archives of multiend.
fn stored(multiend: &Multiend) -> f64 {
    multiend.metric("multiend_archive_copies_total{class=\"content\",result=\"stored\"}")
}

/// What a process and those of its children that have ended have used, in seconds.
fn processor_time(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name of the program, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    // utime, stime, cutime, cstime: fields 14 to 17, of which two stand before the parenthesis.
    (ticks(11) + ticks(12) + ticks(13) + ticks(14)) / TICKS
}

fn children(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// The name of the database in a URL of the tests' PostgreSQL.
fn database_of(url: &str) -> &str {
    let path = url.split('?').next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}
