//! The `multiend` program: reads the command line and the configuration, then runs one command.
//!
//! Exit status: 0, done; 1, it failed; 2, the command line or the configuration is wrong.

mod cli;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use multiend::config::{self, Loaded};
use multiend::{ops, serve};
use tracing::warn;

use crate::cli::{Cli, Command};

/// Exit status for a wrong configuration; the same that the command line's parser has for a wrong command line.
const WRONG_CONFIG: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(config) => with_config(&config.path(), |loaded| run(serve_until_stopped(loaded))),
        Command::CheckConfig(config) => with_config(&config.path(), |loaded| show_config(&loaded)),
    }
}

fn with_config(path: &Path, command: impl FnOnce(Loaded) -> Result<(), Box<dyn Error>>) -> ExitCode {
    let loaded = match config::load(path, variables()) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(WRONG_CONFIG);
        }
    };
    match command(loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("multiend: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The environment, as far as it is text.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
}

fn run(command: impl Future<Output = Result<(), Box<dyn Error>>>) -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command)
}

fn show_config(loaded: &Loaded) -> Result<(), Box<dyn Error>> {
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    println!("{}", loaded.config);
    Ok(())
}

async fn serve_until_stopped(loaded: Loaded) -> Result<(), Box<dyn Error>> {
    ops::logging::start(&loaded.config.log)?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    Ok(serve::run(loaded.config).await?)
}
