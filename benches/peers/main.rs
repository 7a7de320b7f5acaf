//! What archiving costs an XMPP server: Prosody and ejabberd, each without an archive, with its own in its own files and in
//! PostgreSQL, and with our plugin and multiend on PostgreSQL. Not a part of `make bench`: `make bench-peers`.
//!
//! In each round every setup takes the same OMEMO messages of 2.1 kB, between accounts of the server, one after the other on
//! a fresh server and a fresh database, every other round in reverse order; what counts is the processor time that each
//! program used, which says much the same on a busy machine. fsync is on in PostgreSQL, and the plugin's journal is forced to
//! disk, as is the default. It begins when the server has come to rest after its start, and ends when the last message is in
//! the archives. Ratios are those within a round, since a round has the same machine; of all rounds the median is told.
//!
//! `make bench-peers PEERS="--server ejabberd --rounds 1 --pairs 8 --messages 2000"` does less, or something else;
//! `--archives none,files,sql,plugin` with some of these does only those; `--rate 200` sends so many messages a second, where
//! otherwise as many are sent as the server takes.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    unreachable_pub
)]

#[path = "../support/figures.rs"]
mod figures;
#[path = "../support/messages.rs"]
#[allow(dead_code)]
mod messages;
mod run;
mod setup;
#[path = "../../tests/support/mod.rs"]
#[allow(unused)]
mod support;

use std::collections::BTreeMap;

use figures::{Figures, median};
use run::{Cost, Load};
use setup::{Archive, Server};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|argument| argument == "--peers") {
        return;
    }
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        Some(arguments.get(at + 1).unwrap_or_else(|| panic!("{name} what?")).as_str())
    };
    let number = |name: &str, default: usize| option(name).map_or(default, |text| text.parse().expect("a number"));
    let servers: Vec<Server> =
        Server::ALL.into_iter().filter(|server| option("--server").is_none_or(|name| name == server.name())).collect();
    assert!(!servers.is_empty(), "--server prosody or ejabberd");
    let archives: Vec<Archive> = Archive::ALL
        .into_iter()
        .filter(|archive| option("--archives").is_none_or(|words| words.split(',').any(|word| word == archive.word())))
        .collect();
    assert!(!archives.is_empty(), "--archives none,files,sql,plugin");
    let load = Load {
        pairs: number("--pairs", 4),
        messages: number("--messages", 4_000),
        rate: option("--rate").map(|text| text.parse().expect("a number")),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut figures = Figures::default();
    for server in servers {
        let costs = runtime.block_on(rounds(server, &archives, load, number("--rounds", 5)));
        report(server, &costs, &mut figures);
    }
    figures.write("peers");
}

/// What each archive cost in each round.
type Costs = BTreeMap<Archive, Vec<Cost>>;

async fn rounds(server: Server, archives: &[Archive], load: Load, rounds: usize) -> Costs {
    let mut costs = Costs::new();
    for round in 0..rounds {
        // What depends on the order, such as a disk that still writes, falls on all alike.
        let order: Vec<Archive> =
            if round % 2 == 0 { archives.to_vec() } else { archives.iter().copied().rev().collect() };
        for archive in order {
            let cost = run::measure(server, archive, load).await;
            println!("round {round}, {}, {}: {cost:.0?}", server.name(), archive.name());
            costs.entry(archive).or_default().push(cost);
        }
    }
    costs
}

fn report(server: Server, costs: &Costs, figures: &mut Figures) {
    let name = server.name();
    for (archive, costs) in costs {
        let mut plain = |what: &str, of: fn(&Cost) -> f64, unit: &str| {
            let value = median(costs.iter().map(of));
            figures.plain(&format!("{name}, {}: {what}", archive.name()), value, unit);
        };
        plain("messages", |cost| cost.rate, "/s");
        plain("CPU of the server", |cost| cost.server, "us/message");
        if matches!(archive, Archive::Sql | Archive::Plugin) {
            plain("CPU of the database", |cost| cost.database, "us/message");
        }
        if *archive == Archive::Plugin {
            plain("CPU of multiend", |cost| cost.multiend, "us/message");
        }
        plain("CPU of all of it", Cost::total, "us/message");
        let astray = costs.iter().map(|cost| cost.astray).sum();
        figures.none(&format!("{name}, {}: copies too many or too few", archive.name()), astray);
    }
    let [Some(nothing), Some(sql), Some(plugin)] =
        [Archive::Nothing, Archive::Sql, Archive::Plugin].map(|archive| costs.get(&archive))
    else {
        return;
    };
    // (none, own in SQL, plugin) of a round -> their ratio.
    let ratios = |of: fn(&Cost, &Cost, &Cost) -> f64| {
        let rounds = nothing.iter().zip(sql).zip(plugin);
        rounds.map(move |((nothing, sql), plugin)| of(nothing, sql, plugin))
    };
    let ratio = |of| median(ratios(of));
    let of_server = "CPU of the server with the plugin, over that with its own archive in PostgreSQL";
    let server_ratio: fn(&Cost, &Cost, &Cost) -> f64 = |_, sql, plugin| plugin.server / sql.server;
    figures.at_most(&format!("{name}: {of_server}"), ratio(server_ratio), "", 0.5);
    figures.plain(&format!("{name}: the same in the best round"), ratios(server_ratio).fold(f64::MAX, f64::min), "");
    figures.plain(&format!("{name}: the same in the worst round"), ratios(server_ratio).fold(0.0, f64::max), "");
    figures.plain(
        &format!("{name}: the same, the median, of what it uses beyond no archive"),
        ratio(|nothing, sql, plugin| (plugin.server - nothing.server) / (sql.server - nothing.server)),
        "",
    );
    figures.plain(
        &format!("{name}: CPU of all of it with the plugin, over that with its own archive in PostgreSQL"),
        ratio(|_, sql, plugin| plugin.total() / sql.total()),
        "",
    );
}
