//! The demonstration: two people with two devices each, a real XMPP server, a real multiend, one story.
//!
//! `make demo`, or by hand after `cargo build --bins --examples`: `cargo run -p multiend-client --example demo -- [OPTIONS]`
//! (`options.rs`). Everything runs on loopback in temporary directories. The last line is JSON, computed from what the
//! devices read and what the database holds; the exit status is 0 only if all of it is as it should be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unreachable,
    missing_docs
)]

#[path = "../../../tests/devices/mod.rs"]
mod devices;
mod options;
mod outcome;
mod participant;
mod plaintext;
mod servers;
#[path = "../../../tests/slixmpp/mod.rs"]
mod slixmpp;
mod story;
#[path = "../../../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::Instant;

use options::{Options, USAGE};
use servers::Servers;

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let start = Instant::now();
    if options.keep {
        support::process::outlive_this_program();
    }
    let mut servers = Servers::start(options).await;
    let outcome = story::tell(&mut servers, options.clients).await;
    if options.keep {
        servers.leave_running();
    }
    for problem in outcome.problems() {
        println!("WRONG: {problem}");
    }
    let good = outcome.problems().is_empty();
    println!(
        "\n{} after {:.1} s.",
        if good { "All is well" } else { "Something is wrong" },
        start.elapsed().as_secs_f32()
    );
    println!("{}", outcome.to_json());
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
