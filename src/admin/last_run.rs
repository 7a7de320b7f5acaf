//! Whether the database is the one of the last run (DESIGN: directory invariant 9).
//!
//! A database that was restored from a backup takes prekeys for unissued that somebody has. Nothing in it can tell, so a
//! small file in the data directory remembers which deployment it was and how far it had come: a number in the database
//! that grows with every start, and every [`INTERVAL`] while prekeys are handed out. If the database is behind the file, or
//! another one, it is doubted: no instance hands out prekeys until the operator has spoken ([`super::restore_epoch`]).
//! Everything else goes on.
//!
//! What it cannot see: a backup no older than the last [`INTERVAL`]; a restore of the file together with the database; and
//! a restore at an instance that has no file yet.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntGauge, Registry};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::{Clock, Timestamp};
use crate::store::{Deployment, SharedStore, StoreError};

/// The file's name in the data directory. It is no part of a backup.
pub const FILE: &str = "last-run.json";
/// How often the progress is counted on while prekeys are handed out, and how often the database is looked at otherwise.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// How long after the first hand-out since the last count, and how often a doubted database is looked at.
const TICK: Duration = Duration::from_secs(1);
/// The only version of the file that there is.
const VERSION: u32 = 1;

/// Why the file cannot be used, or not be made.
#[derive(Debug, thiserror::Error)]
pub enum LastRunError {
    /// Reading or writing failed.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It holds something else.
    #[error("{} is not what an earlier run wrote: {reason}. If the database was not restored from a backup, remove the file", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The database.
    #[error("database: {0}")]
    Store(#[from] StoreError),
}

/// Why a database is not trusted to know which prekeys are unissued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// It has gone back.
    #[error("the database is older than it was at the last run (at step {found}, it was at {known})")]
    Older {
        /// How far it is.
        found: u64,
        /// How far it was.
        known: u64,
    },
    /// It is not the database of the last run.
    #[error("the database is another one than at the last run")]
    Other,
    /// An instance has found one of these.
    #[error("an instance, or an earlier start, has found the database older than it was")]
    Told,
}

/// What is remembered of the last run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    deployment: String,
    progress: u64,
    /// When this was so, in microseconds since 1970.
    at: i64,
}

/// Whether to doubt a database.
fn judge(known: Option<&Record>, found: &Deployment) -> Option<Doubt> {
    if found.doubted {
        let doubt = known.and_then(|known| compare(known, found));
        return Some(doubt.unwrap_or(Doubt::Told));
    }
    known.and_then(|known| compare(known, found))
}

fn compare(known: &Record, found: &Deployment) -> Option<Doubt> {
    // The operator has spoken since this was written down.
    if found.confirmed_at.is_some_and(|at| at.micros() > known.at) {
        return None;
    }
    if known.deployment != hex::encode(found.id) {
        return Some(Doubt::Other);
    }
    (found.progress < known.progress).then_some(Doubt::Older { found: found.progress, known: known.progress })
}

/// Watches over the database from the start to the end of an instance.
pub struct LastRun {
    path: PathBuf,
    store: SharedStore,
    clock: Arc<dyn Clock>,
    known: Option<Record>,
    doubt: watch::Sender<Option<Doubt>>,
    doubted: IntGauge,
}

impl LastRun {
    /// Compares the database with the file in a data directory, before anything is handed out. A doubted database is no
    /// error.
    pub async fn begin(
        data_dir: &Path,
        store: SharedStore,
        clock: Arc<dyn Clock>,
        registry: &Registry,
    ) -> Result<Self, LastRunError> {
        let doubted = IntGauge::new(
            "multiend_directory_unconfirmed",
            "1 while no prekeys are handed out because the database may have been restored from a backup",
        )
        .and_then(|gauge| registry.register(Box::new(gauge.clone())).map(|()| gauge))
        .map_err(StoreError::Metrics)?;
        let path = data_dir.join(FILE);
        let known = read(&path)?;
        let mut run = Self { path, store, clock, known, doubt: watch::Sender::new(None), doubted };
        if run.known.is_none() {
            make_directory(data_dir)?;
        }
        run.look(true).await?;
        Ok(run)
    }

    /// Why the database is doubted, while it is.
    pub fn doubt(&self) -> watch::Receiver<Option<Doubt>> {
        self.doubt.subscribe()
    }

    /// Watches until `stop` is cancelled, and then writes down how far it has come. `issued` counts hand-outs since the start.
    pub async fn run(mut self, issued: impl Fn() -> u64 + Send, stop: CancellationToken) {
        let (mut counted, mut looked) = (0, Instant::now());
        let mut has_rested = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(TICK) => {}
            }
            // Before the last look: what was issued while an earlier one went on still counts.
            let is_last = stop.is_cancelled();
            let now_issued = issued();
            let advance = now_issued != counted;
            let is_doubted = self.doubt.borrow().is_some();
            let is_due = is_doubted || (advance && (has_rested || is_last)) || looked.elapsed() >= INTERVAL;
            if is_due {
                match self.look(advance).await {
                    Ok(()) => (counted, has_rested) = (now_issued, !advance),
                    Err(LastRunError::Store(error)) => tracing::debug!(%error, "the progress could not be counted"),
                    Err(error) => tracing::error!(%error, "how far the database has come cannot be written down"),
                }
                looked = Instant::now();
            }
            if is_last {
                return;
            }
        }
    }

    /// Looks at the database, counts on if that is due, and writes down what is so.
    async fn look(&mut self, advance: bool) -> Result<(), LastRunError> {
        let was_doubted = self.doubt.borrow().is_some();
        let mut found = self.store.deployment().await?;
        let mut doubt = judge(self.known.as_ref(), &found);
        if doubt.is_none() && (advance || was_doubted) {
            found = self.store.advance().await?;
            doubt = judge(self.known.as_ref(), &found);
        }
        match doubt {
            Some(doubt) => {
                if !found.doubted {
                    self.store.doubt().await?;
                }
                if !was_doubted {
                    tracing::error!(
                        "{doubt}: no prekeys are handed out. If it was restored from a backup, run `multiend admin \
                         restore-epoch`; if it was not, run `multiend admin restore-epoch --confirm-current`"
                    );
                }
            }
            None => {
                if was_doubted {
                    tracing::info!(
                        epoch = found.epoch,
                        "the operator has confirmed the database; prekeys are handed out again"
                    );
                }
                self.write_down(&found).await?;
            }
        }
        self.doubted.set(i64::from(doubt.is_some()));
        self.doubt.send_if_modified(|known| std::mem::replace(known, doubt) != doubt);
        Ok(())
    }

    async fn write_down(&mut self, found: &Deployment) -> Result<(), LastRunError> {
        let deployment = hex::encode(found.id);
        let is_known = |known: &Record| known.deployment == deployment && known.progress == found.progress;
        if self.known.as_ref().is_some_and(is_known) {
            return Ok(());
        }
        let at: Timestamp = self.clock.now();
        let record = Record { version: VERSION, deployment, progress: found.progress, at: at.micros() };
        let (path, written) = (self.path.clone(), record.clone());
        let result = tokio::task::spawn_blocking(move || write(&path, &written)).await;
        result.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| self.file_error(error))?;
        self.known = Some(record);
        Ok(())
    }

    fn file_error(&self, error: io::Error) -> LastRunError {
        LastRunError::File { path: self.path.clone(), error }
    }
}

fn make_directory(path: &Path) -> Result<(), LastRunError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| LastRunError::File { path: path.to_owned(), error })
}

fn read(path: &Path) -> Result<Option<Record>, LastRunError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LastRunError::File { path: path.to_owned(), error }),
    };
    let wrong = |reason: String| LastRunError::Content { path: path.to_owned(), reason };
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    if record.version == VERSION { Ok(Some(record)) } else { Err(wrong(format!("version {}", record.version))) }
}

/// Replaces the file as a whole: after a crash it is the old one or the new one.
fn write(path: &Path, record: &Record) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_data()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => File::open(directory)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests;
