//! One run: the same messages through a server, and what each program used for them.

use std::ops::Range;
use std::time::{Duration, Instant};

use multiend::model::Protocol;
use tokio::task::JoinSet;

use crate::messages;
use crate::setup::{Archive, Server, Setup};
use crate::support::DOMAIN;
use crate::support::xmpp::Client;

/// Of each pair, sent before the clock starts.
const WARM_UP: usize = 50;
/// Mnesia's archive takes tens of milliseconds a message, and more the longer it is: one message in so many has to do.
const MNESIA_SHARE: usize = 20;
/// How long all of it may take to get into the archives.
const DEADLINE: Duration = Duration::from_secs(120);
/// How often it is looked whether they are there: to write its metrics costs multiend time, too.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// A server has come to rest when, for so long, all programs together used less than this share of one processor.
const REST: Duration = Duration::from_secs(1);
const REST_SHARE: f64 = 0.03;
/// How long that may take.
const REST_DEADLINE: Duration = Duration::from_secs(60);
/// Clock ticks a second in /proc, on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// What is sent: in each pair one writes to the other, all pairs at once.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub pairs: usize,
    /// Of all pairs together.
    pub messages: usize,
    /// Of all pairs together in a second, or as many as the server takes.
    pub rate: Option<f64>,
}

/// Of one run, in microseconds a message, and messages a second.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub server: f64,
    pub database: f64,
    pub multiend: f64,
    pub rate: f64,
    /// Copies too many or too few in the archives.
    pub astray: u64,
}

impl Cost {
    pub fn total(&self) -> f64 {
        self.server + self.database + self.multiend
    }
}

pub async fn measure(server: Server, archive: Archive, load: Load) -> Cost {
    let share = if (server, archive) == (Server::Ejabberd, Archive::Internal) { MNESIA_SHARE } else { 1 };
    let each = load.messages / load.pairs / share;
    let warm_up = WARM_UP / share;
    let users: Vec<String> = (0..load.pairs).flat_map(|n| [format!("alice{n}"), format!("bob{n}")]).collect();
    let setup = Setup::start(server, archive, &users.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut pairs = Vec::new();
    for pair in users.chunks(2) {
        let mut clients = Vec::new();
        for user in pair {
            let mut client = Client::connect(setup.c2s_port(), DOMAIN, user, "phone").await;
            client.online().await;
            clients.push(client);
        }
        pairs.push((clients.remove(0), clients.remove(0)));
    }
    at_rest(&setup).await;
    let copies = |messages: usize| (2 * messages * load.pairs) as u64;
    let pairs = exchange(pairs, 0..warm_up, None).await;
    archived(&setup, copies(warm_up)).await;
    let before = processor_times(&setup);
    let start = Instant::now();
    let interval = load.rate.map(|rate| Duration::from_secs_f64((load.pairs * share) as f64 / rate));
    exchange(pairs, warm_up..warm_up + each, interval).await;
    archived(&setup, copies(warm_up + each)).await;
    let messages = (each * load.pairs) as f64;
    let rate = messages / start.elapsed().as_secs_f64();
    let after = processor_times(&setup);
    let used = |which: usize| (after[which] - before[which]) * 1e6 / messages;
    let expected = copies(warm_up + each);
    let astray = setup.stored().await.map_or(0, |stored| stored.abs_diff(expected));
    Cost { server: used(0), database: used(1), multiend: used(2), rate, astray }
}

/// Messages from the one to the other of each pair, one after the other or at an interval, until the last has arrived.
async fn exchange(
    pairs: Vec<(Client, Client)>,
    numbers: Range<usize>,
    interval: Option<Duration>,
) -> Vec<(Client, Client)> {
    let mut conversations = JoinSet::new();
    let (start, count) = (tokio::time::Instant::now(), pairs.len());
    for (nth, (mut alice, mut bob)) in pairs.into_iter().enumerate() {
        let numbers = numbers.clone();
        conversations.spawn(async move {
            let to = bob.bare().to_owned();
            let (_, last) = message(&to, numbers.end - 1);
            let send = async {
                // No two pairs at the same moment.
                let mut next = start + interval.unwrap_or_default().mul_f64(nth as f64 / count as f64);
                for n in numbers {
                    if let Some(interval) = interval {
                        tokio::time::sleep_until(next).await;
                        next += interval;
                    }
                    alice.send_raw(&message(&to, n).0).await;
                }
            };
            let receive = async { while !bob.next_raw().await.expect("the stream goes on").contains(&last) {} };
            tokio::join!(send, receive);
            (alice, bob)
        });
    }
    conversations.join_all().await
}

/// The text of a message, and its id.
fn message(to: &str, n: usize) -> (String, String) {
    let n = n as u64;
    let text = messages::body(Protocol::Legacy, n, messages::parties(n));
    let id = text.split('\'').nth(3).expect("the id is the second attribute").to_owned();
    (text.replacen("<message ", &format!("<message to='{to}' "), 1), id)
}

/// Returns when so many copies are in multiend's archives. The servers' own are there when a message has arrived.
async fn archived(setup: &Setup, copies: u64) {
    let start = Instant::now();
    while setup.multiend.is_some() && setup.stored().await.is_some_and(|stored| stored < copies) {
        assert!(start.elapsed() < DEADLINE, "the archives do not fill");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Returns when nothing goes on that belongs to starting. ejabberd, when it serves already, reads all of its modules to compare
/// their checksums (`ejabberd:check_apps`), which takes it seconds of processor time: as much as thousands of messages.
async fn at_rest(setup: &Setup) {
    let start = Instant::now();
    let mut before: f64 = processor_times(setup).iter().sum();
    loop {
        tokio::time::sleep(REST).await;
        let after: f64 = processor_times(setup).iter().sum();
        if after - before < REST_SHARE * REST.as_secs_f64() {
            return;
        }
        assert!(start.elapsed() < REST_DEADLINE, "the servers do not come to rest");
        before = after;
    }
}

/// Of the server, the database and multiend, in seconds.
fn processor_times(setup: &Setup) -> [f64; 3] {
    let database = setup.postgres.pid();
    let backends = children(database).into_iter().map(processor_time).sum::<f64>();
    let multiend = setup.multiend.as_ref().map_or(0.0, |multiend| processor_time(multiend.pid()));
    [processor_time(setup.pid()), processor_time(database) + backends, multiend]
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
