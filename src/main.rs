//! The `multiend` program: reads the command line and the configuration, then runs one command.
//!
//! Exit status: 0, done; 1, it failed; 2, the command line or the configuration is wrong; 130, it was interrupted.

mod cli;

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read, Write as _};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;
use multiend::admin::dead_letters;
use multiend::admin::identity_keys::identity_keys;
use multiend::admin::import::{Imported, Importer};
use multiend::admin::long_work::{OnProgress, Progress};
use multiend::admin::restore_epoch::restore_epoch;
use multiend::admin::retention;
use multiend::archive::archive_id::ArchiveIds;
use multiend::config::{self, Config, Loaded};
use multiend::model::SystemClock;
use multiend::ops::reload::Reload;
use multiend::{admin, check, ops, serve, store};
use serde::Serialize;
use tracing::{error, info, warn};

use crate::cli::{Admin, AdminCommand, CheckConfig, Cli, Command, ConfigPath, DeadLettersCommand, Owners};

/// Reading stanzas takes many small pieces of memory, and a fifth of a copy's processor time with the allocator of glibc.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a command comes to.
type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Exit status for a wrong configuration; the same that the command line's parser has for a wrong command line.
const WRONG_CONFIG: u8 = 2;
/// Exit status for work that was stopped before its end, as shells have it.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(config) => with_config(config, |path, loaded| run(serve_until_stopped(path, loaded))),
        Command::CheckConfig(CheckConfig { config, offline }) => {
            with_config(config, |_, loaded| run(show_config(loaded, offline)))
        }
        Command::Migrate(config) => with_config(config, |_, loaded| run(migrate(loaded.config))),
        Command::Admin(Admin { config, json, command }) => {
            with_config(config, |_, loaded| run(admin_work(command, loaded.config, json)))
        }
    }
}

fn with_config(path: ConfigPath, command: impl FnOnce(PathBuf, Loaded) -> Outcome) -> ExitCode {
    let load = |path: PathBuf| config::load(&path, variables()).map(|loaded| (path, loaded));
    let loaded = path.path().map_err(Box::<dyn Error>::from).and_then(|path| Ok(load(path)?));
    let (path, loaded) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(WRONG_CONFIG);
        }
    };
    match command(path, loaded) {
        Ok(status) => status,
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

fn run(command: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command)
}

/// Says what the configuration comes to. The exit status says whether `multiend serve` would start.
async fn show_config(loaded: Loaded, offline: bool) -> Outcome {
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    println!("{}", loaded.config);
    if offline {
        return Ok(ExitCode::SUCCESS);
    }
    let findings = check::check(&loaded.config).await;
    print!("\n{findings}");
    Ok(if findings.would_start() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn serve_until_stopped(path: PathBuf, loaded: Loaded) -> Outcome {
    let log = ops::logging::start(&loaded.config.log)?;
    let reload = Reload::new(loaded.given.clone(), log, move || config::load(&path, variables()))?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let config = &loaded.config;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        component = %config.component_name,
        server = %config.component.server,
        database = %config.database,
        "starting"
    );
    loaded.config.database.create_directory()?;
    match serve::run(loaded.config, reload).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            // In the log, where the operator has been reading, and in its format.
            error!("{error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn migrate(config: Config) -> Outcome {
    config.database.create_directory()?;
    store::migrate(config.database.expose()).await?;
    Ok(ExitCode::SUCCESS)
}

async fn admin_work(command: AdminCommand, config: Config, json: bool) -> Outcome {
    if matches!(command, AdminCommand::BackupHints) {
        return print(&admin::backup_hints::backup_hints(&config), json);
    }
    let store = store::open(config.database.expose(), 1).await?;
    let (store, clock) = (store.as_ref(), &SystemClock);
    match command {
        AdminCommand::Status => {
            let service = ops::probe::service(config.http.listen).await;
            print(&admin::status::status(store, clock, service).await?, json)
        }
        AdminCommand::Retention { run: false } => print(&retention::dry_run(store, clock).await?, json),
        AdminCommand::Retention { run: true } => {
            let run = retention::run(store, clock, config.archive.purge_batch, until_interrupted()?).await?;
            print(&run, json).map(|status| if run.complete { status } else { ExitCode::from(INTERRUPTED) })
        }
        // Answered above, without a database.
        AdminCommand::BackupHints => Ok(ExitCode::SUCCESS),
        AdminCommand::Stats => print(&admin::stats::stats(store).await?, json),
        AdminCommand::Owners(Owners { after, limit }) => {
            print(&admin::owners::owners(store, after.as_ref(), limit).await?, json)
        }
        AdminCommand::Devices(of) => print(&admin::devices::devices(store, &of.owner).await?, json),
        AdminCommand::Quarantine(device) => print(&admin::device::quarantine(store, device.into(), clock).await?, json),
        AdminCommand::Revive(device) => {
            let limit = config.directory.max_devices;
            print(&admin::device::revive(store, device.into(), limit, clock).await?, json)
        }
        AdminCommand::Remove(device) => print(&admin::device::remove(store, device.into(), clock).await?, json),
        AdminCommand::Cursors(of) => print(&admin::cursors::cursors(store, &of.owner).await?, json),
        AdminCommand::Export(of) => {
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            admin::export::export(store, clock, &of.owner, &mut out).await?;
            Ok(ExitCode::SUCCESS)
        }
        AdminCommand::Import { files } => {
            let ids = ArchiveIds::new(&store.archive_id_secret().await?);
            let retention = serve::retention(&config);
            let importer = Importer { store, clock, domains: &config.domains, retention, ids };
            print(&import(&importer, &files).await?, json)
        }
        // The parser has seen to it that they said yes.
        AdminCommand::Erase { of, yes: _ } => {
            let erasure = admin::erase::erase(store, &of.owner, until_interrupted()?).await?;
            print(&erasure, json).map(|status| if erasure.complete { status } else { ExitCode::from(INTERRUPTED) })
        }
        AdminCommand::DeadLetters(command) => match command {
            DeadLettersCommand::List => print(&dead_letters::list(store).await?, json),
            DeadLettersCommand::Retry { letters } => print(&dead_letters::retry(store, &letters).await?, json),
            DeadLettersCommand::Drop { letters } => print(&dead_letters::drop_letters(store, &letters).await?, json),
        },
        AdminCommand::IdentityKeys(of) => print(&identity_keys(store, &of.owner, of.protocol, of.device).await?, json),
        AdminCommand::RestoreEpoch(what) => {
            let done = restore_epoch(store, clock, what.declaration(), until_interrupted()?).await?;
            print(&done, json).map(|status| if done.complete { status } else { ExitCode::from(INTERRUPTED) })
        }
    }
}

/// Shows on standard error how far a command is, and stops it between two steps at the first SIGINT or SIGTERM.
fn until_interrupted() -> std::io::Result<impl OnProgress> {
    let stop = ops::shutdown::on_signal()?;
    Ok(move |progress: Progress| {
        eprintln!("{progress}");
        if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}

/// Imports files, one after the other.
async fn import<S: store::Store + ?Sized>(
    importer: &Importer<'_, S>,
    files: &[PathBuf],
) -> Result<Imported, Box<dyn Error>> {
    let mut done = Imported::default();
    let progress = |done: &Imported| eprintln!("{} read, {} stored", done.read, done.stored);
    for file in files {
        let input: Box<dyn Read> = match file.to_str() {
            Some("-") => Box::new(std::io::stdin()),
            _ => Box::new(File::open(file).map_err(|error| format!("{}: {error}", file.display()))?),
        };
        let imported = importer.import(BufReader::new(input), &mut done, progress).await;
        imported.map_err(|error| format!("{}: {error}\nuntil then: {done}", file.display()))?;
    }
    Ok(done)
}

/// Prints what a command has to say.
fn print(report: &(impl Serialize + fmt::Display), json: bool) -> Outcome {
    let text = if json { format!("{}\n", serde_json::to_string(report)?) } else { report.to_string() };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Somebody has read as much as they wanted, as with `| head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => Ok(written.map(|()| ExitCode::SUCCESS)?),
    }
}
