//! Upkeep: what a device does by itself, beside sending and receiving.
//!
//! Answers to key exchanges and heartbeats, a fresh bundle, its place in the device list, sessions that a peer believes
//! in, and everything that a new stream needs.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use xmpp_parsers::jid::BareJid;

use crate::client::Inner;
use crate::error::ClientError;
use crate::history::HandedOut;
use crate::protocol::{Protocol, RemoteDevice};

/// The pause before upkeep that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How many devices or accounts may wait for upkeep.
const MAX_WAITING: usize = 256;

/// What is to be done. The receiving task notes it; the upkeep task does it.
#[derive(Default)]
pub(crate) struct Upkeep {
    due: Mutex<Due>,
    wake: Notify,
}

#[derive(Default)]
struct Due {
    stream_renewed: bool,
    unlisted: bool,
    low_stock: BTreeSet<Protocol>,
    void_prekeys: BTreeSet<Protocol>,
    archive: bool,
    outdated_lists: BTreeSet<(BareJid, Protocol)>,
    missing_sessions: BTreeSet<RemoteDevice>,
    handed_out: VecDeque<(BareJid, HandedOut)>,
}

impl Upkeep {
    /// A new stream has replaced an earlier one.
    pub(crate) fn stream_renewed(&self) {
        self.due().stream_renewed = true;
    }

    /// This device is not in one of its account's lists any more.
    pub(crate) fn unlisted(&self) {
        self.due().unlisted = true;
    }

    /// Few prekeys of this device are left that nobody has.
    pub(crate) fn low_stock(&self, protocol: Protocol) {
        self.due().low_stock.insert(protocol);
    }

    /// No prekey of this device is handed out any more.
    pub(crate) fn prekeys_void(&self, protocol: Protocol) {
        self.due().void_prekeys.insert(protocol);
    }

    /// So much has come live that the archive should be read, to move the cursor on.
    pub(crate) fn archive_due(&self) {
        self.due().archive = true;
    }

    /// A message came from a device that is not in the account's list as it is known here.
    pub(crate) fn list_outdated(&self, account: &BareJid, protocol: Protocol) {
        let mut due = self.due();
        if due.outdated_lists.len() < MAX_WAITING {
            due.outdated_lists.insert((account.clone(), protocol));
        }
    }

    /// A device uses a session that this device does not have.
    pub(crate) fn session_missing(&self, remote: &RemoteDevice) {
        let mut due = self.due();
        if due.missing_sessions.len() < MAX_WAITING {
            due.missing_sessions.insert(remote.clone());
        }
    }

    /// The server has handed something out, which has to stand in the history of that account's devices.
    pub(crate) fn handed_out(&self, account: &BareJid, handed: HandedOut) {
        let mut due = self.due();
        if due.handed_out.len() < MAX_WAITING {
            due.handed_out.push_back((account.clone(), handed));
        }
        drop(due);
        self.look();
    }

    /// Has the upkeep task see whether there is something to do.
    pub(crate) fn look(&self) {
        self.wake.notify_one();
    }

    /// Takes a note away, to work on it.
    fn take<T>(&self, take: impl FnOnce(&mut Due) -> T) -> T {
        take(&mut self.due())
    }

    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The upkeep task.
    pub(crate) async fn keep_up(self: Arc<Self>) {
        loop {
            self.upkeep.wake.notified().await;
            while let Err(error) = self.do_what_is_due().await {
                if matches!(error, ClientError::Closed | ClientError::Login(_)) {
                    return;
                }
                tracing::warn!(%error, "upkeep failed and is tried again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Does everything that is due. What fails is due again, and so is what comes to be due while it is being done: each
    /// note is taken before the work on it begins, never afterwards.
    async fn do_what_is_due(self: &Arc<Self>) -> Result<(), ClientError> {
        if self.upkeep.take(|due| mem::take(&mut due.stream_renewed)) {
            self.renew().await.inspect_err(|_| self.upkeep.stream_renewed())?;
        }
        if self.upkeep.take(|due| mem::take(&mut due.unlisted)) {
            self.keep_listed().await.inspect_err(|_| self.upkeep.unlisted())?;
        }
        while let Some(protocol) = self.upkeep.take(|due| due.void_prekeys.pop_first()) {
            let void = self.memory.lock().await.cipher.part_mut(protocol).and_then(|keys| keys.replace_prekeys());
            void.inspect_err(|_| self.upkeep.prekeys_void(protocol))?;
        }
        while let Some(protocol) = self.upkeep.take(|due| due.low_stock.pop_first()) {
            self.replace_issued_prekeys(protocol).await.inspect_err(|_| self.upkeep.low_stock(protocol))?;
        }
        if self.upkeep.take(|due| mem::take(&mut due.archive)) {
            self.catch_up().await.inspect_err(|_| self.upkeep.archive_due())?;
        }
        while let Some((account, protocol)) = self.upkeep.take(|due| due.outdated_lists.pop_first()) {
            let refreshed = self.refresh_devices(&account, protocol).await;
            refreshed.inspect_err(|_| self.upkeep.list_outdated(&account, protocol))?;
        }
        while let Some(remote) = self.upkeep.take(|due| due.missing_sessions.pop_first()) {
            self.start_missing_session(&remote).await.inspect_err(|_| self.upkeep.session_missing(&remote))?;
        }
        self.send_replies().await?;
        let changed = self.memory.lock().await.cipher.bundles_changed();
        for protocol in changed {
            self.publish_bundle(protocol).await?;
        }
        self.hold_all_to_history().await
    }

    /// Holds what the server has handed out to the histories.
    async fn hold_all_to_history(&self) -> Result<(), ClientError> {
        loop {
            let next = self.upkeep.due().handed_out.front().cloned();
            let Some((account, handed)) = next else { return Ok(()) };
            self.hold_to_history(&account, handed).await?;
            self.upkeep.due().handed_out.pop_front();
        }
    }

    /// A new stream: the server has forgotten what it was told, and messages may have gone by.
    async fn renew(&self) -> Result<(), ClientError> {
        self.prepare_stream().await?;
        self.catch_up().await.map(drop)
    }

    /// Starts a session that a peer believes in and tells it by an empty message (XEP-0384, "Business Rules").
    async fn start_missing_session(self: &Arc<Self>, remote: &RemoteDevice) -> Result<(), ClientError> {
        let _order = self.starting_sessions.lock().await;
        if self.memory.lock().await.cipher.has_session(remote) {
            return Ok(());
        }
        self.start_sessions(remote.protocol, std::slice::from_ref(remote)).await?;
        if self.memory.lock().await.cipher.has_session(remote) {
            self.send_empty(remote).await?;
        }
        Ok(())
    }

    /// Answers key exchanges and sends heartbeats. During a catch-up they wait for its end: one answer for all.
    async fn send_replies(self: &Arc<Self>) -> Result<(), ClientError> {
        if self.catching_up.try_lock().is_err() {
            return Ok(());
        }
        let due = self.memory.lock().await.cipher.replies_due();
        for remote in due {
            self.send_empty(&remote).await?;
        }
        Ok(())
    }
}
