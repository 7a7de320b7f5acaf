//! What a device must not forget, and the file that it is kept in.
//!
//! The whole state is one file, replaced as a whole: written beside, flushed to disk, renamed. A crash leaves the old
//! state or the new one. The order in which the rest of the crate works rests on that:
//!
//! - *saved before sent*: no message key and no prekey is used for two messages;
//! - *text saved with the ratchet that it took*: a message whose key is gone is in [`State::inbox`] until the caller
//!   has had it.
//!
//! The file holds private keys and is readable by its owner only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use xmpp_parsers::jid::BareJid;

use crate::event::Received;
use crate::history::chain::Ledger;
use crate::protocol::{Protocol, RemoteDevice};
use crate::seen::Seen;

/// The version of the file's form.
const VERSION: u32 = 2;
/// The largest state file that is read, in bytes.
const MAX_LENGTH: u64 = 64 * 1024 * 1024;

/// Why a state file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system said no.
    #[error("the state file {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Another running client has the file.
    #[error("the state file {path} is in use by another client")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// The file is not the state of a client, or of a later version.
    #[error("the state file {path} cannot be used: {reason}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A message that was encrypted and not yet acknowledged. It is sent again as it is until it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outgoing {
    pub(crate) id: String,
    pub(crate) peer: BareJid,
    /// The whole stanza.
    pub(crate) stanza: String,
}

/// What is known of the device lists of one protocol.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Lists {
    /// Whether this device's bundle and its place in the account's list have been published.
    pub(crate) registered: bool,
    /// The device lists of this account and of those it talks to.
    pub(crate) devices: BTreeMap<BareJid, Vec<u32>>,
    /// The digest of this account's list as this device last read it (`urn:multiend:0`).
    #[serde(default)]
    pub(crate) own_digest: Option<String>,
    /// The accounts whose device lists are subscribed to.
    pub(crate) subscribed: BTreeSet<BareJid>,
}

/// The state of one device.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    version: u32,
    pub(crate) account: BareJid,
    /// Keys and sessions, in the crypto crate's own form.
    pub(crate) cipher: BTreeMap<Protocol, String>,
    /// Whether the device's id was free when it was looked for: from then on it stays.
    pub(crate) has_id: bool,
    /// What is known of device lists.
    pub(crate) lists: BTreeMap<Protocol, Lists>,
    /// What is known of the histories of devices. Not there in the file of an earlier version.
    #[serde(default)]
    pub(crate) histories: BTreeMap<BareJid, Ledger>,
    /// The archive id up to which the archive has been read.
    pub(crate) cursor: Option<String>,
    /// Sent, not yet acknowledged; oldest first.
    pub(crate) outbox: Vec<Outgoing>,
    /// Received, not yet had by the caller; oldest first, with the number of each.
    pub(crate) inbox: VecDeque<(u64, Received)>,
    /// What was received since the cursor last moved.
    pub(crate) seen: Seen,
}

impl State {
    /// The state of a new device.
    pub(crate) fn new(account: BareJid) -> Self {
        Self {
            version: VERSION,
            account,
            cipher: BTreeMap::new(),
            has_id: false,
            lists: BTreeMap::new(),
            histories: BTreeMap::new(),
            cursor: None,
            outbox: Vec::new(),
            inbox: VecDeque::new(),
            seen: Seen::default(),
        }
    }

    /// Reads the state of `account` from its file; `None` if there is none yet.
    pub(crate) fn load(file: &StateFile, account: &BareJid) -> Result<Option<Self>, StateError> {
        let path = file.path();
        let file_error = |source| StateError::File { path: path.to_owned(), source };
        let content_error = |reason: String| StateError::Content { path: path.to_owned(), reason };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file_error(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_LENGTH).read_to_end(&mut bytes).map_err(file_error)?;
        let state: Self = serde_json::from_slice(&bytes).map_err(|error| content_error(error.to_string()))?;
        if state.version != VERSION {
            return Err(content_error(format!("it has version {}, this is version {VERSION}", state.version)));
        }
        if state.account != *account {
            return Err(content_error(format!("it belongs to {}", state.account)));
        }
        Ok(Some(state))
    }

    /// What is known of the device lists of a protocol, to be changed.
    pub(crate) fn lists_mut(&mut self, protocol: Protocol) -> &mut Lists {
        self.lists.entry(protocol).or_default()
    }

    /// The device list of an account, where it is known.
    pub(crate) fn devices(&self, protocol: Protocol, account: &BareJid) -> Option<&Vec<u32>> {
        self.lists.get(&protocol)?.devices.get(account)
    }

    /// Whether an account's list is known, and a device is not in it.
    pub(crate) fn is_unlisted(&self, remote: &RemoteDevice) -> bool {
        self.devices(remote.protocol, &remote.account).is_some_and(|devices| !devices.contains(&remote.device))
    }

    /// Whether this device is published in a protocol.
    pub(crate) fn is_registered(&self, protocol: Protocol) -> bool {
        self.lists.get(&protocol).is_some_and(|lists| lists.registered)
    }

    /// The file's content for this state.
    pub(crate) fn to_bytes(&self, path: &Path) -> Result<Vec<u8>, StateError> {
        serde_json::to_vec(self)
            .map_err(|error| StateError::Content { path: path.to_owned(), reason: error.to_string() })
    }
}

/// The file that a state is kept in, locked against other clients while this value lives. Two clients with one state
/// would use the same keys for different messages.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    /// The number of the newest save that was written. Locked while one is written: the task behind a save may have been
    /// aborted while its write goes on.
    newest: Mutex<u64>,
    /// The lock is on a file of its own: the state's is replaced by every save.
    _lock: File,
}

impl StateFile {
    /// Locks the file, which need not exist yet.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let file_error = |source| StateError::File { path: path.to_owned(), source };
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.with_extension("lock"))
            .map_err(file_error)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), newest: Mutex::new(0), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(file_error(error)),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the content as a whole. Returns once the new one is on disk under the file's name. `number` counts the
    /// saves: an older one never replaces a newer one.
    pub(crate) fn replace(&self, number: u64, bytes: &[u8]) -> Result<(), StateError> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if number > *newest {
            replace(&self.path, bytes)?;
            *newest = number;
        }
        Ok(())
    }
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let beside = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&beside, path)?;
        match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => File::open(directory)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        }
    };
    write().map_err(|source| StateError::File { path: path.to_owned(), source })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn account(text: &str) -> BareJid {
        BareJid::new(text).unwrap()
    }

    fn save(file: &StateFile, account: &BareJid) {
        let number = *file.newest.lock().unwrap() + 1;
        file.replace(number, &State::new(account.clone()).to_bytes(file.path()).unwrap()).unwrap();
    }

    #[test]
    fn a_state_belongs_to_one_account_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::open(&directory.path().join("phone.json")).unwrap();
        let (alice, bob) = (account("alice@example.org"), account("bob@example.org"));
        assert!(State::load(&file, &alice).unwrap().is_none());
        save(&file, &alice);
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(State::load(&file, &alice).unwrap().is_some());
        assert!(matches!(State::load(&file, &bob), Err(StateError::Content { .. })));
    }

    #[test]
    fn what_a_crash_left_beside_the_file_does_not_matter() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::open(&directory.path().join("phone.json")).unwrap();
        let alice = account("alice@example.org");
        save(&file, &alice);
        fs::write(file.path().with_extension("new"), b"{\"version\":2,\"acc").unwrap();
        assert!(State::load(&file, &alice).unwrap().is_some());
        save(&file, &alice);
        assert!(State::load(&file, &alice).unwrap().is_some());
    }

    #[test]
    fn a_late_write_of_an_older_state_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::open(&directory.path().join("phone.json")).unwrap();
        file.replace(2, b"newer").unwrap();
        file.replace(1, b"older").unwrap();
        assert_eq!(fs::read(file.path()).unwrap(), b"newer");
    }

    #[test]
    fn a_state_has_one_client_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("phone.json");
        let first = StateFile::open(&path).unwrap();
        assert!(matches!(StateFile::open(&path), Err(StateError::InUse { .. })));
        drop(first);
        assert!(StateFile::open(&path).is_ok());
    }
}
