//! The command line: what may be typed. What a command does is elsewhere; for operators' work, in `multiend::admin`.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use multiend::admin::restore_epoch::Declaration;
use multiend::model::{ArchiveId, DeviceId, Owner, Protocol};
use multiend::store::DevicePlace;

/// Where the configuration is looked for when nobody says where it is.
const DEFAULT_PATHS: [&str; 2] = ["./multiend.toml", "/etc/multiend/multiend.toml"];

/// Device directory and encrypted-aware archive for XMPP, as a component beside Prosody or ejabberd.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run until SIGTERM or SIGINT.
    Serve(ConfigPath),
    /// Say what is wrong with the configuration, or what it comes to: whether `serve` would start with it.
    CheckConfig(CheckConfig),
    /// Bring the database to the schema of this version. Safe to run twice, and by two at once.
    Migrate(ConfigPath),
    /// Work for operators, on the database; beside a running `multiend serve` or without.
    Admin(Admin),
}

/// Which configuration, and how much to try.
#[derive(Debug, Args)]
pub(crate) struct CheckConfig {
    #[command(flatten)]
    pub(crate) config: ConfigPath,
    /// Only read it: try neither the database nor the server.
    #[arg(long)]
    pub(crate) offline: bool,
}

/// Work for operators.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Admin {
    #[command(flatten)]
    pub(crate) config: ConfigPath,
    /// Print one line of JSON in place of a table.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: AdminCommand,
}

/// Which work. One file each in `src/admin/`.
#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Print how it stands: whether the service runs, and what waits.
    Status,
    /// Print what the database holds. It may read everything: not for each minute.
    Stats,
    /// List the owners that are known, in the order of their JIDs.
    Owners(Owners),
    /// Show an owner's devices: state, last sign of life, bundle, prekeys, fingerprint.
    Devices(OwnerArg),
    /// Take a device out of the list that everybody is given, until it shows itself or is listed again.
    Quarantine(Device),
    /// Put a quarantined device back into the list.
    Revive(Device),
    /// Take a device out of the list and retract its bundle, for good.
    Remove(Device),
    /// Print which identity keys a device has had, and since when.
    IdentityKeys(Device),
    /// Say that the database was restored from a backup: all prekeys in it are void. It can be stopped and resumed.
    RestoreEpoch(RestoreEpoch),
    /// Print what has expired and is still there, or remove it at once. It can be stopped, and goes on when it is run again.
    Retention {
        /// Remove it.
        #[arg(long)]
        run: bool,
    },
    /// Print what to back up of this configuration, and how.
    BackupHints,
    /// Print how far an owner's devices have read its archive.
    Cursors(OwnerArg),
    /// Write what is kept for an account to standard output, in the form of XEP-0227.
    Export(OwnerArg),
    /// Read archives of another server from files in the form of XEP-0227. It can be stopped and run again.
    Import {
        /// The files; - for standard input
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
    /// Delete everything about an account. There is no way back. It can be stopped, and goes on when it is run again.
    Erase {
        #[command(flatten)]
        of: OwnerArg,
        /// Yes, everything.
        #[arg(long, required = true)]
        yes: bool,
    },
    /// Messages that could not be stored for their own sake.
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
}

/// What to do with messages that could not be stored.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// Print them, without their content.
    List,
    /// Store those named, or all.
    Retry {
        /// Their names, as the list has them.
        #[arg(value_name = "LETTER", value_parser = letter)]
        letters: Vec<ArchiveId>,
    },
    /// Delete those named.
    Drop {
        /// Their names, as the list has them.
        #[arg(value_name = "LETTER", required = true, value_parser = letter)]
        letters: Vec<ArchiveId>,
    },
}

fn letter(text: &str) -> Result<ArchiveId, String> {
    ArchiveId::parse(text).map_err(|error| error.to_string())
}

/// Which account.
#[derive(Debug, Args)]
pub(crate) struct OwnerArg {
    /// The account, as alice@example.org
    #[arg(value_name = "OWNER", value_parser = |text: &str| Owner::parse(text).map_err(|error| error.to_string()))]
    pub(crate) owner: Owner,
}

/// Which owners.
#[derive(Debug, Args)]
pub(crate) struct Owners {
    /// Only those after this one, as the last of the page before
    #[arg(long, value_name = "OWNER", value_parser = Owner::parse)]
    pub(crate) after: Option<Owner>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

/// Which device.
#[derive(Debug, Args)]
pub(crate) struct Device {
    /// The account, as alice@example.org
    #[arg(value_parser = Owner::parse)]
    pub(crate) owner: Owner,
    /// legacy or omemo2
    #[arg(value_parser = protocol)]
    pub(crate) protocol: Protocol,
    /// Its id, 1 to 2147483647
    #[arg(value_parser = DeviceId::parse)]
    pub(crate) device: DeviceId,
}

impl From<Device> for DevicePlace {
    fn from(Device { owner, protocol, device }: Device) -> Self {
        Self { owner, protocol, device }
    }
}

fn protocol(name: &str) -> Result<Protocol, &'static str> {
    Protocol::ALL.into_iter().find(|protocol| protocol.name() == name).ok_or("write legacy or omemo2")
}

/// What is so with the database.
#[derive(Debug, Args)]
pub(crate) struct RestoreEpoch {
    /// It was not restored: it may be used as it is, and nothing becomes void.
    #[arg(long, conflicts_with = "resume")]
    confirm_current: bool,
    /// Go on with what an earlier call of this command has begun.
    #[arg(long)]
    resume: bool,
}

impl RestoreEpoch {
    /// What the operator says.
    pub(crate) fn declaration(&self) -> Declaration {
        match (self.confirm_current, self.resume) {
            (true, _) => Declaration::Current,
            (_, true) => Declaration::Resume,
            _ => Declaration::Restored,
        }
    }
}

/// Which configuration.
#[derive(Debug, Args)]
pub(crate) struct ConfigPath {
    /// The configuration; without this, ./multiend.toml or else /etc/multiend/multiend.toml
    #[arg(long, value_name = "PATH", env = "MULTIEND_CONFIG", global = true)]
    config: Option<PathBuf>,
}

/// Nobody has said where the configuration is, and it is nowhere where it is looked for.
#[derive(Debug, thiserror::Error)]
#[error("there is no configuration: neither {} exists; name one with --config or MULTIEND_CONFIG", DEFAULT_PATHS.join(" nor "))]
pub(crate) struct NoConfig;

impl ConfigPath {
    /// The path given; else the first default that exists.
    pub(crate) fn path(self) -> Result<PathBuf, NoConfig> {
        let default = || DEFAULT_PATHS.into_iter().find(|path| Path::new(path).exists()).map(PathBuf::from);
        self.config.or_else(default).ok_or(NoConfig)
    }
}
