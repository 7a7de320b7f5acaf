//! Sends notices: takes what waits in the store, says it in the words of the protocol, and hands it to the link.
//!
//! While the link is down they wait where they are. Several instances may do this at once: each notice is one instance's at
//! a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::plugin::News;
use super::service::Addressing;
use crate::directory::{Directory, DirectoryError, Due, Told};
use crate::link::{LinkState, Outbox, SendError};
use crate::model::Protocol;
use crate::stanza::device_list;
use crate::stanza::extension::Device;
use crate::stanza::extension::notice::{self, Notice};
use crate::stanza::pubsub::{self, Item, Node};
use crate::stanza::tree::push_attribute;
use crate::store::NoticeKind;

/// Most notices taken at once.
const BATCH: u32 = 64;
/// How long to wait before looking again when nothing was due, or the database is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Counters of notices, by what they tell and what became of them.
#[derive(Clone)]
pub struct NoticeMetrics {
    notices: IntCounterVec,
}

const SENT: &str = "sent";
const MOOT: &str = "moot";

impl NoticeMetrics {
    /// Makes and registers them.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help =
            "Notices to devices and subscribers, by kind and by whether there was somebody and something to tell";
        let notices = IntCounterVec::new(Opts::new("multiend_directory_notices_total", help), &["kind", "result"])?;
        registry.register(Box::new(notices.clone()))?;
        for kind in NoticeKind::ALL {
            for result in [SENT, MOOT] {
                notices.with_label_values(&[kind.name(), result]);
            }
        }
        Ok(Self { notices })
    }

    fn count(&self, kind: NoticeKind, result: &str) {
        self.notices.with_label_values(&[kind.name(), result]).inc();
    }
}

/// What sends notices.
pub struct NoticeSender {
    /// Where they come from.
    pub directory: Arc<Directory>,
    /// How owners are called.
    pub addressing: Arc<dyn Addressing>,
    /// Tells servers that keep lists, too.
    pub news: News,
    /// Where they go.
    pub outbox: Outbox,
    /// Whether the link is up.
    pub link: watch::Receiver<LinkState>,
    /// What is counted.
    pub metrics: NoticeMetrics,
}

impl NoticeSender {
    /// Sends what is due until `stop` is cancelled or the link has ended. What is not sent by then stays in the store.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let up = tokio::select! {
                () = stop.cancelled() => return,
                up = self.link.wait_for(|state| *state == LinkState::Up) => up.is_ok(),
            };
            if !up {
                return;
            }
            match self.send_some(&stop).await {
                Ok(count) if count >= BATCH => continue,
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "notices wait: they cannot be taken now"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Sends one batch; how many there were.
    async fn send_some(&self, stop: &CancellationToken) -> Result<u32, DirectoryError> {
        let due = self.directory.take_notices(BATCH).await?;
        let count = u32::try_from(due.len()).unwrap_or(BATCH);
        let mut sent = Vec::with_capacity(due.len());
        for due in due {
            let mut stanzas = stanzas(&due, self.addressing.as_ref());
            let result = if stanzas.is_empty() { MOOT } else { SENT };
            if due.notice.kind == NoticeKind::ListChanged {
                stanzas.extend(self.news.list_changed(&due.notice.owner, Node::DeviceList(due.notice.protocol)));
            }
            if !self.send(stanzas, stop).await {
                break;
            }
            self.metrics.count(due.notice.kind, result);
            sent.push(due.notice);
        }
        self.directory.notices_sent(&sent).await?;
        Ok(count)
    }

    /// Hands stanzas to the link; `false` if it takes no more.
    async fn send(&self, stanzas: Vec<String>, stop: &CancellationToken) -> bool {
        for stanza in stanzas {
            let sent = tokio::select! {
                biased;
                sent = self.outbox.send(Bytes::from(stanza)) => sent,
                () = stop.cancelled() => return false,
            };
            match sent {
                Ok(()) => {}
                Err(SendError::Closed) => return false,
                Err(error @ SendError::TooLong) => tracing::error!(%error, "a notice is dropped"),
            }
        }
        true
    }
}

/// The messages that say it.
fn stanzas(due: &Due, addressing: &dyn Addressing) -> Vec<String> {
    let Some(told) = &due.told else { return Vec::new() };
    let payload = payload(told, due.notice.protocol);
    let from = addressing.owner(&due.notice.owner);
    due.to.iter().map(|to| headline(&from, to.as_str(), &payload)).collect()
}

fn payload(told: &Told, protocol: Protocol) -> String {
    let device = |id| Device { protocol, id };
    match told {
        Told::List(list) => {
            let id = super::directory::CURRENT.to_owned();
            let item = Item { id, payload: device_list::write(list, protocol) };
            pubsub::event(Node::DeviceList(protocol), &[item])
        }
        Told::LowStock(id, unissued) => notice::payload(device(*id), Notice::LowStock { unissued: *unissued }),
        Told::Quarantined(id) => notice::payload(device(*id), Notice::Quarantined),
        Told::Removed(id) => notice::payload(device(*id), Notice::Removed),
        Told::Restored(id) => notice::payload(device(*id), Notice::Restored),
    }
}

/// A message that is never kept for who is away.
fn headline(from: &str, to: &str, payload: &str) -> String {
    let mut out = String::with_capacity(payload.len().saturating_add(128));
    out.push_str("<message type='headline'");
    push_attribute(&mut out, "from", from);
    push_attribute(&mut out, "to", to);
    out.push('>');
    out.push_str(payload);
    out.push_str("</message>");
    out
}
